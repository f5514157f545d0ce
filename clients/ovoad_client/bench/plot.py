"""Draw a report: frames/s and latency against sessions. Knows no measuring; needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ovoad_client.bench.result import Report, Row
from ovoad_client.plot import COLOURS, PlotError, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")


def draw_report(report: Report, path: Path) -> None:
    """Write the picture in the format that the name's ending says; raises PlotError."""
    if not report.rows:
        raise PlotError(f"cannot draw '{path}': found no load, expected at least one")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 7.0), layout="constrained")
    FigureCanvasAgg(figure)
    rates, times = figure.subplots(2, 1, sharex=True)
    curves = group_rows(report.rows)
    for index, (name, rows) in enumerate(curves.items()):
        _draw(rates, times, plain_text(name), rows, index)
    if report.baselines:
        bare = sum(each.best_fps for each in report.baselines) / len(report.baselines)
        rates.axhline(bare, color="#8C8C8C", linestyle="--", label="bare model, best batch")
    for found in report.capacities:
        times.axhline(found.budget_ms, color="#8C8C8C", linestyle=":", label="budget")
    _label(rates, times, [row.sessions for row in report.rows])
    figure.suptitle(plain_text(report.title), x=0.01, ha="left", fontsize=10)
    save_figure(figure, path)


def group_rows(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of one pace and policy together, by rising number of sessions."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        pace = f"{row.fps:g} frames/s each" if row.fps else "as fast as answers come"
        groups.setdefault(f"{row.policy}, {pace}", []).append(row)
    return {name: sorted(group, key=lambda row: row.sessions) for name, group in groups.items()}


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure; raises PlotError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise PlotError(f"cannot write '{path}': {error}") from error


def _draw(rates: "Axes", times: "Axes", name: str, rows: Sequence[Row], index: int) -> None:
    sessions = [row.sessions for row in rows]
    look: dict[str, Any] = {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
    }
    rates.plot(sessions, [row.frames_per_s for row in rows], label=name, **look)
    times.plot(sessions, [row.end_to_end.p50 for row in rows], label=f"p50, {name}", **look)
    times.plot(
        sessions,
        [row.end_to_end.p99 for row in rows],
        label=f"p99, {name}",
        linestyle="--",
        markerfacecolor="white",
        **look,
    )


def _label(rates: "Axes", times: "Axes", sessions: Sequence[int]) -> None:
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    rates.set_ylabel("frames/s predicted")
    rates.set_ylim(bottom=0)
    times.set_ylabel("end to end, ms")
    times.set_xlabel("sessions")
    times.set_yscale("log")
    times.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    times.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    times.set_xscale("log", base=2)
    ticks = sorted(set(sessions))
    times.set_xticks(ticks, [str(tick) for tick in ticks])
    times.minorticks_off()
    for axes in (rates, times):
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
