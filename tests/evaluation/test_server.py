"""The back end for OpenAI-compatible endpoints, against a small server that fails as it is told."""

import asyncio
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rlvr.errors import UserError
from rlvr.evaluation.backends import patience
from rlvr.evaluation.backends.server import ServerBackend
from rlvr.evaluation.requests import Sample
from rlvr.sampling.settings import Sampling
from tests.evaluation.serving import Asked, Reply, SmallServer, completion, wanted

PROMPTS = [f"prompt {index}" for index in range(12)]
CHAT = [{"role": "user", "content": "one two three"}]


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.02)


def draw(
    server: SmallServer, prompts: list = PROMPTS, sampling: Sampling | None = None, **settings: Any
) -> list[Sample]:
    """All samples, in the order of the prompts."""
    settings = {"patience": 20.0, "timeout": 10.0, **settings}
    backend = ServerBackend(server.url, settings.pop("model", "tiny"), **settings)
    samples = [sample for some in backend.generate(wanted(prompts), sampling or Sampling()) for sample in some]
    return in_order(samples)


def collect(samples: Iterator[list[Sample]], into: list[Sample]) -> None:
    for some in samples:
        into += some


def in_order(samples: list[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda sample: int(sample.key.problem_id))


def usual(asked: Asked, count: int) -> Reply:
    return completion(asked)


def failing(faults: dict[int, Reply]) -> Callable[[Asked, int], Reply]:
    """The requests of these numbers, in order of arrival, fail; the others are answered."""
    return lambda asked, count: faults.get(count) or completion(asked)


def expected(prompts: list = PROMPTS) -> list[Sample]:
    return [Sample(request.key, f"[{request.prompt}]", 2, "stop") for request in wanted(prompts)]


def test_what_is_asked_for_a_text_and_for_a_chat() -> None:
    sampling = Sampling(temperature=0.6, top_p=0.95, max_tokens=77)
    with SmallServer(usual) as server:
        samples = draw(server, ["one two", CHAT], sampling, concurrency=1)
        text, chat = wanted(["one two", CHAT])
    assert samples == [Sample(text.key, "[one two]", 2, "stop"), Sample(chat.key, "[one two three]", 3, "stop")]
    common = {"model": "tiny", "temperature": 0.6, "top_p": 0.95, "max_tokens": 77}
    assert [(asked.path, asked.body) for asked in server.asked] == [
        ("/v1/completions", {"prompt": "one two", "seed": text.seed, **common}),
        ("/v1/chat/completions", {"messages": CHAT, "seed": chat.seed, **common}),
    ]


def test_top_k_is_sent_where_it_is_on() -> None:
    with SmallServer(usual) as server:
        draw(server, ["a"], Sampling(top_k=20))
    assert server.asked[0].body["top_k"] == 20


def test_a_cut_answer_and_a_reason_of_the_servers_own_are_kept() -> None:
    def answer(asked: Asked, count: int) -> Reply:
        reason = ["length", "content_filter"][count]
        message = {"role": "assistant", "content": None}  # as where reasoning is cut off from the answer
        return completion(asked, choices=[{"index": 0, "finish_reason": reason, "message": message}])

    with SmallServer(answer) as server:
        samples = draw(server, [CHAT, CHAT], concurrency=1)
    assert [(sample.completion, sample.finish_reason) for sample in samples] == [("", "length"), ("", "content_filter")]


def test_the_key_comes_from_the_environment_or_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    with SmallServer(usual) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
        draw(server, ["a"])
        draw(server, ["a"], api_key="sk-caller")
    assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer sk-environment", "Bearer sk-caller"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_an_error_that_stays_ends_at_once_in_the_servers_words(status: int) -> None:
    refusal = Reply(status, {"error": {"message": "no such\nthing for sk-secret", "type": "x"}})
    with SmallServer(failing({0: refusal})) as server, pytest.raises(UserError) as caught:
        draw(server, concurrency=1, api_key="sk-secret")
    assert str(caught.value) == (
        f"{server.url}/v1/completions answers with error {status}: no such thing for ***"
    )  # fmt: skip
    assert len(server.asked) == 1


@pytest.mark.parametrize("body", ["plain words", {"detail": "plain words"}, {"message": "plain words"}])
def test_every_form_of_a_refusal_is_read(body: Any) -> None:
    with SmallServer(failing({0: Reply(422, body)})) as server, pytest.raises(UserError, match=r"422: plain words$"):
        draw(server, ["a"])


def test_a_wrong_key_ends_before_the_first_request() -> None:
    models = Reply(401, {"error": {"message": "bad key"}})
    with SmallServer(usual, models) as server, pytest.raises(UserError, match="models answers with error 401: bad key"):
        draw(server)
    assert server.asked == []


def test_a_model_that_is_not_listed_is_refused_with_the_nearest_name() -> None:
    with SmallServer(usual) as server:
        with pytest.raises(UserError, match=r"not list the model 'tinny'; it lists 'tiny'; did you mean 'tiny'\?"):
            draw(server, model="tinny")
        assert server.asked == []
        assert draw(server, ["prompt 0"], model="tinny", check_model=False) == expected(["prompt 0"])


@pytest.mark.parametrize(
    "models", [Reply(404, "no"), Reply(403, "no"), Reply(500, "broken"), Reply(body={"object": "list", "data": []})]
)
def test_a_server_that_lists_no_models_is_asked(models: Reply) -> None:
    with SmallServer(usual, models) as server:
        assert draw(server, ["prompt 0"]) == expected(["prompt 0"])


def test_as_many_requests_are_in_flight_as_allowed() -> None:
    with SmallServer(lambda asked, count: Reply(**{**vars(completion(asked)), "delay": 0.1})) as server:
        samples = draw(server, concurrency=4)
    assert samples == expected()
    assert server.most_in_flight == 4


FAULTS = {
    "429": Reply(429, {"error": {"message": "slow down"}}),
    "429 until": Reply(429, "slow down", {"retry-after": "0"}),
    "500": Reply(500, "Internal Server Error"),
    "503": Reply(503, {"error": "loading"}),
    "cut": Reply(body={"choices": "x" * 1000}, cut=True),
    "half a JSON text": Reply(body='{"choices": [', headers={"content-type": "application/json"}),
    "slow": Reply(body={"choices": []}, delay=0.6),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_passes_is_tried_again_and_nothing_comes_twice(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    faults = dict.fromkeys([0, 3, 4, 9, 12], FAULTS[fault])
    with caplog.at_level(logging.WARNING), SmallServer(failing(faults)) as server:
        samples = draw(server, concurrency=3, timeout=0.3)
    assert samples == expected()
    assert len(server.asked) == len(PROMPTS) + len(faults)
    (warning,) = caplog.messages  # one line, not one a failure
    assert re.fullmatch(rf"{server.url}/v1: .+; the next attempt is in 0\.\d s", warning)


def test_retry_after_is_kept_to() -> None:
    times = []

    def answer(asked: Asked, count: int) -> Reply:
        times.append(time.monotonic())
        return completion(asked) if count else Reply(429, "slow down", {"retry-after": "1"})

    with SmallServer(answer) as server:
        draw(server, ["a"])
    assert 1.0 <= times[1] - times[0] < 5.0


def test_a_wait_beyond_patience_is_not_begun() -> None:
    fault = Reply(429, {"error": {"message": "quota"}}, {"retry-after": "3600"})
    started = time.monotonic()
    with SmallServer(failing({0: fault})) as server, pytest.raises(UserError, match="quota, which asks to wait 3600 s"):
        draw(server, ["a"])
    assert time.monotonic() - started < 3


def test_patience_ends_and_what_was_drawn_is_handed_out() -> None:
    def answer(asked: Asked, count: int) -> Reply:
        return completion(asked) if count < 5 else Reply(503, {"error": "overloaded"})

    got: list[Sample] = []
    with SmallServer(answer) as server:
        backend = ServerBackend(server.url, "tiny", concurrency=2, patience=0.5)
        with pytest.raises(UserError) as caught:
            collect(backend.generate(wanted(PROMPTS), Sampling()), got)
    assert len(got) == 5  # which five is a race of two requests in flight
    assert all(sample in expected() for sample in got)
    assert "attempts failed in 0.5 s, and patience ends after 0.5 s; the last: error 503: overloaded;" in str(
        caught.value
    )
    assert "run the same command again to go on" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_waited_for_until_patience_ends() -> None:
    with SmallServer(usual) as server:
        pass  # a port that nobody listens on any more
    with pytest.raises(UserError, match=r"attempts failed in 0\.\d s.*ConnectError"):
        draw(server, patience=0.4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"usage": None}, "without usage.completion_tokens"),
        ({"choices": [{"index": 0, "text": "x", "finish_reason": None}]}, "without finish_reason"),
        ({"choices": []}, "without choices"),
    ],
)
def test_an_answer_that_lacks_something_is_refused(changes: dict, message: str) -> None:
    with (
        SmallServer(lambda asked, count: completion(asked, **changes)) as server,
        pytest.raises(UserError, match=message),
    ):
        draw(server, ["a"])


def test_a_page_is_not_an_answer() -> None:
    page = Reply(body="<html>welcome</html>", headers={"content-type": "text/html"})
    with SmallServer(failing({0: page})) as server, pytest.raises(UserError, match=r"without choices.*welcome"):
        draw(server, ["a"])


def test_leaving_early_gives_up_what_is_in_flight() -> None:
    release = threading.Event()

    def answer(asked: Asked, count: int) -> Reply:
        if asked.body["prompt"] != "prompt 0":
            release.wait(30)
        return completion(asked)

    before = set(threading.enumerate())
    with SmallServer(answer) as server:
        samples = ServerBackend(server.url, "tiny", concurrency=3).generate(wanted(PROMPTS), Sampling())
        started = time.monotonic()
        assert next(samples) == expected()[:1]
        samples.close()
        assert time.monotonic() - started < 20, "it waited for the others"
        release.set()
        time.sleep(0.3)
        assert len(server.asked) <= 4, "the one that was answered, and three in flight"
    assert not [thread for thread in set(threading.enumerate()) - before if "rlvr" in thread.name]


def test_it_works_inside_a_running_event_loop() -> None:
    async def notebook(server: SmallServer) -> list[Sample]:
        return draw(server)

    with SmallServer(usual) as server:
        assert asyncio.run(notebook(server)) == expected()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "127.0.0.1:8000"}, "url is '127.0.0.1:8000'; expected one such as http"),
        ({"url": "http://me:secret@host/v1"}, "after 'host'; expected neither"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"timeout": 0.0}, r"timeout is 0\.0"),
        ({"patience": -1.0}, r"patience is -1\.0"),
    ],
)
def test_arguments_out_of_range(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ServerBackend(**{"url": "http://host", "model": "m", **settings})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("http://h:1", "http://h:1/v1"), ("http://h:1/", "http://h:1/v1"), ("http://h/a/v1/", "http://h/a/v1")],
)
def test_without_a_path_v1_is_meant(given: str, meant: str) -> None:
    assert ServerBackend(given, "m").url == meant


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.delitem(sys.modules, "rlvr.evaluation.backends.server")
    with pytest.raises(UserError, match=r"pip install openai"):
        __import__("rlvr.evaluation.backends.server")
