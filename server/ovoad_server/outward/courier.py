"""Brings a sink its events, one after the other, as often as it takes. Knows no protocol."""

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from ovoad_server.outward.counts import Backlog, Counts
from ovoad_server.outward.store import QueuedEvent, Store

log = logging.getLogger(__name__)

REST_S: Final = 60.0  # the longest a sink is left alone
REFUSALS: Final = 5  # of one event, after which it is dropped
DISK_AGAIN_S: Final = 1.0


@dataclass(frozen=True)
class Delivered:
    """The sink has it."""


@dataclass(frozen=True)
class NotNow:
    """It did not work and is to be tried again, no sooner than `retry_after_s`."""

    reason: str
    retry_after_s: float = 0.0


@dataclass(frozen=True)
class Refused:
    """The sink judged this very event, and will hardly judge it otherwise."""

    reason: str


Outcome = Delivered | NotNow | Refused


class Sink(Protocol):
    """Where events go; all but `abort` is called on the courier's thread."""

    @property
    def name(self) -> str:
        """How settings, metrics and the queue call it."""

    @property
    def place(self) -> str:
        """Where it is, for logs: without secrets."""

    def send(self, event: QueuedEvent) -> Outcome:
        """Hand over one event, in bounded time."""

    def rest(self) -> Outcome:
        """Nothing waits: see to it that the sink is well, in bounded time."""

    def abort(self) -> None:
        """Make a `send` under way fail soon; called on another thread."""

    def close(self) -> None:
        """Say goodbye."""


@dataclass(frozen=True)
class BackOff:
    """Waits between tries: `first_s`, doubling to `longest_s`, spread by a quarter either way."""

    first_s: float = 1.0
    longest_s: float = 30.0

    def delay_s(self, failures: int, retry_after_s: float, spread: float) -> float:
        """Return the wait after so many failures in a row; `spread` is chosen from 0 to 1.

        What the sink asked for is a lower bound, exceeded by a tenth at most unless it is short.
        """
        doubled_s = min(self.first_s * 2.0 ** min(failures - 1, 30), self.longest_s)
        return max(doubled_s * (0.75 + 0.5 * spread), retry_after_s * (1.0 + 0.1 * spread))


class Courier:
    """Delivers in order: the next event leaves when the one before has arrived, or was dropped."""

    def __init__(
        self,
        sink: Sink,
        store: Store,
        counts: Counts,
        *,
        wake: threading.Event,
        back_off: BackOff,
    ) -> None:
        """Take the sink and the queue; `wake` is set by whoever has news for it."""
        self._sink = sink
        self._store = store
        self._counts = counts
        self._back_off = back_off
        self._wake = wake
        self._finishing = threading.Event()
        self._stopped = False
        self._oldest_s: float | None = None
        self._failures = 0
        self._lost_s: float | None = None  # since when nothing arrives
        self._refusals = (0, 0)  # sequence of an event, and how often it was refused
        self._thread = threading.Thread(target=self._run, name=f"ovoad-{sink.name}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look at the queue."""
        self._wake.set()

    def backlog(self) -> Backlog:
        """Return what waits; never waits for the disk."""
        oldest_s = self._oldest_s
        age_s = 0.0 if oldest_s is None else max(0.0, time.time() - oldest_s)
        return Backlog(self._store.waiting(self._sink.name), age_s)

    def finish(self) -> None:
        """Deliver what waits as long as that works, then end."""
        self._finishing.set()
        self._wake.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end; cut off what is under way when the time is up."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._stopped = True
            self._sink.abort()
            self._thread.join(1.0)

    # ---- its thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            last_round = self._finishing.is_set()  # nothing is queued any more
            try:
                event = self._store.next(self._sink.name)
            except sqlite3.Error as error:
                log.error("the queue of events cannot be read: %s", error)
                self._finishing.wait(DISK_AGAIN_S)
                self._stopped = self._stopped or self._finishing.is_set()
                continue
            self._oldest_s = None if event is None else event.made_s
            works = self._rest() if event is None else self._deliver(event)
            if (event is None and last_round) or (not works and self._finishing.is_set()):
                break
        self._sink.close()

    def _rest(self) -> bool:
        if self._finishing.is_set():
            return True
        outcome = self._ask(self._sink.rest)
        if isinstance(outcome, NotNow):
            self._wait(outcome)
            return False
        self._arrived()
        self._wake.wait(REST_S)
        return True

    def _deliver(self, event: QueuedEvent) -> bool:
        outcome = self._ask(lambda: self._sink.send(event))
        if isinstance(outcome, Refused):
            outcome = self._judge(event, outcome)
        if isinstance(outcome, NotNow):
            self._counts.retried[self._sink.name] += 1
            self._wait(outcome)
            return False
        if isinstance(outcome, Delivered):
            self._counts.delivered[self._sink.name] += 1
            self._arrived()
        self._acknowledge(event)
        return True

    def _ask(self, question: Callable[[], Outcome]) -> Outcome:
        """Ask the sink; a fault of ours is tried again too: a thread that ends would be silence."""
        try:
            return question()
        except Exception as error:
            if self._lost_s is None:  # once
                log.exception("the %s failed", self._sink.name)
            return NotNow(type(error).__name__)

    def _judge(self, event: QueuedEvent, refused: Refused) -> Outcome:
        """Try a refused event some times more, then let it go: others wait behind it."""
        sequence, times = self._refusals
        times = times + 1 if sequence == event.sequence else 1
        self._refusals = (event.sequence, times)
        if times < REFUSALS:
            return NotNow(refused.reason)
        self._counts.drop(self._sink.name, "refused")
        log.warning(
            "event %s is dropped: the %s refused it %d times (%s)",
            event.id,
            self._sink.name,
            times,
            refused.reason,
        )
        return refused

    def _acknowledge(self, event: QueuedEvent) -> None:
        """Note it on disk; until that works nothing else is sent, or it would be sent again."""
        while True:
            try:
                self._store.acknowledge(self._sink.name, event.sequence)
                return
            except sqlite3.Error as error:
                log.error("a delivery cannot be noted on disk: %s", error)
                if self._finishing.wait(DISK_AGAIN_S):
                    self._stopped = True
                    return

    def _wait(self, outcome: NotNow) -> None:
        self._failures += 1
        if self._lost_s is None:
            self._lost_s = time.monotonic()
            log.warning(
                "events do not arrive at the %s %s (%s); they are kept and sent again",
                self._sink.name,
                self._sink.place,
                outcome.reason,
            )
        delay_s = self._back_off.delay_s(self._failures, outcome.retry_after_s, random.random())
        self._finishing.wait(delay_s)

    def _arrived(self) -> None:
        self._failures = 0
        if self._lost_s is not None:
            log.info(
                "events arrive at the %s again, after %.0f s; %d wait",
                self._sink.name,
                time.monotonic() - self._lost_s,
                self._store.waiting(self._sink.name),
            )
            self._lost_s = None
