"""The queue on disk: events in one order, and how far each sink has got. Knows no network.

SQLite in WAL mode, synced at each commit: what `add` returned for outlives SIGKILL and, where the
disk keeps its word, a loss of power. Every method may be called from any thread but the event
loop's: it can wait for the disk.
"""

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ovoad_server.outward.errors import OutwardError
from ovoad_server.outward.lock import lock_folder
from ovoad_server.outward.message import NotedEvent, make_message

log = logging.getLogger(__name__)

FILE: Final = "events.sqlite3"
VERSION: Final = 1
ROW_BYTES: Final = 128  # what a row takes beside its body, roughly
MOST_SENSORS: Final = 256  # labels that are remembered; later ones make events all the same
SENSOR_KEPT_S: Final = 30 * 24 * 3600.0  # since a label was last used
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, made_s REAL NOT NULL,
    body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS sinks (name TEXT PRIMARY KEY, sequence INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS going_on (
    session_id TEXT NOT NULL, label TEXT NOT NULL, timestamp_ms INTEGER NOT NULL,
    start_ms INTEGER NOT NULL, PRIMARY KEY (session_id, label));
CREATE INDEX IF NOT EXISTS going_on_label ON going_on (label);
CREATE TABLE IF NOT EXISTS sensors (label TEXT PRIMARY KEY, used_s REAL NOT NULL);
"""


@dataclass(frozen=True)
class Bounds:
    """The most events, and the most bytes of them."""

    count: int
    bytes: int


@dataclass(frozen=True)
class QueuedEvent:
    """An event on disk; `body` is the message as JSON."""

    sequence: int
    id: str
    made_s: float
    body: bytes


class Store:
    """Events with consecutive sequence numbers; each sink takes them in order and acknowledges.

    An event leaves when every sink has it. Beyond the bounds the oldest are dropped. A new queue
    counts from the clock's milliseconds, so above all that the one before it ever gave.
    """

    def __init__(self, folder: Path, sinks: Sequence[str], bounds: Bounds) -> None:
        """Open or make the queue; raises OutwardError where another server has it.

        Raises OSError and sqlite3.Error where the disk does not do its part.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_file = lock_folder(folder)
        self._mutex = threading.Lock()
        self._bounds = bounds
        self._last = self._bytes = 0
        self._cursors: dict[str, int] = {}
        try:
            self._database = _open_or_replace(folder / FILE)
            try:
                self._begin(sinks)
            except BaseException:
                self._database.close()
                raise
        except BaseException:
            os.close(self._lock_file)
            raise

    def close(self) -> None:
        """Close the file and let another server have it."""
        with self._mutex:
            self._database.close()
            os.close(self._lock_file)

    # ---- in -------------------------------------------------------------------------------------

    def add(self, events: Sequence[NotedEvent], labels: Sequence[str] = ()) -> dict[str, int]:
        """Queue events and remember labels; return how many events each sink lost for want of room.

        Raises sqlite3.Error, and then nothing has changed.
        """
        with self._mutex:
            last, size = self._last, self._bytes
            with self._transaction():
                for label in dict.fromkeys([*labels, *(event.label for event in events)]):
                    self._remember(label)
                for event in events:
                    last += 1
                    size += self._insert(event, last) + ROW_BYTES
                first_kept, size = self._trim(last, size)
            self._last, self._bytes = last, size
            lost = {name: max(0, first_kept - 1 - at) for name, at in self._cursors.items()}
            self._cursors = {name: max(at, first_kept - 1) for name, at in self._cursors.items()}
        return lost

    def end_all(self) -> int:
        """Queue the ends of actions that went on when the server went down; return how many."""
        rows = self._database.execute("SELECT * FROM going_on ORDER BY rowid").fetchall()
        now_s = time.time()
        ends = [
            NotedEvent(session_id, "end", label, timestamp_ms, start_ms, None, now_s, "restart")
            for session_id, label, timestamp_ms, start_ms in rows
        ]
        if ends:
            self.add(ends)
        return len(ends)

    def _insert(self, event: NotedEvent, sequence: int) -> int:
        """Write an event, return its size."""
        key = (event.session_id, event.label)
        self._database.execute("DELETE FROM going_on WHERE session_id = ? AND label = ?", key)
        if event.kind == "start":
            row = (*key, event.timestamp_ms, event.start_ms)
            self._database.execute("INSERT INTO going_on VALUES (?, ?, ?, ?)", row)
        active = self._one("SELECT count(*) FROM going_on WHERE label = ?", event.label)
        message = make_message(event, sequence=sequence, active_sessions=active)
        body = message.model_dump_json().encode()
        self._database.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?)",
            (sequence, message.id, event.occurred_s, body),
        )
        return len(body)

    def _trim(self, last: int, size: int) -> tuple[int, int]:
        """Delete the oldest beyond the bounds; return the first sequence left, and the size."""
        rows = self._database.execute("SELECT sequence, length(body) FROM events ORDER BY sequence")
        first = last - self._bounds.count + 1
        for sequence, length in rows:
            if sequence >= first and size <= self._bounds.bytes:
                first = sequence
                break
            size -= length + ROW_BYTES
        else:
            first = last + 1
        rows.close()
        self._database.execute("DELETE FROM events WHERE sequence < ?", (first,))
        self._database.execute(
            "UPDATE sinks SET sequence = ? WHERE sequence < ?", (first - 1, first - 1)
        )
        return first, size

    # ---- out ------------------------------------------------------------------------------------

    def next(self, sink: str) -> QueuedEvent | None:
        """Return the oldest event that a sink has not acknowledged."""
        with self._mutex:
            row = self._database.execute(
                "SELECT sequence, id, made_s, body FROM events WHERE sequence > ? "
                "ORDER BY sequence LIMIT 1",
                (self._cursors[sink],),
            ).fetchone()
        return None if row is None else QueuedEvent(*row)

    def acknowledge(self, sink: str, sequence: int) -> None:
        """Note that a sink has all events up to this one; those that all have are deleted."""
        with self._mutex:
            cursors = {**self._cursors, sink: max(sequence, self._cursors[sink])}
            done = min(cursors.values())
            with self._transaction():
                self._database.execute(
                    "UPDATE sinks SET sequence = ? WHERE name = ?", (cursors[sink], sink)
                )
                freed = self._one(
                    "SELECT sum(length(body) + ?) FROM events WHERE sequence <= ?", ROW_BYTES, done
                )
                self._database.execute("DELETE FROM events WHERE sequence <= ?", (done,))
            self._cursors, self._bytes = cursors, self._bytes - freed

    def waiting(self, sink: str) -> int:
        """Return how many events a sink has not acknowledged; never waits for the disk."""
        count: int = self._last - self._cursors[sink]
        return max(0, count)

    # ---- labels ---------------------------------------------------------------------------------

    def sensors(self) -> list[str]:
        """Return the labels that are remembered."""
        with self._mutex:
            rows = self._database.execute("SELECT label FROM sensors ORDER BY rowid").fetchall()
        return [label for (label,) in rows]

    def active_labels(self, sink: str) -> set[str] | None:
        """Return the labels that go on in some session, None while events of it wait."""
        with self._mutex:
            if self.waiting(sink):
                return None
            return {label for (label,) in self._database.execute("SELECT label FROM going_on")}

    def stale_sensors(self) -> list[str]:
        """Return labels that nobody has used for SENSOR_KEPT_S."""
        with self._mutex:
            rows = self._database.execute(
                "SELECT label FROM sensors WHERE used_s < ? "
                "AND label NOT IN (SELECT label FROM going_on)",
                (time.time() - SENSOR_KEPT_S,),
            ).fetchall()
        return [label for (label,) in rows]

    def forget_sensor(self, label: str) -> None:
        """Forget a label."""
        with self._mutex, self._transaction():
            self._database.execute("DELETE FROM sensors WHERE label = ?", (label,))

    def _remember(self, label: str) -> None:
        known = self._one("SELECT count(*) FROM sensors WHERE label = ?", label)
        if known or self._one("SELECT count(*) FROM sensors") < MOST_SENSORS:
            self._database.execute(
                "INSERT INTO sensors VALUES (?1, ?2) ON CONFLICT DO UPDATE SET used_s = ?2",
                (label, time.time()),
            )

    # ---- parts ----------------------------------------------------------------------------------

    def _begin(self, sinks: Sequence[str]) -> None:
        """Read how far all got."""
        with self._transaction():
            self._last = self._one("SELECT max(seq) FROM sqlite_sequence WHERE name = 'events'")
            self._bytes = self._one(
                "SELECT sum(length(body) + ?) FROM events WHERE sequence <= ?",
                ROW_BYTES,
                self._last,
            )
            self._place_sinks(sinks)
        self._cursors = dict(self._database.execute("SELECT name, sequence FROM sinks").fetchall())

    def _place_sinks(self, sinks: Sequence[str]) -> None:
        """Forget sinks of old, with what only they lacked; new ones begin with what comes next."""
        for (name,) in self._database.execute("SELECT name FROM sinks").fetchall():
            if name not in sinks:
                self._database.execute("DELETE FROM sinks WHERE name = ?", (name,))
        for name in sinks:
            self._database.execute(
                "INSERT INTO sinks VALUES (?, ?) ON CONFLICT DO NOTHING", (name, self._last)
            )

    def _one(self, sql: str, *values: object) -> int:
        """Return the one number that a query gives, 0 for NULL."""
        (number,) = self._database.execute(sql, values).fetchone()
        return int(number or 0)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise


def _open_or_replace(path: Path) -> sqlite3.Connection:
    """Open the database; one that is damaged is put aside, so that the server can go on."""
    try:
        return _open(path)
    except sqlite3.OperationalError:  # the disk's fault, not the file's
        raise
    except sqlite3.DatabaseError as error:
        aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
        log.error("the queue of events is damaged (%s) and put aside as %s", error, aside)
        path.rename(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return _open(path)


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # labels are nobody else's business
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        (check,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if check != "ok":
            raise sqlite3.DatabaseError(check)
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise OutwardError(f"found {path} of version {version}, expected version {VERSION}")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA journal_size_limit = 1048576")
        database.executescript(_SCHEMA)
        if version == 0:
            _begin_sequence(database)
        database.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        database.close()
        raise
    return database


def _begin_sequence(database: sqlite3.Connection) -> None:
    """Let the events of a new queue follow those of any queue before it: receivers go by that."""
    database.execute(
        "INSERT INTO sqlite_sequence SELECT 'events', ? "
        "WHERE NOT EXISTS (SELECT * FROM sqlite_sequence WHERE name = 'events')",
        (time.time_ns() // 1_000_000,),
    )
