"""What a run found, as records that turn into JSON and back."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from monitoring_parts.dashboard import Query, legend_text
from monitoring_parts.prometheus import Points, Series


@dataclass(frozen=True)
class Change:
    """An alert that became pending, firing or inactive, seconds after the start."""

    passed_s: float
    alert: str
    state: str


@dataclass(frozen=True)
class Line:
    """One series as a panel shows it."""

    legend: str
    labels: Mapping[str, str]
    points: Points


@dataclass
class Findings:
    """All that a run found; times in seconds since 1970, panels by their number."""

    machine: str
    start_s: float
    end_s: float
    scrape_s: float
    step_s: float
    changes: list[Change] = field(default_factory=list)
    panels: dict[int, list[Line]] = field(default_factory=dict)
    firing: list[Line] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Findings":
        """Return what to_json gave."""
        found = json.loads(text)
        panels = {int(number): _lines(lines) for number, lines in found.pop("panels").items()}
        return cls(
            changes=[Change(**change) for change in found.pop("changes")],
            panels=panels,
            firing=_lines(found.pop("firing")),
            **found,
        )


def legends(query: Query, found: Iterable[Series]) -> list[Line]:
    """Name the series of a query as its legend says."""
    return [
        Line(legend_text(query.legend, series.labels), series.labels, series.points)
        for series in found
    ]


def _lines(found: Iterable[Mapping[str, object]]) -> list[Line]:
    return [Line(**line) for line in found]  # type: ignore[arg-type]
