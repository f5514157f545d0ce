"""Draw one panel of each kind: graph, heatmap, number, table."""

import datetime
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter, MinuteLocator
from matplotlib.ticker import FuncFormatter, MaxNLocator

from monitoring_parts.dashboard import Panel
from monitoring_parts.findings import Findings, Line
from monitoring_parts.place import (
    LETTER_PIXELS,
    NAMED,
    TEXT,
    Place,
    draw_legend,
    legend_rows,
    line_look,
)
from monitoring_parts.units import with_unit

FAINT: Final = "#2c3235"
ALERT: Final = "OvoadCapacityExceeded"


def draw_graph(panel: Panel, lines: Sequence[Line], place: Place, findings: Findings) -> None:
    """Draw lines, or bars that stand on each other, with their legend below."""
    lines = sorted(lines, key=lambda line: _is_dull(line))
    right = [line for line in lines if _on_the_right(panel, line)]
    rows = legend_rows(lines, place.width)
    axes = place.axes(78, 26 + 15 * rows, 66 if right else 14, 30)
    other = axes.twinx() if right else None
    custom = panel.defaults.get("custom", {})
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    base: np.ndarray[Any, Any] | None = None
    for index, line in enumerate(lines):
        times, values = _arrays(line, findings)
        look = line_look(panel, line, index)
        if stacked:
            base = np.zeros_like(values) if base is None else base
            _draw_on_top(axes, times, base, values, look, bars=custom.get("drawStyle") == "bars")
            base = base + np.nan_to_num(values)
        else:
            onto = other if other is not None and line in right else axes
            onto.plot(times, values, linewidth=1.2, **look)
    _dress(axes, panel.unit, findings, most=panel.defaults.get("max"))
    _shade_alert(axes, findings)
    if other is not None:
        _dress(other, str(panel.override(right[0].legend).get("unit", panel.unit)), findings)
        other.grid(visible=False)
    _draw_thresholds(axes, panel)
    draw_legend(panel, lines, place, rows)


def draw_heatmap(panel: Panel, lines: Sequence[Line], place: Place, findings: Findings) -> None:
    """Draw how many batches fell into each bucket; the buckets of a histogram are cumulative."""
    ordered = sorted(lines, key=lambda line: float(line.labels["le"].replace("+Inf", "inf")))
    table = np.array([_arrays(line, findings)[1] for line in ordered])
    times = _arrays(ordered[0], findings)[0]
    counts = np.diff(np.nan_to_num(table), axis=0, prepend=0.0)
    axes = place.axes(78, 41, 14, 30)
    axes.pcolormesh(
        times,
        np.arange(len(ordered)),
        np.ma.masked_less_equal(counts, 1e-9),
        cmap="Blues",
        norm="log",
        vmin=0.3,
        edgecolors="#181b1f",
        linewidth=0.4,
    )
    _dress(axes, panel.unit, findings)
    _shade_alert(axes, findings)
    axes.set_ylim(-0.5, len(ordered) - 0.5)
    names = [line.labels["le"].removesuffix(".0") for line in ordered]
    axes.set_yticks(range(len(names)), [f"{name} frames" for name in names])
    axes.grid(visible=False)
    place.text(78, 10, "bucket: up to so many frames; darker is more batches", size=7)


def draw_stat(panel: Panel, lines: Sequence[Line], place: Place) -> None:
    """Write the last value large, on the colour of its threshold."""
    value = lines[0].points[-1][1] if lines else float("nan")
    text = with_unit(value, panel.unit, panel.defaults.get("decimals"))
    for mapping in panel.defaults.get("mappings", []):
        text = mapping["options"].get(f"{value:g}", {}).get("text", text)
    axes = place.axes(6, 6, 6, 26)
    axes.set_axis_off()
    axes.add_patch(
        _rectangle(axes, _threshold_colour(panel, value)),
    )
    place.text(
        place.width / 2,
        (place.height - 20) / 2,
        text,
        size=19,
        weight="bold",
        ha="center",
        va="center",
        color="white",
    )


def draw_table(panel: Panel, lines: Sequence[Line], place: Place) -> None:
    """Write one row a series."""
    hidden = {"__name__", "job"}
    heads = [name for name in lines[0].labels if name not in hidden]
    if not any("fingerprint" in line.labels for line in lines):
        heads.append("started")
    step = (place.width - 20) / len(heads)
    for column, head in enumerate(sorted(heads, key=_column)):
        x = 10 + column * step
        place.text(x, place.height - 44, head, size=8, weight="bold", color="#6e9fff")
        for row, line in enumerate(lines[:3]):
            text = line.labels.get(head) or _moment(line.points[-1][1])
            most = int(step / (1.25 * LETTER_PIXELS)) - 1
            shown = text if len(text) <= most else f"{text[:most]}…"
            place.text(x, place.height - 66 - 20 * row, shown, size=8)


def _column(head: str) -> int:
    order = ("instance", "encoder", "fingerprint", "started")
    return order.index(head) if head in order else len(order)


def _moment(milliseconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}"


# ---- parts of graphs -----------------------------------------------------------------------------


def _arrays(line: Line, findings: Findings) -> tuple[Any, Any]:
    """Return times and values [T] on the grid of the query; NaN where there is no point."""
    count = int((findings.end_s - findings.start_s) / findings.step_s) + 1
    values = np.full(count, np.nan)
    for at_s, value in line.points:
        values[min(count - 1, round((at_s - findings.start_s) / findings.step_s))] = value
    return _days(findings.start_s + findings.step_s * np.arange(count)), values


def _days(seconds: Any) -> Any:
    """Return seconds since 1970 as matplotlib counts time."""
    return np.asarray(seconds) / 86400


def _draw_on_top(
    axes: Axes, times: Any, base: Any, values: Any, look: dict[str, Any], *, bars: bool
) -> None:
    colour = look["color"]
    if bars:
        width = 0.9 * (times[1] - times[0])
        axes.bar(times, np.nan_to_num(values), width=width, bottom=base, color=colour)
    else:
        top = base + np.nan_to_num(values)
        axes.fill_between(times, base, top, color=colour, alpha=0.3, linewidth=0)
        axes.plot(times, top, linewidth=1.2, color=colour)


def _is_dull(line: Line) -> bool:
    """Series that are zero all the time come last, with the colours that are left."""
    return all(value == 0 for _, value in line.points)


def _on_the_right(panel: Panel, line: Line) -> bool:
    return bool(panel.override(line.legend).get("custom.axisPlacement") == "right")


def _dress(axes: Axes, unit: str, findings: Findings, *, most: float | None = None) -> None:
    axes.set_facecolor("none")
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
    axes.tick_params(colors=TEXT, labelsize=7, length=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: with_unit(value, unit)))
    minutes = (findings.end_s - findings.start_s) / 60
    ticks = MinuteLocator(interval=max(1, round(minutes / 8)))  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(ticks)
    clock = DateFormatter("%H:%M")  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(clock)
    highest = axes.dataLim.ymax
    axes.set_ylim(0, most or (1.1 * highest if 0 < highest < np.inf else 1.0))
    axes.set_xlim(_days(findings.start_s), _days(findings.end_s))


def _shade_alert(axes: Axes, findings: Findings) -> None:
    for line in findings.firing:
        if line.legend == ALERT:
            first, last = _days([line.points[0][0], line.points[-1][0]])
            axes.axvspan(first, last, color=NAMED["red"], alpha=0.12, linewidth=0, zorder=0)


def _draw_thresholds(axes: Axes, panel: Panel) -> None:
    if panel.defaults.get("custom", {}).get("thresholdsStyle", {}).get("mode") != "dashed":
        return
    for step in panel.defaults["thresholds"]["steps"]:
        if step["value"] is not None:
            axes.set_ylim(top=max(1.1 * step["value"], axes.get_ylim()[1]))
            axes.axhline(step["value"], color=NAMED[step["color"]], linestyle=(0, (5, 3)))


def _threshold_colour(panel: Panel, value: float) -> str:
    colour = "blue"
    for step in panel.defaults["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    return NAMED[colour]


def _rectangle(axes: Axes, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((0, 0), 1, 1, transform=axes.transAxes, color=colour)
