"""The folder of an archive's results, on disk or in an object store: files come whole or not."""

import fcntl
import os
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa
from pyarrow import fs

from ovoad_model.archive.errors import ArchiveError
from ovoad_model.archive.sources import hide_keys
from ovoad_model.training.files import write_atomically

LOCK: Final = ".lock"


class Folder:
    """Small files by name, whatever holds them; raises ArchiveError where it cannot.

    On disk a file is written under another name and renamed; an object store shows a new object
    once all of it is there. On disk one process at a time may hold the folder.
    """

    def __init__(self, address: str) -> None:
        """address is a path or an object store's: s3://BUCKET/FOLDER."""
        self.address = hide_keys(address.partition("?")[0])
        self._lock: BinaryIO | None = None
        try:
            if "://" in address:
                self._store, path = fs.FileSystem.from_uri(address)
            else:
                self._store, path = fs.LocalFileSystem(), os.path.abspath(address)
            self._path = path.rstrip("/")
            self._store.create_dir(self._path, recursive=True)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._fault("cannot be opened", error) from error
        self._is_disk = isinstance(self._store, fs.LocalFileSystem)
        if self._is_disk:
            self._claim(Path(self._path))

    def close(self) -> None:
        """Let others have the folder."""
        if self._lock is not None:
            self._lock.close()

    def names(self, start: str, end: str) -> list[str]:
        """List the files whose names start and end so."""
        try:
            found = self._store.get_file_info(fs.FileSelector(self._path))
        except (OSError, pa.ArrowException) as error:
            raise self._fault("cannot be listed", error) from error
        names = (each.base_name for each in found if each.type == fs.FileType.File)
        return sorted(name for name in names if name.startswith(start) and name.endswith(end))

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None where there is no such file."""
        path = f"{self._path}/{name}"
        try:
            if self._store.get_file_info(path).type == fs.FileType.NotFound:
                return None
            with self._store.open_input_stream(path) as stream:
                content: bytes = stream.read()
                return content
        except (OSError, pa.ArrowException) as error:
            raise self._fault(f"{name} cannot be read", error) from error

    def open(self, name: str) -> pa.NativeFile:
        """Open a file to read parts of it."""
        try:
            return self._store.open_input_file(f"{self._path}/{name}")
        except (OSError, pa.ArrowException) as error:
            raise self._fault(f"{name} cannot be read", error) from error

    def write(self, name: str, content: memoryview | bytes) -> None:
        """Put a whole file there, in place of one of the same name."""
        try:
            if self._is_disk:
                write_atomically(Path(self._path, name), lambda stream: stream.write(content))
                return
            with self._store.open_output_stream(f"{self._path}/{name}") as stream:
                stream.write(content)
        except (OSError, pa.ArrowException) as error:
            raise self._fault(f"{name} cannot be written", error) from error

    def delete(self, name: str) -> None:
        """Take a file away."""
        try:
            self._store.delete_file(f"{self._path}/{name}")
        except (OSError, pa.ArrowException) as error:
            raise self._fault(f"{name} cannot be deleted", error) from error

    def _claim(self, folder: Path) -> None:
        """Hold the folder until the process ends; clear away what a killed one left half."""
        self._lock = (folder / LOCK).open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise ArchiveError(
                f"{folder}: found another run that writes here, expected one at a time"
            ) from error
        for half in folder.glob(".*.part"):
            half.unlink(missing_ok=True)

    def _fault(self, what: str, error: Exception) -> ArchiveError:
        return ArchiveError(hide_keys(f"{self.address}: {what} ({error})"))
