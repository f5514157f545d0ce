"""One evaluation as a table for people and as JSON for programs; computes nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ovoad_model.evaluation.judge import ScorerResult


@dataclass(frozen=True)
class Report:
    """What was judged, how, and what came out; enough to run it again."""

    evaluation: str  # "THUMOS'14", "clips", "segments"
    protocol: str  # "standard" or "paper"
    metric: str  # the headline: "mAP" or "mcAP"
    score: str  # what average precision ranks: "probability" or "similarity"
    encoder: str
    fingerprint: str
    templates: tuple[str, ...]
    background: tuple[str, ...]  # empty where each scorer's own defaults hold
    labels: tuple[str, ...]
    videos: int
    results: tuple[ScorerResult, ...]
    streams: int | None = None
    seed: int | None = None
    split: str | None = None
    part: str | None = None
    left_out: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Write everything; numbers are shares from 0 to 1 and milliseconds, None is null."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False, allow_nan=False)


def write_json(reports: Sequence[Report], path: Path) -> None:
    """Write one report as an object, several (one per split) as a list."""
    text = reports[0].to_json()
    if len(reports) > 1:
        text = "[\n" + ",\n".join(report.to_json() for report in reports) + "\n]"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def to_text(report: Report) -> str:
    """Lay out the report: what was judged, one row per scorer, one row per label."""
    parts = [_heading(report), scorer_table(report)]
    if any(value is not None for result in report.results for value in result.stages):
        parts.append(_stage_table(report))
    parts.append(_label_table(report))
    return "\n\n".join(parts)


def _heading(report: Report) -> str:
    split = f", split {report.split}, {report.part} classes, seed {report.seed}"
    streams = f" in {report.streams} streams, seed {report.seed}"
    first = report.results[0]
    return "\n".join(
        [
            f"{report.evaluation}: {report.videos} videos{streams if report.streams else ''}, "
            f"{first.frames} frames ({first.background_frames} without a label), "
            f"{len(report.labels)} labels{split if report.split else ''}",
            f"protocol {report.protocol}, ranked by {report.score}, encoder {report.encoder} "
            f"({report.fingerprint[:12]})",
        ]
    )


def scorer_table(report: Report) -> str:
    """Lay out one row per scorer."""
    header = ["scorer", "mAP", "mcAP", "top-1", "background rejection", "latency", "recognised"]
    rows = []
    for result in report.results:
        latency = result.latency
        median = "-" if latency.median_ms is None else f"{latency.median_ms:.0f} ms"
        rows.append(
            [
                result.scorer,
                _share(result.mean_average_precision),
                _share(result.mean_calibrated_average_precision),
                _share(result.top1),
                _share(result.background_rejection),
                median,
                f"{latency.recognised} of {latency.instances}",
            ]
        )
    return table(header, rows)


def _stage_table(report: Report) -> str:
    header = [f"{report.metric} by tenth", *(f"{10 * i}-{10 * i + 10}%" for i in range(10))]
    rows = [[result.scorer, *map(_share, result.stages)] for result in report.results]
    return table(header, rows)


def _label_table(report: Report) -> str:
    """One row per label that some frame shows, in the headline metric."""
    calibrated = report.metric == "mcAP"
    header = [f"{report.metric[1:]} per label", "frames", *(r.scorer for r in report.results)]
    rows = []
    for index, first in enumerate(report.results[0].labels):
        if first.frames == 0:
            continue
        found = [result.labels[index] for result in report.results]
        values = [
            r.calibrated_average_precision if calibrated else r.average_precision for r in found
        ]
        rows.append([first.label, str(first.frames), *map(_share, values)])
    absent = sum(label.frames == 0 for label in report.results[0].labels)
    note = f"\n{absent} labels that no frame shows are left out of the means" if absent else ""
    return table(header, rows) + note


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
