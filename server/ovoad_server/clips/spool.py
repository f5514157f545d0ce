"""A bounded folder for uploads and answers. Knows no clip.

Its files have no name: the system frees them once they are closed, whichever way this process ends.
"""

import os
import tempfile
from pathlib import Path
from typing import IO

from ovoad_server.clips.refusals import busy


class Spool:
    """Hands out files that hold `max_bytes` together at most."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self.used_bytes = 0
        self.files = 0

    def open(self) -> "SpoolFile":
        """Return an empty file; raises ClipRefusedError where there is no place for it."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise _no_room(error) from error
        return SpoolFile(self, file)

    def take(self, count: int) -> None:
        """Count bytes that are about to be written; raises ClipRefusedError."""
        if self.used_bytes + count > self._max_bytes:
            raise busy(
                f"found {self.used_bytes} of {self._max_bytes} bytes for clips in use, "
                f"expected room for {count} more; try again later",
                status=503,
            )
        self.used_bytes += count

    def give(self, count: int) -> None:
        """Count bytes that are freed."""
        self.used_bytes -= count


class SpoolFile:
    """A file without a name; closing it removes it."""

    def __init__(self, spool: Spool, file: IO[bytes]) -> None:
        self._spool = spool
        self._file = file
        self._closed = False
        self.size = 0
        spool.files += 1

    @property
    def descriptor(self) -> int:
        """The number by which another process can be given the file."""
        return self._file.fileno()

    def write(self, data: bytes | bytearray) -> None:
        """Append; raises ClipRefusedError where there is no room. Blocks: for a thread."""
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
        return os.pread(self.descriptor, count, offset)

    def close(self) -> None:
        """Free its room; once."""
        if not self._closed:
            self._closed = True
            self._spool.files -= 1
            self._spool.give(self.size)
            self._file.close()


def _no_room(error: OSError) -> Exception:
    reason = (error.strerror or str(error)).lower()
    return busy(f"found no room on disk for clips ({reason}); try again later", status=503)
