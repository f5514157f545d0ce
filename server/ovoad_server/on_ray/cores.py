"""How many cores an encoder replica takes for granted. Linux."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def seeing_only(count: int | None) -> Iterator[None]:
    """Let what is built inside see `count` cores, None: all; afterwards its threads run on any.

    Encoders start a thread for each core that the process may use, and several replicas on one
    machine would each take all of them. Ray counts cores, it does not share them out.
    """
    if count is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[: max(1, count)])
    try:
        yield
    finally:
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has ended meanwhile
                os.sched_setaffinity(int(task.name), allowed)
