"""Tell how a run goes: a line that updates on a terminal, now and then a plain line elsewhere."""

import shutil
import sys
import time
from typing import Final, TextIO

PLAIN_EVERY_S: Final = 5.0


class Progress:
    """One line of what is under way, above which other lines may be said."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._live = self._out.isatty()
        self._shown = 0  # characters of the line that stands
        self._due_s = 0.0
        self.prefix = ""

    def tell(self, text: str) -> None:
        """Show what is under way, in place of what was shown before."""
        line = f"{self.prefix}{text}"
        if self._live:
            line = line[: shutil.get_terminal_size().columns - 1]
            self._out.write("\r" + line.ljust(self._shown))
            self._out.flush()
            self._shown = len(line)
        elif time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + PLAIN_EVERY_S
            print(line, file=self._out, flush=True)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        print(text, file=self._out, flush=True)

    def clear(self) -> None:
        """Take the updating line away."""
        if self._shown:
            self._out.write("\r" + " " * self._shown + "\r")
            self._out.flush()
            self._shown = 0
