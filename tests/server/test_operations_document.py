"""docs/operations.md names every metric with its kind and labels, and no other."""

import re
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from ovoad_server import health
from ovoad_server.engine import engine, worker
from ovoad_server.metrics import Metrics
from ovoad_server.tracing import MOST_WAITING

DOCUMENT = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(ovoad_\w+)` \| (\w+) \|(.*?)\| (.+) \|$", re.MULTILINE)
SESSIONS_OWN = {"session", "session_id", "label", "client", "address", "token"}


def test_every_metric_has_its_row_and_no_other_is_named() -> None:
    metrics = Metrics()
    metrics.model.info({"encoder": "", "fingerprint": ""})
    registered = {}
    for collector in set(metrics.registry._collector_to_names):
        assert isinstance(collector, MetricWrapperBase)
        (family,) = collector.describe()
        labels = tuple(collector._labelnames)
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        if family.type == "info":
            labels = ("encoder", "fingerprint")
        assert not SESSIONS_OWN & set(labels)
        registered[family.name + suffix] = (family.type, labels)
    documented = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels, _ in ROW.findall(DOCUMENT)
    }
    assert documented == registered


def test_numbers_of_the_document_are_those_of_the_code() -> None:
    assert (health.HEARTBEAT_TIMEOUT_S, health.BATCH_TIMEOUT_S) == (10.0, 10.0)
    assert (health.CHECK_EVERY_S, health.WORKER_TIMEOUT_S, health.TOLERANCE) == (5.0, 5.0, 0.001)
    assert (worker.HEARTBEAT_S, worker.SOON_S, worker.PROMPT_TIMEOUT_S) == (1.0, 60.0, 0.5)
    assert (worker.FIRST_DELAY_S, worker.LONGEST_DELAY_S) == (0.25, 4.0)
    assert worker.LONGEST_FAILING_DELAY_S == 30.0
    assert (worker.SHORTEST_START_TIMEOUT_S, worker.START_PATIENCE) == (60.0, 5)
    assert engine.RESTART_WAIT_S == 15.0
    assert MOST_WAITING == 256
