"""Servers for the tests: `transformers serve`, which is not ours, and a small one that answers as it is told."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from rlvr.evaluation.requests import Key, Request, sample_seed


def wanted(prompts: list, seed: int = 0) -> list[Request]:
    """One sample of each prompt."""
    keys = [Key("test", str(index), 0) for index in range(len(prompts))]
    return [Request(key, prompt, sample_seed(seed, key)) for key, prompt in zip(keys, prompts, strict=True)]


class Asked(NamedTuple):
    """What a client sent; `body` is empty where there was none."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass(frozen=True)
class Reply:
    """What a small server answers.

    Attributes:
        status: of HTTP.
        body: text; anything else becomes JSON.
        headers: besides the usual.
        delay: seconds before the answer.
        cut: the connection ends in the middle of the body.
    """

    status: int = 200
    body: Any = ""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False


MODELS = Reply(body={"object": "list", "data": [{"id": "tiny", "object": "model", "created": 0, "owned_by": "me"}]})


def completion(asked: Asked, **changes: Any) -> Reply:
    """A well-formed answer: the prompt, or the last message, in brackets; its length in words."""
    chat = asked.path.endswith("/chat/completions")
    text = asked.body["messages"][-1]["content"] if chat else asked.body["prompt"]
    said = {"message": {"role": "assistant", "content": f"[{text}]"}} if chat else {"text": f"[{text}]"}
    count = len(text.split())
    body = {
        "id": "1", "created": 0, "model": asked.body["model"],
        "object": "chat.completion" if chat else "text_completion",
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, **said}],
        "usage": {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": 1 + count},
    }  # fmt: skip
    return Reply(body={**body, **changes})


class _Listener(ThreadingHTTPServer):
    request_queue_size = 128


class SmallServer:
    """Answers on a port of its own with what a function says; remembers what it was asked.

    Attributes:
        url: without `/v1`.
        asked: the requests for completions, in order of arrival.
        in_flight, most_in_flight: of those, now and at most.
    """

    def __init__(self, answer: Callable[[Asked, int], Reply], models: Reply = MODELS) -> None:
        """Starts at once.

        Args:
            answer: gets a request for a completion and how many came before it.
            models: the answer to `/v1/models`.
        """
        self.answer, self.models = answer, models
        self.asked: list[Asked] = []
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()
        self._http = _Listener(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self) -> "SmallServer":
        return self

    def __exit__(self, *_: Any) -> None:
        self._http.shutdown()
        self._http.server_close()

    def reply(self, asked: Asked) -> Reply:
        if asked.path.endswith("/models"):
            return self.models
        with self._lock:
            count = len(self.asked)
            self.asked.append(asked)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            reply = self.answer(asked, count)
            time.sleep(reply.delay)
            return reply
        finally:
            with self._lock:
                self.in_flight -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length)) if length else {}
                reply = server.reply(Asked(self.path, body, {k.lower(): v for k, v in self.headers.items()}))
                text = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
                kind = "text/plain" if isinstance(reply.body, str) else "application/json"
                headers = {"content-type": kind, **reply.headers, "content-length": str(len(text))}
                with contextlib.suppress(ConnectionError):  # the client may have gone
                    self.send_response(reply.status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(text[: len(text) // 2] if reply.cut else text)
                self.close_connection = self.close_connection or reply.cut

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def forward(asked: Asked, url: str) -> Reply:
    """What another server answers."""
    data = json.dumps(asked.body).encode()
    request = urllib.request.Request(url + asked.path, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return Reply(answer.status, json.loads(answer.read()))
    except urllib.error.HTTPError as error:
        return Reply(error.code, error.read().decode())


class TransformersServe:
    """`transformers serve` on loopback, which can be killed and started again on the same port.

    Attributes:
        url: without `/v1`.
    """

    def __init__(self, folder: Path) -> None:
        """Starts, and waits until it answers.

        Args:
            folder: for its log and an empty cache.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url, self.folder = f"http://127.0.0.1:{self.port}", folder
        self.start()

    def start(self) -> None:
        changes = {"HF_HOME": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        script = str(Path(sys.executable).parent / "transformers")
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--device", "cpu"]
        with (self.folder / "log.txt").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, script, "serve", *options], env={**os.environ, **changes}, stdout=log, stderr=log
            )
        self._wait_until_up(time.monotonic() + 120)

    def _wait_until_up(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError((self.folder / "log.txt").read_text()[-2000:])
            with contextlib.suppress(OSError), urllib.request.urlopen(self.url + "/health", timeout=5):
                return
            time.sleep(0.1)
        self.kill()
        raise RuntimeError("`transformers serve` did not start within 120 s")

    def kill(self) -> None:
        """SIGKILL: no request is finished."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def transformers_serve(folder: Path) -> Iterator[TransformersServe]:
    """A running server, killed in the end."""
    server = TransformersServe(folder)
    try:
        yield server
    finally:
        server.kill()
