"""Vectors on disk under content keys, in one SQLite file. Knows neither texts nor encoders.

Several processes may use one file. A damaged file is made anew; where nothing can be written the
store says so once in the log and from then on holds nothing.
"""

import logging
import sqlite3
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from ovoad_model.arrays import Float32Array

LOGGER: Final = logging.getLogger(__name__)
BUSY_TIMEOUT_S: Final = 5.0
KEYS_AT_ONCE: Final = 500
SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS vectors "
    "(id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, sum INTEGER NOT NULL, vector BLOB NOT NULL)"
)
Answer = TypeVar("Answer")


class TextStore:
    """Keep vectors, the oldest leaving first when the file would outgrow `most_bytes`.

    Not safe for several threads at once: the caller takes turns.
    """

    def __init__(self, path: Path, *, most_bytes: int) -> None:
        """Open or make the file; never raises for what lies on disk."""
        self._path = path
        self._most_bytes = most_bytes
        self._file: sqlite3.Connection | None = None
        self._file = self._guarded(self._open, None)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Float32Array]:
        """Return the vectors that are there; one whose checksum is wrong is not."""
        return self._guarded(lambda: self._select(keys), {})

    def put(self, vectors: Mapping[bytes, Float32Array]) -> None:
        """Keep vectors; a key that is there already gets the new one."""
        self._guarded(lambda: self._insert(vectors), None)

    def close(self) -> None:
        """Close the file; the store holds nothing afterwards."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> sqlite3.Connection:
        """Open the file; turning on WAL while another process does so fails at once, so retry."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        deadline_s = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                return self._try_to_open()
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.01)

    def _try_to_open(self) -> sqlite3.Connection:
        file = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            file.execute("PRAGMA journal_mode = WAL")
            file.execute("PRAGMA synchronous = NORMAL")
            file.execute(SCHEMA)
            file.execute("SELECT id, key, sum, vector FROM vectors LIMIT 1").fetchall()
        except sqlite3.Error:
            file.close()
            raise
        return file

    def _select(self, keys: Sequence[bytes]) -> dict[bytes, Float32Array]:
        found: dict[bytes, Float32Array] = {}
        if self._file is None:
            return found
        for at in range(0, len(keys), KEYS_AT_ONCE):
            some = keys[at : at + KEYS_AT_ONCE]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, sum, vector FROM vectors WHERE key IN ({marks})"
            for key, checksum, vector in self._file.execute(query, some):
                if zlib.crc32(key + vector) == checksum:
                    found[key] = np.frombuffer(vector, np.float32)
        return found

    def _insert(self, vectors: Mapping[bytes, Float32Array]) -> None:
        if self._file is None:
            return
        rows = [(key, vector.astype(np.float32).tobytes()) for key, vector in vectors.items()]
        with Transaction(self._file):
            self._file.executemany(
                "INSERT OR REPLACE INTO vectors (key, sum, vector) VALUES (?, ?, ?)",
                [(key, zlib.crc32(key + vector), vector) for key, vector in rows],
            )
        while self._used_bytes(self._file) > self._most_bytes and self._drop_oldest(self._file):
            pass

    @staticmethod
    def _used_bytes(file: sqlite3.Connection) -> int:
        (pages,), (free,), (size,) = (
            file.execute(f"PRAGMA {name}").fetchone()
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    @staticmethod
    def _drop_oldest(file: sqlite3.Connection) -> bool:
        """Drop the older quarter of all vectors; tell whether there was one."""
        (count,) = file.execute("SELECT count(*) FROM vectors").fetchone()
        oldest = "SELECT id FROM vectors ORDER BY id LIMIT ?"
        file.execute(f"DELETE FROM vectors WHERE id IN ({oldest})", (count // 4 + 1,))
        return bool(count)

    def _guarded(self, work: Callable[[], Answer], otherwise: Answer) -> Answer:
        """Do disk work: once more on a new file after damage, `otherwise` when it cannot be."""
        try:
            return work()
        except (sqlite3.OperationalError, OSError) as error:
            if self._file is not None and _is_busy(error):
                LOGGER.info("text cache %s: busy for %g s, passed over", self._path, BUSY_TIMEOUT_S)
            else:
                self._give_up(error)
        except sqlite3.DatabaseError as error:
            LOGGER.warning("text cache %s: found %s; making it anew", self._path, error)
            try:
                self._start_anew()
                return work()
            except (sqlite3.Error, OSError) as second:
                self._give_up(second)
        return otherwise

    def _start_anew(self) -> None:
        was_open = self._file is not None
        self.close()
        for end in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + end).unlink(missing_ok=True)
        if was_open:
            self._file = self._open()

    def _give_up(self, error: Exception) -> None:
        LOGGER.warning("text cache %s: found %s; going on in memory alone", self._path, error)
        self.close()


def _is_busy(error: Exception) -> bool:
    """Tell whether another process held the file for too long."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY


class Transaction:
    """Everything inside is written, or nothing."""

    def __init__(self, file: sqlite3.Connection) -> None:
        """Take an open file in autocommit mode."""
        self._file = file

    def __enter__(self) -> None:
        self._file.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.execute("COMMIT" if kind is None else "ROLLBACK")
