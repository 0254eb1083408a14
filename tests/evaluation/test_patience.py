"""When a server is asked again, with a clock of the test's own."""

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from rlvr.errors import UserError
from rlvr.evaluation.backends import patience
from rlvr.evaluation.backends.patience import Patience


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits, which pass at once; without the spread."""
    now, waits = [100.0], []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(patience.asyncio, "sleep", sleep)
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(patience.time, "time", lambda: 1_000_000.0)
    monkeypatch.setattr(patience.random, "uniform", lambda low, high: high)
    return waits


def failing(error: Callable[[], Exception], times: int) -> Callable:
    """Fails that many times, and then has an answer."""
    left = [times]

    async def ask() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise error()
        return "answer"

    return ask


def answered(status: int, headers: dict[str, str] | None = None) -> openai.APIStatusError:
    request = SimpleNamespace(url="http://x/v1/completions")
    response: Any = SimpleNamespace(request=request, status_code=status, headers=headers or {}, text="no")
    return openai.APIStatusError("", response=response, body=None)


def answer(ask: Callable, seconds: float = 100.0) -> str:
    return asyncio.run(Patience(seconds, 10.0, "http://x", "").answer(ask))


def test_waits_double_up_to_the_longest_and_sum_up_to_patience(waits: list[float]) -> None:
    # 0.5 + 1 + 2 + 4 + 8 + 16 + 30 + 30 = 91.5, which leaves 8.5 of 100.
    with pytest.raises(UserError, match=r"10 attempts failed in 100\.0 s, and patience ends after 100 s; the last: no"):
        answer(failing(TimeoutError, 99))
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 8.5]


def test_the_spread_is_from_half_to_the_whole(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    monkeypatch.setattr(patience.random, "uniform", lambda low, high: low)
    assert answer(failing(TimeoutError, 3)) == "answer"
    assert waits == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("7", 7.0),
        ("0", 0.0),
        (formatdate(1_000_042, usegmt=True), 42.0),
        (formatdate(999_000, usegmt=True), 0.0),  # in the past
        ("soon", 0.5),  # neither a number nor a date: as without the header
    ],
)
def test_retry_after(header: str, wait: float, waits: list[float]) -> None:
    assert answer(failing(lambda: answered(429, {"retry-after": header}), 1)) == "answer"
    assert waits == [wait]


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_errors_that_pass(status: int, waits: list[float]) -> None:
    assert answer(failing(lambda: answered(status), 2)) == "answer"
    assert waits == [0.5, 1.0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_errors_that_stay(status: int, waits: list[float]) -> None:
    with pytest.raises(openai.APIStatusError):
        answer(failing(lambda: answered(status), 1))
    assert waits == []


def test_without_patience_there_is_one_attempt(waits: list[float]) -> None:
    with pytest.raises(UserError, match=r"1 attempt failed in 0\.0 s"):
        answer(failing(TimeoutError, 1), seconds=0.0)
    assert waits == []
