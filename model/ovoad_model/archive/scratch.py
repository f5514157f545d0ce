"""Copies of videos on disk for as long as they are decoded; a killed worker's are cleared away."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PREFIX: Final = "ovoad-archive-"


@contextmanager
def scratch_file(ending: str) -> Iterator[Path]:
    """Make an empty file in the system's folder for such, gone in the end."""
    handle, name = tempfile.mkstemp(ending, f"{PREFIX}{os.getpid()}-")
    os.close(handle)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def clear_scratch() -> None:
    """Delete the copies of processes that are no more."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        owner = path.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdecimal() and not _is_alive(int(owner)):
            path.unlink(missing_ok=True)


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
