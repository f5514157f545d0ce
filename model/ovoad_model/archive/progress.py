"""How far an archive is: one line on standard error, and in the end what was done."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TextIO

EVERY_S: Final = 1.0
EVERY_LINE_S: Final = 10.0  # where lines cannot be written over
LISTED: Final = 20  # bad videos named in the end; all are in the results


@dataclass
class Counts:
    """What this run is to do and has done."""

    videos: int
    bytes: int
    before: int = 0  # videos that an earlier run finished
    done: int = 0
    done_bytes: int = 0
    frames: int = 0
    bad: int = 0


class Progress:
    """Shows counts now and then, written over on a terminal."""

    def __init__(self, counts: Counts, *, quiet: bool = False, out: TextIO | None = None) -> None:
        self.counts = counts
        self._quiet = quiet
        self._out = out or sys.stderr
        self._over = self._out.isatty()
        self._begun_s = time.monotonic()
        self._due_s = self._begun_s + (EVERY_S if self._over else EVERY_LINE_S)
        self._width = 0

    def begin(self) -> None:
        """Count the time from now on: workers are ready."""
        self._begun_s = time.monotonic()

    def show(self) -> None:
        """Show how far it is, once it is time to."""
        now_s = time.monotonic()
        if self._quiet or now_s < self._due_s:
            return
        self._due_s = now_s + (EVERY_S if self._over else EVERY_LINE_S)
        line = progress_line(self.counts, now_s - self._begun_s)
        self._out.write("\r" + line.ljust(self._width) if self._over else line + "\n")
        self._width = len(line)
        self._out.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._over and self._width:
            self._out.write("\r" + " " * self._width + "\r")
            self._out.flush()
            self._width = 0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begun_s


def progress_line(counts: Counts, elapsed_s: float) -> str:
    """Return how far it is; the time left is by bytes."""
    frames_s = counts.frames / max(elapsed_s, 1e-9)
    line = f"{counts.before + counts.done}/{counts.before + counts.videos} videos"
    line += f", {counts.bad} bad, {frames_s:.1f} frames/s"
    if not counts.done_bytes:
        return line
    left_s = elapsed_s * (counts.bytes - counts.done_bytes) / counts.done_bytes
    return f"{line}, {clock(left_s)} left"


def summary(counts: Counts, bad: Mapping[str, tuple[str, str]], elapsed_s: float) -> list[str]:
    """Return what was done in the end; bad is every bad video of the folder's results."""
    lines = [
        f"{counts.done} videos scored ({counts.frames} frames) in {clock(elapsed_s)}, "
        f"{counts.before} finished before, {len(bad)} bad in all"
    ]
    named = list(bad.items())[:LISTED]
    lines += [f"  bad: {path}: {code}: {text}" for path, (code, text) in named]
    if len(bad) > LISTED:
        lines.append(f"  and {len(bad) - LISTED} more: status = 'bad' in the results")
    return lines


def clock(seconds: float) -> str:
    """Return a time as people write it: 0:05, 1:02:03."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
