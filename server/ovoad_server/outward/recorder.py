"""From the event loop to the disk: takes events at once, writes them in a thread of its own."""

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from ovoad_server.engine.events import ActionEvent
from ovoad_server.outward.counts import Counts
from ovoad_server.outward.message import NotedEvent
from ovoad_server.outward.occasionally import Occasionally
from ovoad_server.outward.store import Store

log = logging.getLogger(__name__)

MOST_IN_MEMORY: Final = 10_000  # events, while the disk takes none
MOST_AT_ONCE: Final = 1000
MOST_ANNOUNCED: Final = 64  # a vocabulary of more labels has its sensors come with their events
DISK_AGAIN_S: Final = 1.0


class Recorder:
    """Writes what sessions tell, in order; events that come together share one commit.

    `take_labels` and `take_event` are called on the event loop and wait for nothing.
    """

    def __init__(
        self, store: Store, sinks: Sequence[str], counts: Counts, on_written: Callable[[], None]
    ) -> None:
        """Take the queue, and what to call when it has changed."""
        self._store = store
        self._sinks = tuple(sinks)
        self._counts = counts
        self._on_written = on_written
        self._taken: deque[NotedEvent | tuple[str, ...]] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._writes = True
        self._dropping = Occasionally()
        self._thread = threading.Thread(target=self._run, name="ovoad-events", daemon=True)
        self._thread.start()

    def take_labels(self, labels: Sequence[str]) -> None:
        """Hear of a session's words."""
        if len(labels) <= MOST_ANNOUNCED:
            self._take(tuple(labels))

    def take_event(self, session_id: str, event: ActionEvent) -> None:
        """Hear that an action began or ended."""
        self._take(NotedEvent.of(session_id, event, occurred_s=time.time()))

    def _take(self, item: NotedEvent | tuple[str, ...]) -> None:
        self._taken.append(item)
        if len(self._taken) > MOST_IN_MEMORY and isinstance(self._taken.popleft(), NotedEvent):
            for sink in self._sinks:
                self._counts.drop(sink, "disk")
        self._wake.set()

    def close(self, timeout_s: float) -> None:
        """Write what was taken, as far as the disk does."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while self._taken or not self._closing.is_set():
            items = self._next_items()
            if not items:
                self._wake.wait()
                self._wake.clear()
            elif not self._write(items):
                return

    def _next_items(self) -> list[NotedEvent | tuple[str, ...]]:
        items: list[NotedEvent | tuple[str, ...]] = []
        while self._taken and len(items) < MOST_AT_ONCE:
            items.append(self._taken.popleft())
        return items

    def _write(self, items: Sequence[NotedEvent | tuple[str, ...]]) -> bool:
        """Write until the disk takes it; False where the server ends before."""
        events = [item for item in items if isinstance(item, NotedEvent)]
        labels = [label for item in items if isinstance(item, tuple) for label in item]
        while True:
            last_try = self._closing.is_set()
            try:
                lost = self._store.add(events, labels)
            except (ValueError, OverflowError):  # an event that no row can hold
                return self._write_singly(items)
            except sqlite3.Error as error:
                self._tell(writes=False, why=str(error))
                if last_try:
                    events += [item for item in self._taken if isinstance(item, NotedEvent)]
                    log.error("%d events are lost: the disk did not take them", len(events))
                    return False
                self._closing.wait(DISK_AGAIN_S)
            else:
                self._tell(writes=True, why="")
                self._count(len(events), lost)
                self._on_written()
                return True

    def _write_singly(self, items: Sequence[NotedEvent | tuple[str, ...]]) -> bool:
        """Write the others where one of them cannot be written."""
        if len(items) > 1:
            return all([self._write([item]) for item in items])
        log.exception("an event cannot be written down")
        for sink in self._sinks:
            self._counts.drop(sink, "disk")
        return True

    def _count(self, queued: int, lost: dict[str, int]) -> None:
        self._counts.queued += queued
        for sink, number in lost.items():
            self._counts.drop(sink, "full", number)
        if any(lost.values()) and self._dropping.due():
            totals = ", ".join(
                f"{self._counts.dropped[sink, 'full']} for {sink}" for sink in self._sinks
            )
            log.warning("the queue of events is full and drops the oldest: %s until now", totals)

    def _tell(self, *, writes: bool, why: str) -> None:
        """Log when the disk is lost and when it is back."""
        if writes == self._writes:
            return
        self._writes = writes
        if writes:
            log.info("events are written to disk again")
        else:
            log.error("events cannot be written to disk (%s) and wait in memory", why)
