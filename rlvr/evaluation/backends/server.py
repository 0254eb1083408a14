"""Any OpenAI-compatible endpoint as a back end: vLLM's, SGLang's, llama.cpp's, `transformers serve`, or a paid one."""

import asyncio
import contextlib
import difflib
import os
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from rlvr.errors import UserError
from rlvr.evaluation.requests import Request, Sample
from rlvr.sampling.settings import Sampling

try:
    import openai
except ImportError as error:
    raise UserError("the back end `server` needs the package openai; install it: pip install openai") from error

from rlvr.evaluation.backends.patience import Patience


class ServerBackend:
    """Draws samples from a model behind an OpenAI-compatible endpoint.

    Text goes to `/v1/completions`, a chat to `/v1/chat/completions`: one request a sample, never streamed. After a
    broken connection, a time-out or an error 408, 409, 425, 429 or 5xx a request is made again, later and later or when
    the server's `Retry-After` says so; an evaluation outlives a restart of the server. Other errors end it at once.

    What the server decides, whatever is asked of it:

    - Whether seeds hold. `transformers serve` answers one request after the other, but seeds its process when a request
      arrives: there, seeds hold with `concurrency=1` only. A server that forms batches may promise less.
    - What holds where `top_k` is 0: nothing is sent then, and some servers take the model's own default. vLLM's does
      unless started with `--generation-config vllm`. `transformers serve` refuses every other `top_k`, and draws only
      where the model's generation config has `do_sample`; else it is greedy at any temperature.
    - Whether reasoning is cut off from the answer to a chat. Its tokens count, but the completion is the rest.
    - Which finish reasons there are besides `stop` and `length`, such as `content_filter`; they are kept as they are.

    Attributes:
        engine: `server`.
    """

    engine = "server"

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        concurrency: int = 16,
        timeout: float = 600.0,
        patience: float = 600.0,
        check_model: bool = True,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: of the server, e.g. `http://127.0.0.1:8000`; without a path, `/v1` is meant.
            model: its name there.
            api_key: None for the environment variable OPENAI_API_KEY, where it is set. It appears in no message.
            concurrency: requests in flight at once.
            timeout: seconds that one attempt may take, waiting in the server's own queue included.
            patience: seconds that one request is tried again, from its first failure on.
            check_model: refuse a model that is not in the server's list. False for a server that loads by name what it
                does not list, such as `transformers serve` with a folder.

        Raises:
            UserError: where an argument is out of range.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"url is {url!r}; expected one such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query:
            raise UserError(
                f"url holds a password or a query after {parts.hostname!r}; expected neither: put the key into the "
                "environment variable OPENAI_API_KEY"
            )
        if not 1 <= concurrency <= 1000:
            raise UserError(f"concurrency is {concurrency}; expected 1 to 1000 requests at once")
        if not timeout > 0:
            raise UserError(f"timeout is {timeout}; expected seconds above 0")
        if not patience >= 0:
            raise UserError(f"patience is {patience}; expected 0 seconds (no second attempt) or more")
        self.url = url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")
        self.model, self.concurrency, self.timeout = model, concurrency, timeout
        self._check_model = check_model
        self._api_key = api_key or os.environ.get("OPENAI_API_KEY") or ""
        self._patience = Patience(patience, timeout, self.url, self._api_key)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Sample]]:
        """Draw every sample that is asked for; see `Backend`.

        The connections live in a thread of their own, so the server is kept busy while the caller works on a list.
        Leaving the iterator early gives up what is in flight.

        Raises:
            UserError: where the server stays out of reach for longer than `patience`, refuses a request, does not have
                the model, or gives an answer without a count of tokens.
        """
        yield from _from_a_thread(lambda put: self._draw(requests, sampling, put))

    def close(self) -> None:
        """Nothing is kept between two calls of `generate`."""

    async def _draw(self, requests: Sequence[Request], sampling: Sampling, put: Callable[[Sample], None]) -> None:
        async with self._client() as client:  # of its own: after an error some servers end a connection without a word
            await self._find_model(client)
        async with self._client() as client:
            waiting = iter(requests)

            async def work() -> None:
                for request in waiting:
                    put(await self._sample(client, request, sampling))

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.concurrency, len(requests))):
                        group.create_task(work())
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from None

    def _client(self) -> openai.AsyncOpenAI:
        timeout = openai.Timeout(self.timeout, connect=min(self.timeout, 10.0))
        return openai.AsyncOpenAI(base_url=self.url, api_key=self._api_key or "none", timeout=timeout, max_retries=0)

    async def _find_model(self, client: openai.AsyncOpenAI) -> None:
        """Waits until the server answers, and refuses a model that it does not list; many servers list none."""
        try:
            names = await self._patience.answer(lambda: self._list(client))
        except openai.APIStatusError as error:
            if error.status_code == 401:
                raise self._patience.refusal(error) from None
            return  # no list for us; the first request will tell
        if not self._check_model or not names or self.model in names:
            return
        near = difflib.get_close_matches(self.model, names, n=1)
        raise UserError(
            f"{self.url} does not list the model {self.model!r}; it lists {', '.join(map(repr, names[:10]))}"
            + (f"; did you mean {near[0]!r}?" if near else "")
            + "; for a server that loads models by name, switch check_model off"
        )

    @staticmethod
    async def _list(client: openai.AsyncOpenAI) -> list[str]:
        """The models of the server; none where it cannot list them: without a cache, `transformers serve` has a 500."""
        try:
            page: Any = await client.models.list()
        except openai.InternalServerError as error:
            if error.status_code in (500, 501):
                return []
            raise
        return [entry.id for entry in getattr(page, "data", None) or []]

    async def _sample(self, client: openai.AsyncOpenAI, request: Request, sampling: Sampling) -> Sample:
        settings: dict[str, Any] = {
            "model": self.model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": request.seed,
        }
        if sampling.top_k:
            settings["extra_body"] = {"top_k": sampling.top_k}
        prompt: Any = request.prompt
        if isinstance(prompt, str):
            ask = lambda: client.completions.create(prompt=prompt, **settings)  # noqa: E731
        else:
            ask = lambda: client.chat.completions.create(messages=prompt, **settings)  # noqa: E731
        try:
            answer = await self._patience.answer(ask)
        except openai.APIStatusError as error:
            raise self._patience.refusal(error) from None
        return self._read(request, answer)

    def _read(self, request: Request, answer: Any) -> Sample:
        choices = getattr(answer, "choices", None)
        if not choices:
            raise UserError(
                f"{self.url} gave an answer without choices; expected an OpenAI-compatible server: "
                + repr(self._patience.hide(str(answer))[:200])
            )
        message = getattr(choices[0], "message", None)
        text = choices[0].text if message is None else message.content
        usage = getattr(answer, "usage", None)
        count = getattr(usage, "completion_tokens", None)
        if count is None or choices[0].finish_reason is None:
            missing = "usage.completion_tokens" if count is None else "finish_reason"
            raise UserError(
                f"{self.url} gave an answer without {missing}; expected it in every answer, since lengths and cuts are "
                "measured by it; use another server"
            )
        return Sample(request.key, text or "", count, choices[0].finish_reason)


def _from_a_thread(work: Callable[[Callable[[Sample], None]], Coroutine[Any, Any, None]]) -> Iterator[list[Sample]]:
    """What a coroutine puts, in lists, while it runs in a thread; it is cancelled when the iterator is closed.

    Args:
        work: gets a function that takes one sample.

    Raises:
        Exception: what the coroutine raised, after everything that it put before.
    """
    inbox: queue.SimpleQueue[Sample | BaseException | None] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(work(inbox.put))

    def run() -> None:
        end: BaseException | None = None
        try:
            loop.run_until_complete(task)
        except BaseException as error:
            end = error
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            inbox.put(end)

    thread = threading.Thread(target=run, name="rlvr-server-backend", daemon=True)
    thread.start()
    try:
        while True:
            items = [inbox.get()]
            while not inbox.empty():
                items.append(inbox.get())
            samples = [item for item in items if isinstance(item, Sample)]
            if samples:
                yield samples
            if not isinstance(items[-1], Sample):
                if items[-1] is not None:
                    raise items[-1]
                return
    finally:
        with contextlib.suppress(RuntimeError):  # the loop is closed where the work is done
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
