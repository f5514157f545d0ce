"""So that a log says what goes on and does not fill up with it."""

import time
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 60.0


class Occasionally:
    """Tells whether it is time again: at once, then every EVERY_S at most."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._next_s = float("-inf")

    def due(self) -> bool:
        """Whether to say it now."""
        now_s = self._now_s()
        if now_s < self._next_s:
            return False
        self._next_s = now_s + EVERY_S
        return True
