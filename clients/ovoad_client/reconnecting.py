"""When and how soon to connect again after a break. Knows no socket and waits for nothing."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ovoad_client.errors import (
    BrokenError,
    ClientError,
    RefusedError,
    SilenceError,
    UnreachableError,
)
from ovoad_client.protocol import CLOSE_CAPACITY, CLOSE_RESTART, CLOSE_SERVER_FAULT, ErrorCode

# None: no close frame, which libraries call 1006; 1001 and 1005: a proxy that leaves.
_CLOSE_CODES_TO_RETRY: Final = (None, 1001, 1005, CLOSE_SERVER_FAULT, CLOSE_RESTART, CLOSE_CAPACITY)
_ERRORS_TO_RETRY: Final[tuple[ErrorCode, ...]] = ("capacity", "restarting", "internal")


@dataclass(frozen=True)
class Reconnect:
    """How a stream comes back after a break.

    It waits `first_s` before its first attempt, then twice as long each time up to `longest_s`,
    each spread by a quarter so that a crowd does not come back at one instant; a server that says
    when to ask again (`retry_after_ms`) is not asked earlier. After `give_up_s` without a session
    that answers it gives up.
    """

    first_s: float = 0.25
    longest_s: float = 8.0
    give_up_s: float = 60.0

    def delay_s(
        self, attempt: int, *, retry_after_ms: int | None = None, chance: float = 0.5
    ) -> float:
        """Return the wait before an attempt, 1 being the first; chance is from 0 to 1."""
        doubled_s = min(self.longest_s, self.first_s * 2.0 ** min(attempt - 1, 30))
        return (retry_after_ms or 0) / 1000 + doubled_s * (0.75 + 0.5 * chance)


def may_retry(failure: ClientError) -> bool:
    """Tell whether connecting again later can mend a failure."""
    match failure:
        case UnreachableError() | SilenceError():
            return True
        case RefusedError():
            return failure.code in _ERRORS_TO_RETRY
        case BrokenError():
            return failure.close_code in _CLOSE_CODES_TO_RETRY
        case _:
            return False


class Outage:
    """The time since a stream last worked, and the attempts made in it."""

    def __init__(
        self, reconnect: Reconnect, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.attempt = 0
        self._reconnect = reconnect
        self._clock = clock
        self._since_s: float | None = None

    def end(self) -> None:
        """The stream has worked again; the next break begins a new outage."""
        self.attempt = 0
        self._since_s = None

    def next_wait_s(self, failure: ClientError) -> float:
        """Return the wait before the next attempt.

        Raises the failure where no attempt can help, and BrokenError where the time is up.
        """
        if not may_retry(failure):
            raise failure
        now_s = self._clock()
        if self._since_s is None:
            self._since_s = now_s
        retry_after_ms = failure.retry_after_ms if isinstance(failure, RefusedError) else None
        wait_s = self._reconnect.delay_s(
            self.attempt + 1, retry_after_ms=retry_after_ms, chance=random.random()
        )
        if now_s + wait_s - self._since_s > self._reconnect.give_up_s:
            raise self.give_up(failure) from failure
        self.attempt += 1
        return wait_s

    def give_up(self, failure: ClientError) -> BrokenError:
        """Return the error that says how long was tried, and the last reason."""
        spent_s = 0.0 if self._since_s is None else self._clock() - self._since_s
        noun = "attempt" if self.attempt == 1 else "attempts"
        return BrokenError(
            f"gave up reconnecting after {self.attempt} {noun} in {spent_s:.1f} s: {failure}"
        )
