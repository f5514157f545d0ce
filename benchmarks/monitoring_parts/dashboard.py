"""Read a Grafana dashboard: its panels, and their queries with Grafana's variables put in."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ALL_INSTANCES: Final = ".+"  # what the dashboard's variable "Server" gives for All


@dataclass(frozen=True)
class Query:
    """One query of a panel; legend may hold {{label}}."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A panel in Grafana's grid of 24 columns; `defaults` and `overrides` are its fieldConfig."""

    number: int
    kind: str
    title: str
    x: int
    y: int
    width: int
    height: int
    queries: tuple[Query, ...]
    defaults: Mapping[str, Any]
    overrides: tuple[Mapping[str, Any], ...]

    @property
    def unit(self) -> str:
        """Grafana's name of the unit."""
        return str(self.defaults.get("unit", "none"))

    def override(self, name: str) -> dict[str, Any]:
        """Return the properties that hold for one series alone."""
        found: dict[str, Any] = {}
        for override in self.overrides:
            matcher, wanted = override["matcher"]["id"], override["matcher"]["options"]
            fits = wanted == name
            if matcher == "byRegexp":
                fits = re.search(wanted.strip("/"), name) is not None
            if fits:
                found |= {each["id"]: each["value"] for each in override["properties"]}
        return found


def rate_interval_s(scrape_s: float, step_s: float) -> float:
    """Return what Grafana puts in for $__rate_interval."""
    return max(step_s + scrape_s, 4 * scrape_s)


def load_panels(path: Path, *, scrape_s: float, step_s: float) -> list[Panel]:
    """Return all panels, rows too, in the order of the file."""
    variables = {
        "$__rate_interval": f"{rate_interval_s(scrape_s, step_s):g}s",
        "$instance": ALL_INSTANCES,
    }
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    return [_panel(panel, variables) for panel in dashboard["panels"]]


def legend_text(legend: str, labels: Mapping[str, str]) -> str:
    """Return a legend with the series' own labels put in."""
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), legend)


def _panel(panel: Mapping[str, Any], variables: Mapping[str, str]) -> Panel:
    grid, config = panel["gridPos"], panel.get("fieldConfig", {})
    queries = (
        Query(_put_in(target["expr"], variables), target["legendFormat"])
        for target in panel.get("targets", ())
    )
    return Panel(
        panel["id"],
        panel["type"],
        panel["title"],
        grid["x"],
        grid["y"],
        grid["w"],
        grid["h"],
        tuple(queries),
        config.get("defaults", {}),
        tuple(config.get("overrides", ())),
    )


def _put_in(expression: str, variables: Mapping[str, str]) -> str:
    for name, value in variables.items():
        expression = expression.replace(name, value)
    if "$" in expression:
        raise ValueError(f"found a variable that is not known in {expression!r}")
    return expression
