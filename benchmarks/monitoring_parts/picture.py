"""Draw the dashboard from what a run found: places, titles and units as in Grafana."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from monitoring_parts.dashboard import Panel
from monitoring_parts.findings import Findings
from monitoring_parts.place import TEXT, Place
from monitoring_parts.plots import draw_graph, draw_heatmap, draw_stat, draw_table

COLUMN_PIXELS: Final = 66
ROW_PIXELS: Final = 34  # Grafana's is 38, at a column of 80
GAP_PIXELS: Final = 8
HEAD_PIXELS: Final = 46
DPI: Final = 100
PAGE: Final = "#111217"
PANEL: Final = "#181b1f"


def draw_dashboard(panels: Sequence[Panel], findings: Findings, path: Path) -> None:
    """Write the picture in the format that the name's ending says."""
    width = 24 * COLUMN_PIXELS
    height = max(panel.y + panel.height for panel in panels) * ROW_PIXELS + HEAD_PIXELS
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAGE)
    FigureCanvasAgg(figure)
    figure.text(
        GAP_PIXELS / width,
        1 - 0.5 * HEAD_PIXELS / height,
        _title(findings),
        color=TEXT,
        va="center",
    )
    for panel in panels:
        left, top = panel.x * COLUMN_PIXELS, panel.y * ROW_PIXELS + HEAD_PIXELS
        place = Place(
            figure,
            left + GAP_PIXELS / 2,
            height - top - panel.height * ROW_PIXELS + GAP_PIXELS / 2,
            panel.width * COLUMN_PIXELS - GAP_PIXELS,
            panel.height * ROW_PIXELS - GAP_PIXELS,
            width,
            height,
        )
        _draw(panel, findings, place)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, facecolor=PAGE)


def _draw(panel: Panel, findings: Findings, place: Place) -> None:
    lines = findings.panels.get(panel.number, [])
    if panel.kind == "row":
        place.text(4, place.height / 2, f"⌄ {panel.title}", size=10, weight="bold", va="center")
        return
    place.figure.add_artist(
        FancyBboxPatch(
            (place.left / place.page_width, place.bottom / place.page_height),
            place.width / place.page_width,
            place.height / place.page_height,
            boxstyle="square,pad=0",
            facecolor=PANEL,
            edgecolor="#2c3235",
            linewidth=0.6,
            zorder=-1,
        )
    )
    place.text(8, place.height - 7, panel.title, size=8.5, va="top")
    match panel.kind:
        case "stat":
            draw_stat(panel, lines, place)
        case "heatmap":
            draw_heatmap(panel, lines, place, findings)
        case "table":
            draw_table(panel, lines, place)
        case _:
            draw_graph(panel, lines, place, findings)


def _title(findings: Findings) -> str:
    start = datetime.datetime.fromtimestamp(findings.start_s, datetime.UTC)
    minutes = (findings.end_s - findings.start_s) / 60
    return (
        f"ovoad   ·   {start:%Y-%m-%d %H:%M} UTC, {minutes:.1f} minutes   ·   {findings.machine}   "
        "·   red: OvoadCapacityExceeded fires"
    )
