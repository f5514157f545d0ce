"""One server at a time has a folder of events."""

import fcntl
import os
from pathlib import Path

from ovoad_server.outward.errors import OutwardError


def lock_folder(folder: Path) -> int:
    """Return an open file that holds the lock until it is closed; raises OutwardError.

    The system frees it when the process ends, however it ends.
    """
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise OutwardError(
            f"found {folder} in use by another server, expected OVOAD_EVENTS_FOLDER to be its own"
        ) from error
    return lock
