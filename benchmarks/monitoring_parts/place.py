"""A panel's place on the page, its colours and its legend. Knows no kind of panel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monitoring_parts.dashboard import Panel
from monitoring_parts.findings import Line

TEXT: Final = "#ccccdc"
NAMED: Final = {
    "red": "#e02f44",
    "green": "#299c46",
    "yellow": "#e0b400",
    "blue": "#3274d9",
    "text": TEXT,
    "transparent": "#00000000",
}
PALETTE: Final = (  # Grafana's classic one
    "#7EB26D",
    "#EAB839",
    "#6ED0E0",
    "#EF843C",
    "#E24D42",
    "#1F78C1",
    "#BA43A9",
    "#705DA0",
    "#508642",
    "#CCA300",
    "#447EBC",
    "#C15C17",
    "#890F02",
)
LETTER_PIXELS: Final = 5.6  # of small print, on average


@dataclass(frozen=True)
class Place:
    """Where a panel lies on the page, in pixels from its lower left corner."""

    figure: Figure
    left: float
    bottom: float
    width: float
    height: float
    page_width: float
    page_height: float

    def axes(self, left: float, bottom: float, right: float, top: float) -> Axes:
        """Return axes inside the panel, so many pixels from its four sides."""
        return self.figure.add_axes(
            (
                (self.left + left) / self.page_width,
                (self.bottom + bottom) / self.page_height,
                (self.width - left - right) / self.page_width,
                (self.height - bottom - top) / self.page_height,
            )
        )

    def text(self, x: float, y: float, text: str, *, size: float, **look: Any) -> None:
        """Write at a point of the panel, pixels from its lower left corner."""
        self.figure.text(
            (self.left + x) / self.page_width,
            (self.bottom + y) / self.page_height,
            text,
            fontsize=size,
            **{"color": TEXT, **look},
        )


def line_look(panel: Panel, line: Line, index: int) -> dict[str, Any]:
    """Return colour and style of a panel's line."""
    look: dict[str, Any] = {"color": PALETTE[index % len(PALETTE)]}
    override = panel.override(line.legend)
    if "color" in override:
        look["color"] = NAMED[override["color"]["fixedColor"]]
    if "custom.lineStyle" in override:
        look["linestyle"] = (0, (5, 3))
    return look


def legend_rows(lines: Sequence[Line], width: float) -> int:
    """Return how many rows the legend takes in a panel of this width."""
    return len(_layout(lines, width))


def _layout(lines: Sequence[Line], width: float) -> list[list[tuple[float, int]]]:
    """Return for each row the places (pixels from the left, number of the series)."""
    rows: list[list[tuple[float, int]]] = [[]]
    x = 12.0
    for number, line in enumerate(lines):
        wide = 30 + LETTER_PIXELS * len(line.legend)
        if x + wide > width and rows[-1]:
            rows.append([])
            x = 12.0
        rows[-1].append((x, number))
        x += wide
    return rows


def draw_legend(panel: Panel, lines: Sequence[Line], place: Place, rows: int) -> None:
    """Write the legend at the panel's foot."""
    for row, entries in enumerate(_layout(lines, place.width)):
        y = 6 + 15 * (rows - 1 - row)
        for x, number in entries:
            look = line_look(panel, lines[number], number)
            place.text(x, y, "▬", size=8, color=look["color"])
            place.text(x + 14, y, lines[number].legend, size=7)
