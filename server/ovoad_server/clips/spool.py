"""A bounded folder for uploads and answers. Knows no clip.

Its files have no name: the system frees them once they are closed, whichever way this process ends.
"""

import asyncio
import contextlib
import os
import tempfile
import threading
from pathlib import Path
from typing import IO

from ovoad_server.clips.refusals import busy


class Spool:
    """Hands out files that hold `max_bytes` together at most. For any thread."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self.used_bytes = 0
        self.files = 0

    def open(self) -> "SpoolFile":
        """Return an empty file; raises ClipRefusedError where there is no place for it. Blocks."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise _no_room(error) from error
        with self._lock:
            self.files += 1
        return SpoolFile(self, file)

    def take(self, count: int) -> None:
        """Count bytes that are about to be written; raises ClipRefusedError."""
        with self._lock:
            used = self.used_bytes
            if used + count <= self._max_bytes:
                self.used_bytes += count
                return
        raise busy(
            f"found {used} of {self._max_bytes} bytes for clips in use, "
            f"expected room for {count} more; try again later",
            status=503,
        )

    def give(self, count: int) -> None:
        """Count a file's bytes that are freed."""
        with self._lock:
            self.used_bytes -= count
            self.files -= 1


class SpoolFile:
    """A file without a name; closing it removes it, once a write or read under way is done.

    Work in a thread goes on where the task that waits for it is cancelled: hence the lock.
    """

    def __init__(self, spool: Spool, file: IO[bytes]) -> None:
        self._spool = spool
        self._file = file
        self._lock = threading.Lock()
        self._closed = False
        self.size = 0

    @property
    def descriptor(self) -> int:
        """The number by which another process can be given the file."""
        return self._file.fileno()

    def write(self, data: bytes | bytearray) -> None:
        """Append; raises ClipRefusedError where there is no room. Blocks: for a thread."""
        with self._lock:
            self._check_open()
            self._spool.take(len(data))
            self.size += len(data)
            rest = memoryview(data)
            try:
                while rest:
                    rest = rest[os.write(self.descriptor, rest) :]
            except OSError as error:
                raise _no_room(error) from error

    def read(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes from `offset`. Blocks: for a thread."""
        with self._lock:
            self._check_open()
            return os.pread(self.descriptor, count, offset)

    def close(self) -> None:
        """Free its room; once. Blocks, longer for a large file: for a thread."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._file.close()
                self._spool.give(self.size)

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("found a closed file, expected an open one")


async def open_file(spool: Spool, held: contextlib.AsyncExitStack) -> SpoolFile:
    """Return an empty file that is closed with `held`; raises ClipRefusedError."""
    opening = asyncio.create_task(asyncio.to_thread(spool.open))
    try:
        file = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        raise
    held.push_async_callback(asyncio.to_thread, file.close)
    return file


def _close_unwanted(opening: asyncio.Task[SpoolFile]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()  # empty: nothing to wait for


def _no_room(error: OSError) -> Exception:
    reason = (error.strerror or str(error)).lower()
    return busy(f"found no room on disk for clips ({reason}); try again later", status=503)
