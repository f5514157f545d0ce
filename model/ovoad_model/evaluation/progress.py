"""Show on stderr how far long work has come; knows nothing of the work."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

LINE_EVERY_S = 10.0


def with_progress(items: Iterable[Item], *, total: int, what: str) -> Iterator[Item]:
    """Yield the items, telling stderr how many are done and how long the rest will take.

    A terminal sees one line that changes; a file sees a line every ten seconds.
    """
    terminal = sys.stderr.isatty()
    started_s = told_s = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now_s = time.monotonic()
        if not terminal and now_s - told_s < LINE_EVERY_S:
            continue
        told_s = now_s
        left_s = (now_s - started_s) / done * (total - done)
        line = f"{what}: {done} of {total}, {left_s:.0f} s left"
        sys.stderr.write(f"\r\x1b[K{line}" if terminal else f"{line}\n")
        sys.stderr.flush()
    if terminal:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
