"""How many sessions there may be: by the setting, and by what frames were seen to cost.

A session is promised `promised_fps` frames a second. One that would break the promise made to the
others is refused and told when to come back, not let in and starved.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from ovoad_client import protocol
from ovoad_server.engine.engine import Engine
from ovoad_server.refusals import SHORTEST_RETRY_MS, RefusedError
from ovoad_server.settings import Settings

PROMISED_SHARE: Final = 0.85  # of the measured capacity; the rest is for what was not foreseen
FIRST_RETRY_MS: Final = 5000  # while no session has ended yet
LONGEST_RETRY_MS: Final = 60_000


class Slots:
    """Counts sessions, and connections that have not said yet what they want."""

    def __init__(
        self, settings: Settings, engine: Engine, *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.used = 0
        self._settings = settings
        self._engine = engine
        self._now_s = now_s
        self._visitors = 0  # connections without a slot in a full house: they may come to resume
        self._freed_s: float | None = None
        self._between_ends_ms: float | None = None  # smoothed
        self._free = asyncio.Event()
        self._free.set()

    @property
    def total(self) -> int:
        """How many there are now; at least 1, whatever the machine can do."""
        promised_fps, most = self._settings.promised_fps, self._settings.max_sessions
        if promised_fps <= 0 or not self._engine.cost.known:
            return most
        kept = PROMISED_SHARE * self._engine.capacity_fps / promised_fps
        return max(1, int(min(most, kept)))

    def take(self, *, parked: int) -> bool:
        """Take a slot; raises RefusedError when none is left.

        False where none is left but `parked` sessions hold some: who comes now may be back for one.
        """
        if self.used < self.total:
            self.used += 1
            self._free.clear()
            return True
        if self._visitors < parked:
            self._visitors += 1
            return False
        raise self.refusal()

    def leave(self) -> None:
        """Undo a take that gave no slot."""
        self._visitors -= 1

    def give_back(self) -> None:
        """Give a slot back that no session had."""
        self.used -= 1
        if self.used == 0:
            self._free.set()

    def give(self) -> None:
        """Give back the slot of a session that has ended."""
        now_s = self._now_s()
        if self._freed_s is not None:
            passed_ms = (now_s - self._freed_s) * 1000
            last_ms = self._between_ends_ms
            self._between_ends_ms = (
                passed_ms if last_ms is None else last_ms * 0.8 + passed_ms * 0.2
            )
        self._freed_s = now_s
        self.give_back()

    async def until_free(self, *, timeout_s: float) -> bool:
        """Wait until no slot is taken; False where that takes longer."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._free.wait()
        except TimeoutError:
            return False
        return True

    def refusal(self) -> RefusedError:
        """Return why there is no slot, and when the next is likely to be free."""
        most, fps = self.total, self._settings.promised_fps
        why = ""
        if most < self._settings.max_sessions:
            capacity_fps = self._engine.capacity_fps
            why = f" (the machine scores {capacity_fps:.1f} frames/s and each is promised {fps:g})"
        wait_ms = FIRST_RETRY_MS if self._between_ends_ms is None else self._between_ends_ms
        return RefusedError(
            "capacity",
            f"found {self.used} sessions open, expected fewer than {most}{why}; try again later",
            close_code=protocol.CLOSE_CAPACITY,
            retry_after_ms=int(min(max(wait_ms, SHORTEST_RETRY_MS), LONGEST_RETRY_MS)),
        )
