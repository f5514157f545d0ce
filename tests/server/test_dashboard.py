"""Dashboard, rules and their configuration name what the server exports, and are well-formed."""

import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from ovoad_server.metrics import Metrics
from ovoad_server.outward.counts import Backlog, Counts, OutwardCollector

from .promql import Selector, grouping_labels, selectors

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "docker" / "prometheus"
GRAFANA = ROOT / "docker" / "grafana"
RUNBOOK = ROOT / "docs" / "monitoring.md"
SCRAPED = {"instance", "job"}  # labels that a scrape adds
PROMETHEUS_OWN = {"up": SCRAPED, "ALERTS": {"alertname", "alertstate", "severity"} | SCRAPED}
LEFT_OUT = {  # exported, and not on the dashboard
    "process_virtual_memory_bytes": "says nothing of use of a program that maps files",
    "ovoad_worker_process_virtual_memory_bytes": "the same",
    "ovoad_worker_process_start_time_seconds": "lost workers are counted",
    "ovoad_worker_process_open_fds": "a worker has one connection",
    "ovoad_worker_process_max_fds": "the same",
    "ovoad_stage_seconds_sum": "percentiles tell more than means",
    "ovoad_stage_seconds_count": "frames predicted are counted",
}
Labels = dict[str, set[str]]


@pytest.fixture(scope="module")
def dashboard() -> Any:
    return json.loads((GRAFANA / "dashboards" / "ovoad.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def exported() -> Labels:
    """Return the labels of every series that a server with all its parts exports."""
    metrics = Metrics()
    metrics.model.info({"encoder": "embedded", "fingerprint": "f"})
    metrics.watch_processes(os.getpid)
    metrics.registry.register(OutwardCollector(Counts(), {"webhook": lambda: Backlog(0, 0.0)}))
    found: Labels = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.fixture(scope="module")
def values() -> set[tuple[str, str, str]]:
    """Return (series, label, value) of what is exported before anything has happened."""
    return {
        (sample.name, label, value)
        for family in Metrics().registry.collect()
        for sample in family.samples
        for label, value in sample.labels.items()
    }


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    groups = [group for file in files for group in read_yaml(file)["groups"]]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"]: rule for rule in rules() if "record" in rule}


def panels(dashboard: Any) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(dashboard: Any) -> Iterator[tuple[str, str]]:
    """Yield expression and legend of every query, annotations too."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield target["expr"], target["legendFormat"]
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            yield annotation["expr"], annotation["titleFormat"]


def known(exported: Labels) -> Labels:
    recorded = {name: {"stage"} | SCRAPED for name in RECORDED}
    return {
        **{name: labels | SCRAPED for name, labels in exported.items()},
        **PROMETHEUS_OWN,
        **recorded,
    }


def check(expression: str, exported: Labels, values: set[tuple[str, str, str]]) -> None:
    """Every series, label and value of an expression is one that the server exports."""
    labels = known(exported)
    found = selectors(expression)
    assert found, expression
    of_all: set[str] = set()
    for selector in found:
        assert selector.metric in labels, f"{selector.metric} in {expression}"
        of_all |= labels[selector.metric]
        for label, operator, value in selector.matchers:
            assert label in labels[selector.metric], f"{label} in {expression}"
            if operator in ("=", "!=") and label not in SCRAPED and selector.metric in exported:
                assert (selector.metric, label, value) in values, f"{value} in {expression}"
    assert grouping_labels(expression) <= of_all, expression


# ---- the reader of PromQL ----------------------------------------------------------------------


def test_selectors_are_found_among_functions_and_groupings() -> None:
    expression = (
        'histogram_quantile(0.99, sum by (le, stage) (rate(a_bucket{stage!="total"}[5m])))'
        ' > ignoring (stage) b:c:d and absent(up{job="x"}) * 1e3 or vector(0)'
    )
    assert selectors(expression) == [
        Selector("a_bucket", (("stage", "!=", "total"),)),
        Selector("b:c:d"),
        Selector("up", (("job", "=", "x"),)),
    ]
    assert grouping_labels(expression) == {"le", "stage"}


# ---- names -------------------------------------------------------------------------------------


def test_queries_of_the_dashboard_name_what_is_exported(
    dashboard: Any, exported: Labels, values: set[tuple[str, str, str]]
) -> None:
    for expression, legend in queries(dashboard):
        check(expression, exported, values)
        if expression.startswith("ALERTS"):
            continue
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= grouping_labels(expression), legend


@pytest.mark.parametrize("name", [*ALERTS, *RECORDED])
def test_rules_name_what_is_exported(
    name: str, exported: Labels, values: set[tuple[str, str, str]]
) -> None:
    check({**ALERTS, **RECORDED}[name]["expr"], exported, values)


def test_every_exported_series_is_on_the_dashboard_or_left_out(
    dashboard: Any, exported: Labels
) -> None:
    shown = {
        selector.metric
        for expression, _ in queries(dashboard)
        for selector in selectors(expression)
    }
    assert set(exported) - shown - set(LEFT_OUT) == set()
    assert set(LEFT_OUT) <= set(exported), "left out, and not even exported"


# ---- the dashboard -----------------------------------------------------------------------------


def test_panels_have_numbers_and_places_of_their_own(dashboard: Any) -> None:
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers))
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
    for one, other in itertools.combinations(dashboard["panels"], 2):
        a, b = one["gridPos"], other["gridPos"]
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, (one["title"], other["title"])


def test_panels_say_what_they_show(dashboard: Any) -> None:
    titles = [panel["title"] for panel in panels(dashboard)]
    assert len(titles) == len(set(titles))
    for panel in panels(dashboard):
        assert panel["description"], panel["title"]
        if panel["type"] in ("stat", "timeseries"):
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(references) == len(set(references))


def test_datasource_and_server_are_variables(dashboard: Any) -> None:
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert variables["instance"]["datasource"] == chosen
    for panel in panels(dashboard):
        assert panel["datasource"] == chosen
        for target in panel["targets"]:
            assert target["datasource"] == chosen
            for selector in selectors(target["expr"]):
                if selector.metric != "ALERTS":
                    assert ("instance", "=~", "$instance") in selector.matchers, target["expr"]


def test_dashboard_is_provisioned() -> None:
    (source,) = read_yaml(GRAFANA / "provisioning/datasources/prometheus.yml")["datasources"]
    (provider,) = read_yaml(GRAFANA / "provisioning/dashboards/ovoad.yml")["providers"]
    scraping = read_yaml(PROMETHEUS / "prometheus.yml")
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert source["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"


# ---- rules -------------------------------------------------------------------------------------


def test_prometheus_scrapes_the_server_and_takes_the_rules() -> None:
    configuration = read_yaml(PROMETHEUS / "prometheus.yml")
    jobs = {job["job_name"]: job for job in configuration["scrape_configs"]}
    assert jobs["ovoad"]["static_configs"] == [{"targets": ["server:8000"]}]
    assert "credentials_file" in jobs["ovoad"]["authorization"]
    assert configuration["rule_files"] == ["rules/*.yml"]


@pytest.mark.parametrize("name", ALERTS)
def test_alert_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    notes = alert["annotations"]
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert notes["summary"]
    assert len(notes["description"]) > 80
    document, _, anchor = notes["runbook_url"].partition("#")
    assert (document, anchor) == ("docs/monitoring.md", name.lower())
    headings = re.findall(r"^#+ (.+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert name in headings


def test_runbook_has_no_alert_that_is_gone() -> None:
    headings = re.findall(r"^#+ (Ovoad\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)


def test_every_alert_is_fired_and_cleared_by_a_test_of_the_rules() -> None:
    fired: dict[str, list[bool]] = {name: [] for name in ALERTS}
    for file in (PROMETHEUS / "tests").glob("*.yml"):
        for test in read_yaml(file)["tests"]:
            for look in test["promql_expr_test"]:
                (name,) = re.findall(r'alertname="(\w+)"', look["expr"])
                fired[name].append(bool(look["exp_samples"]))
    for name, looks in fired.items():
        assert looks[:1] == [False], f"{name} is not seen quiet"
        assert True in looks, f"{name} is not seen firing"
        assert looks[-1] is False, f"{name} is not seen to clear"
