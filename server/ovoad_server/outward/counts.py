"""What became of events, for Prometheus. No label of a session or of its words."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

DropReason = Literal["full", "disk", "refused"]
DROP_REASONS: tuple[DropReason, ...] = ("full", "disk", "refused")


@dataclass
class Counts:
    """Counted since the server's start.

    Each number is written by one thread alone, but for `dropped`, which `drop` writes: the event
    loop and the recorder's thread both lose events to the disk.
    """

    queued: int = 0
    delivered: Counter[str] = field(default_factory=Counter)  # by sink
    retried: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, DropReason]] = field(default_factory=Counter)
    _mutex: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def drop(self, sink: str, reason: DropReason, number: int = 1) -> None:
        """Count events that a sink will not get."""
        with self._mutex:
            self.dropped[sink, reason] += number


@dataclass(frozen=True)
class Backlog:
    """What a sink has yet to take."""

    count: int
    oldest_age_s: float


class OutwardCollector(Collector):
    """Hands the counts to a scrape; reads memory alone."""

    def __init__(self, counts: Counts, backlogs: Mapping[str, Callable[[], Backlog]]) -> None:
        self._counts = counts
        self._backlogs = backlogs

    def collect(self) -> Iterable[Metric]:
        """Return all families."""
        counts = self._counts
        yield CounterMetricFamily(
            "ovoad_outward_queued", "events written to the queue", value=counts.queued
        )
        delivered = CounterMetricFamily("ovoad_outward_delivered", "events taken", labels=["to"])
        retried = CounterMetricFamily(
            "ovoad_outward_retried", "deliveries that failed and are tried again", labels=["to"]
        )
        dropped = CounterMetricFamily(
            "ovoad_outward_dropped", "events that are lost", labels=["to", "reason"]
        )
        waiting = GaugeMetricFamily("ovoad_outward_waiting", "events in the queue", labels=["to"])
        oldest = GaugeMetricFamily(
            "ovoad_outward_oldest_age_seconds",
            "age of the oldest event in the queue, 0 for none",
            labels=["to"],
        )
        for name, backlog in self._backlogs.items():
            delivered.add_metric([name], counts.delivered[name])
            retried.add_metric([name], counts.retried[name])
            for reason in DROP_REASONS:
                dropped.add_metric([name, reason], counts.dropped[name, reason])
            now = backlog()
            waiting.add_metric([name], now.count)
            oldest.add_metric([name], now.oldest_age_s)
        yield from (delivered, retried, dropped, waiting, oldest)
