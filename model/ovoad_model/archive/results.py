"""The results of an archive: Parquet files, one row a video. Knows what is done and what is not.

Files are written once, whole, by one process; a row that counts no more (its video has changed, or
is to be tried again) leaves its file before its video is scored again. So whatever stops a run, no
video has two rows.
"""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ovoad_model.archive.errors import ArchiveError
from ovoad_model.archive.settings import Description
from ovoad_model.archive.sources import Video
from ovoad_model.archive.storage import Folder
from ovoad_model.training.fingerprint import differences

START: Final = "part-"
END: Final = ".parquet"
RECORD: Final = "_archive.json"  # readers of Parquet folders pass over such names
KNOWN: Final = ["path", "bytes", "modified_ns", "status", "error_code", "error"]


@dataclass(frozen=True)
class Part:
    """How many rows a file has at most, and how long finished rows wait to be written."""

    videos: int = 256
    bytes: int = 64 * 2**20
    seconds: float = 30.0


@dataclass(frozen=True)
class _Row:
    """What is known of a finished video without its scores."""

    part: str
    bytes: int
    modified_ns: int
    bad: tuple[str, str] | None  # code and text


class Results:
    """The rows of a folder that is held by this process."""

    def __init__(self, folder: Folder, description: Description, part: Part) -> None:
        """Read what is done; raises ArchiveError where it was done with other settings."""
        self._folder = folder
        self._part = part
        _claim(folder, description)
        self._rows: dict[str, _Row] = {}
        self._waiting: list[pa.Table] = []
        self._written_s = time.monotonic()
        for name in folder.names(START, END):
            self._take(name)

    @property
    def count(self) -> int:
        """Videos that have a row, written or waiting."""
        return len(self._rows)

    @property
    def bad(self) -> dict[str, tuple[str, str]]:
        """Each video without scores: its path to error code and text."""
        return {path: row.bad for path, row in sorted(self._rows.items()) if row.bad is not None}

    def pending(self, videos: Sequence[Video], *, retry_bad: bool = False) -> list[Video]:
        """Return the videos without a row that counts, and take the others' old rows away.

        A row counts while its video is as large and was last modified as then.
        """
        pending, stale = [], []
        for video in videos:
            row = self._rows.get(video.path)
            if row is None:
                pending.append(video)
                continue
            changed = (row.bytes, row.modified_ns) != (video.bytes, video.modified_ns)
            if changed or (retry_bad and row.bad is not None):
                pending.append(video)
                stale.append(video.path)
        self._forget(stale)
        return pending

    def add(self, rows: pa.Table) -> pa.Table:
        """Take rows; those of videos that have one already are left out. Returns what was taken."""
        known = pa.array([path in self._rows for path in rows["path"].to_pylist()], pa.bool_())
        rows = rows.filter(pc.invert(known))
        self._note("", rows)
        if rows.num_rows:
            self._waiting.append(rows)
        self.flush_if_due()
        return rows

    def flush_if_due(self) -> None:
        """Write what waits, once it is enough or has waited long enough."""
        count = sum(rows.num_rows for rows in self._waiting)
        size = sum(rows.nbytes for rows in self._waiting)
        waited_s = time.monotonic() - self._written_s
        part = self._part
        if count >= part.videos or size >= part.bytes or waited_s >= part.seconds:
            self.flush()

    def flush(self) -> None:
        """Write what waits as one file."""
        self._written_s = time.monotonic()
        if not self._waiting:
            return
        rows = pa.concat_tables(self._waiting)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self._write(f"{START}{stamp}-{secrets.token_hex(4)}{END}", rows)
        self._waiting = []

    def _take(self, name: str) -> None:
        try:
            with self._folder.open(name) as file:
                rows = pq.read_table(file, columns=KNOWN)
        except (OSError, pa.ArrowException) as error:
            raise ArchiveError(
                f"{self._folder.address}: {name} is no file of results ({error}); move it away, "
                "and its videos are scored again"
            ) from error
        self._note(name, rows)

    def _note(self, part: str, rows: pa.Table) -> None:
        for row in rows.select(KNOWN).to_pylist():
            bad = None if row["status"] == "ok" else (row["error_code"], row["error"])
            self._rows[row["path"]] = _Row(part, row["bytes"], row["modified_ns"], bad)

    def _forget(self, paths: Sequence[str]) -> None:
        """Take rows out of their files."""
        by_part: dict[str, list[str]] = {}
        for path in paths:
            by_part.setdefault(self._rows.pop(path).part, []).append(path)
        for name, gone in by_part.items():
            with self._folder.open(name) as file:
                rows = pq.read_table(file)
            kept = rows.filter(pc.invert(pc.is_in(rows["path"], value_set=pa.array(gone))))
            if kept.num_rows:
                self._write(name, kept)
            else:
                self._folder.delete(name)

    def _write(self, name: str, rows: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="zstd")
        self._folder.write(name, memoryview(sink.getvalue()))


def _claim(folder: Folder, description: Description) -> None:
    """Note what the folder's results are made with, or refuse it as another run's."""
    found = folder.read(RECORD)
    if found is None and folder.names(START, END):
        raise ArchiveError(
            f"{folder.address}: found results without {RECORD}, expected both or an empty folder"
        )
    if found is None:
        folder.write(RECORD, description.text.encode())
    elif found.decode(errors="replace") != description.text:
        raise ArchiveError(
            f"{folder.address}: found results of another run: "
            f"{differences(found.decode(errors='replace'), description.text)}; "
            "take another folder for these settings"
        )
