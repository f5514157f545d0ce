"""A report as Markdown tables, fit for a terminal and for a document. Knows no measuring."""

import math
from collections.abc import Iterable, Mapping, Sequence

from ovoad_client.bench.result import Baseline, Report, Row
from ovoad_client.bench.samples import STAGES
from ovoad_client.bench.statistics import Percentiles, efficiency

BUSY_GENERATOR: float = 0.7  # of a core: beyond it the generator may be what is measured


def report_lines(report: Report) -> list[str]:
    """Return the whole report, ready to print."""
    lines: list[str] = []
    if report.baselines:
        lines += [*baseline_lines(report.baselines), ""]
    if report.rows:
        lines += [*load_table(report.rows), "", *stage_table(report.rows), ""]
    lines += capacity_lines(report)
    if report.one_at_a_time:
        lines += added_lines(report)
    busiest = max((row.generator_cpu for row in report.rows), default=0.0)
    if report.rows:
        lines.append(f"the generator took {busiest:.0%} of one core at most")
    if busiest > BUSY_GENERATOR:
        lines.append("the generator was busy itself: the server may be faster than the figures say")
    if report.rows or report.one_at_a_time:
        lines.append(report.tally().sentence())
    return lines


def load_table(rows: Sequence[Row]) -> list[str]:
    """Return one line a load: rate, end to end percentiles, drops, errors."""
    with_bare = any(row.bare_fps for row in rows)
    with_server = any(row.server_cpu_ms is not None for row in rows)
    heads = ["sessions", "fps each", "policy", "frames/s"]
    heads += ["bare frames/s", "efficiency"] if with_bare else []
    heads += ["p50 ms", "p95 ms", "p99 ms", "dropped", "errors"]
    heads += ["server CPU ms/frame"] if with_server else []
    heads += ["generator CPU"]
    body = []
    for row in rows:
        cells = [_sessions(row), f"{row.fps:g}" if row.fps else "max", row.policy]
        cells.append(f"{row.frames_per_s:.1f}")
        if with_bare:
            bare = " / ".join(f"{rate:.1f}" for rate in row.bare_fps)
            cells += [bare or "–", number(efficiency(row.frames_per_s, row.bare_fps), 2)]
        times = row.end_to_end
        cells += [number(times.p50), number(times.p95), number(times.p99)]
        cells += [counts(row.dropped), counts(row.errors)]
        if with_server:
            cells.append("–" if row.server_cpu_ms is None else f"{row.server_cpu_ms:.1f}")
        cells.append(f"{row.generator_cpu:.0%}")
        body.append(cells)
    return markdown(heads, body)


def stage_table(rows: Sequence[Row]) -> list[str]:
    """Return p50 / p95 / p99 of every stage, one line a load."""
    heads = ["sessions", "fps each", "policy", *(f"{stage} ms" for stage in STAGES)]
    body = [
        [
            str(row.sessions),
            f"{row.fps:g}" if row.fps else "max",
            row.policy,
            *(triple(row.stages_ms[stage]) for stage in STAGES),
        ]
        for row in rows
    ]
    return ["milliseconds by stage, p50 / p95 / p99:", "", *markdown(heads, body)]


def baseline_lines(baselines: Sequence[Baseline]) -> list[str]:
    """Return the bare model's figures, one column a measurement."""
    numbers = [f"bare model {number}" for number in range(1, len(baselines) + 1)]
    body = []
    for title, rates in (
        ("encode + score", [each.encode_score_fps for each in baselines]),
        ("decode + encode + score", [each.decode_encode_score_fps for each in baselines]),
        ("re-encoding the window", [each.reencode_fps for each in baselines]),
    ):
        unit = "frames" if title.startswith("re-encoding") else "batch"
        for size in sorted({size for each in rates for size in each}):
            name = f"{title}, {unit} {size}" if unit == "batch" else f"{title}, {size} {unit}"
            cells = [number(each[size]) if size in each else "–" for each in rates]
            body.append([f"{name}, frames/s", *cells])
    for stage in ("decode", "encode", "score", "total"):
        cells = [number(each.bare_ms[stage], 2) for each in baselines]
        body.append([f"one frame, median {stage} ms", *cells])
    return markdown(["one process, no server", *numbers], body)


def capacity_lines(report: Report) -> list[str]:
    """Return one line a capacity that was found."""
    return [
        f"capacity at {found.fps:g} frames/s each, {found.policy}, p99 within "
        f"{found.budget_ms:g} ms: {found.sessions} sessions ({found.reason})"
        for found in report.capacities
    ]


def added_lines(report: Report) -> list[str]:
    """Return what the service adds to one frame at a time."""
    lines = []
    for row in report.one_at_a_time:
        line = (
            f"one session, one frame at a time: {triple(row.end_to_end)} ms end to end "
            f"(p50 / p95 / p99), {row.frames_per_s:.1f} frames/s"
        )
        if row.bare_ms:
            line += f", bare {' and '.join(f'{ms:.1f}' for ms in row.bare_ms)} ms"
        lines.append(line)
    if report.added_ms is not None and report.beside_ms is not None:
        lines.append(
            f"added latency: {report.added_ms:.1f} ms over the bare compute before and after, "
            f"{report.beside_ms:.1f} ms over the frame's own decode, encode and score (medians)"
        )
    return lines


# ---- parts -------------------------------------------------------------------------------------


def markdown(heads: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table with aligned columns, all but the first to the right."""
    rows = [list(heads), *map(list, body)]
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(heads))]
    lines = []
    for row in rows:
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append(f"| {' | '.join([first, *others])} |")
    rule = [
        ("-" * width) if column == 0 else "-" * (width - 1) + ":"
        for column, width in enumerate(widths)
    ]
    lines.insert(1, f"| {' | '.join(rule)} |")
    return lines


def triple(times: Percentiles) -> str:
    """Return "p50 / p95 / p99"."""
    return f"{number(times.p50)} / {number(times.p95)} / {number(times.p99)}"


def number(value: float, digits: int = 1) -> str:
    """Return a number, or a dash where there was nothing to measure."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def counts(found: Mapping[str, int]) -> str:
    """Return "busy 3, rate 1", or "none"."""
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items())) or "none"


def _sessions(row: Row) -> str:
    return str(row.sessions) if row.opened == row.sessions else f"{row.opened} of {row.sessions}"
