"""Asking a server again: which failures are worth it, how long to wait, and when to give up."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import openai

from rlvr.errors import UserError

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds between two attempts: twice as long each time, from the first to the longest."""

WORTH_RETRYING = (408, 409, 425, 429)
"""With every 5xx: what may be different in a while. Any other error stays what it is."""

Answer = TypeVar("Answer")
log = logging.getLogger(__name__)


class Patience:
    """Asks again, later and later, or when `Retry-After` says so.

    The library retries too, but by number and at most 8 seconds apart; a server needs minutes to load a model.

    Attributes:
        seconds: that one request is tried again, from its first failure on.
        timeout: seconds of one attempt.
        url: of the server, for messages.
        secret: what no message may show; empty for nothing.
    """

    def __init__(self, seconds: float, timeout: float, url: str, secret: str) -> None:
        self.seconds, self.timeout, self.url, self.secret = seconds, timeout, url, secret
        self._warned_at = -float("inf")

    async def answer(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer of the first attempt that has one.

        Args:
            ask: makes one attempt, without retries of its own.

        Raises:
            openai.APIStatusError: an error that asking again does not mend.
            UserError: where patience ends.
        """
        attempts, failed_at = 0, None
        while True:
            attempts += 1
            try:
                async with asyncio.timeout(self.timeout):  # the client's own counts from one byte to the next
                    return await ask()
            except (TimeoutError, openai.APIError, ValueError) as error:  # ValueError: half a JSON text
                trouble, told_to_wait = self._trouble(error), _retry_after(error)
            now = time.monotonic()
            failed_at = now if failed_at is None else failed_at
            left = failed_at + self.seconds - now
            # Spread out, or all would come back to a server that has just started in the same moment.
            wait = min(FIRST_WAIT * 2 ** min(attempts - 1, 30), LONGEST_WAIT) * random.uniform(0.5, 1.0)
            wait = min(wait, left) if told_to_wait is None else told_to_wait
            if left <= 0 or wait > left:
                told = "" if told_to_wait is None else f", which asks to wait {told_to_wait:.0f} s"
                tried = f"{attempts} attempt{'s' if attempts > 1 else ''} failed in {now - failed_at:.1f} s"
                raise UserError(
                    f"{self.url}: {tried}, and patience ends after {self.seconds:g} s; the last: {trouble}{told}; see "
                    "to the server, and run the same command again to go on"
                )
            self._warn(f"{self.url}: {trouble}; the next attempt is in {wait:.1f} s")
            await asyncio.sleep(wait)

    def refusal(self, error: openai.APIStatusError) -> UserError:
        """An error that asking again does not mend, in the server's own words."""
        return UserError(f"{error.request.url} answers with error {error.status_code}: {self._words(error)}")

    def hide(self, text: str) -> str:
        """A text without the secret."""
        return text.replace(self.secret, "***") if self.secret else text

    def _trouble(self, error: Exception) -> str:
        """What is wrong, in words; raises what asking again does not mend."""
        if isinstance(error, (TimeoutError, openai.APITimeoutError)):
            return f"no answer within {self.timeout:g} s"
        if isinstance(error, openai.APIStatusError):
            if error.status_code not in WORTH_RETRYING and error.status_code < 500:
                raise error
            return f"error {error.status_code}: {self._words(error)}"
        cause = error.__cause__ or error
        return self.hide(f"{type(cause).__name__}: {cause}")

    def _words(self, error: openai.APIStatusError) -> str:
        """What the server says, in one line of at most 500 characters."""
        body: Any = error.body
        for name in ("error", "message", "detail"):
            body = body[name] if isinstance(body, dict) and body.get(name) else body
        return self.hide(" ".join(str(body or error.response.text or "(no words)").split()))[:500]

    def _warn(self, text: str) -> None:
        """One line in ten seconds, however many requests fail."""
        if time.monotonic() - self._warned_at >= 10:
            self._warned_at = time.monotonic()
            log.warning(text)


def _retry_after(error: Exception) -> float | None:
    """Seconds until the server wants to be asked again, as a number or a date (RFC 9110, section 10.2.3)."""
    header = error.response.headers.get("retry-after") if isinstance(error, openai.APIStatusError) else None
    if header is None:
        return None
    with contextlib.suppress(ValueError):
        return max(float(header) if header.strip().isdecimal() else _seconds_until(header), 0.0)
    return None


def _seconds_until(date: str) -> float:
    return parsedate_to_datetime(date).timestamp() - time.time()
