"""The courier: a fault of a sink's own ends nothing, and what /metrics tells is documented."""

import re
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ovoad_server.outward import recorder, store, webhook
from ovoad_server.outward.counts import Counts
from ovoad_server.outward.courier import REFUSALS, BackOff, Courier, Delivered, Outcome
from ovoad_server.outward.occasionally import Occasionally
from ovoad_server.outward.outward import LAST_DELIVERY_S, LAST_WRITE_S
from ovoad_server.outward.store import QueuedEvent, Store
from ovoad_server.outward.webhook import Webhook

from .outward_parts import QUICK, ROOM, eventually, noted, outward_to

DOCUMENT = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(ovoad_outward_\w+)` \| (\w+) \|(.*?)\| (.+) \|$", re.MULTILINE)


class Faulty:
    """A sink that has a fault at first."""

    name = "webhook"
    place = "here"

    def __init__(self, faults: int) -> None:
        self.faults = faults
        self.sent: list[int] = []

    def send(self, event: QueuedEvent) -> Outcome:
        if self.faults:
            self.faults -= 1
            raise KeyError("a fault")
        self.sent.append(event.sequence)
        return Delivered()

    def rest(self) -> Outcome:
        return Delivered()

    def abort(self) -> None:
        return

    def close(self) -> None:
        return


def test_fault_of_a_sink_is_logged_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path, ["webhook"], ROOM)
    store.add([noted(1), noted(2)])
    sink, counts = Faulty(3), Counts()
    courier = Courier(sink, store, counts, wake=threading.Event(), back_off=QUICK)
    eventually(lambda: counts.delivered["webhook"] == 2)
    courier.finish()
    courier.join(5.0)
    store.close()
    first, second = sink.sent
    assert second == first + 1
    assert counts.retried["webhook"] == 3
    assert caplog.text.count("the webhook failed") == 1


def test_log_is_told_now_and_then() -> None:
    times_s = iter([0.0, 1.0, 59.0, 60.0, 61.0, 120.0])
    occasionally = Occasionally(lambda: next(times_s))
    told = [occasionally.due() for _ in range(6)]
    assert told == [True, False, False, True, False, True]


def test_every_metric_has_its_row_and_no_other_is_named(tmp_path: Path) -> None:
    sink = ("webhook", lambda store, wake: Webhook("http://127.0.0.1:1/", None))
    with outward_to(tmp_path, sink) as outward:
        registry = CollectorRegistry()
        registry.register(outward.collector)
        text = generate_latest(registry).decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    labels: dict[str, tuple[str, ...]] = {}
    for name, given in re.findall(r"^(ovoad_\w+)(?:\{(.*)\})? ", text, re.MULTILINE):
        labels[name] = tuple(re.findall(r'(\w+)="', given))
    documented = {
        name: (kind, tuple(re.findall(r"`(\w+)`", named)))
        for name, kind, named, _ in ROW.findall(DOCUMENT)
    }
    exported = {name: (kinds[name], tuple(sorted(labels[name]))) for name in kinds}
    assert {n: (k, tuple(sorted(ls))) for n, (k, ls) in documented.items()} == exported


def test_numbers_of_the_document_are_those_of_the_code() -> None:
    assert BackOff() == BackOff(first_s=1.0, longest_s=30.0)
    assert (webhook.TIMEOUT_S, webhook.WHOLE_TIMEOUT_S) == (10.0, 20.0)
    assert webhook.LONGEST_RETRY_AFTER_S == 3600.0
    assert frozenset({400, 413, 415, 422}) == webhook.JUDGED
    assert REFUSALS == 5
    assert (recorder.MOST_IN_MEMORY, recorder.MOST_ANNOUNCED) == (10_000, 64)
    assert (store.MOST_SENSORS, store.SENSOR_KEPT_S) == (256, 30 * 24 * 3600)
    assert (LAST_WRITE_S, LAST_DELIVERY_S) == (2.0, 2.0)
