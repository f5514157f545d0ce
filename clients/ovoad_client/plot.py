"""Draw a session's timeline: probabilities, events and frames. Knows no connection.

Needs matplotlib, and OpenCV for the pictures under the curves.
"""

import math
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ovoad_client.errors import ClientError, MissingExtraError, UsageError
from ovoad_client.sources import import_cv2
from ovoad_client.timeline import Timeline

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

LABELS_DRAWN: Final = 8
THUMBNAILS: Final = 10
THUMBNAIL_HEIGHT: Final = 160
WIDTH_INCHES: Final = 13.0
_PICTURE_INCHES: Final = 1.0  # about a tenth of the axes' width
# Okabe and Ito (2008): eight colours that people with any colour vision tell apart. Yellow is
# left out (too light on white); black comes last.
COLOURS: Final = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8B4513",
    "#000000",
)
LINE_STYLES: Final = ("-", "-", "-", "-", "--", "--", "--", "--")
BACKGROUND_COLOUR: Final = "#8C8C8C"
_FONTS: Final = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans Arabic", "WenQuanYi Zen Hei")


class PlotError(ClientError):
    """A picture that cannot be made or written."""


def draw_timeline(timeline: Timeline, path: Path) -> None:
    """Write the picture in the format that the name's ending says; raises PlotError."""
    check_plotting(path)
    if not timeline.points:
        raise PlotError(f"cannot draw '{path}': found no prediction, expected at least one")
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = timeline.likeliest(LABELS_DRAWN)
    with rc_context({"font.family": _known_fonts(), "axes.unicode_minus": False}):
        lanes = max(1, len({span.label for span in timeline.spans if span.label in labels}))
        heights = [3.4, 0.32 * lanes + 0.12, _pictures_height(timeline)]
        figure = Figure(figsize=(WIDTH_INCHES, sum(heights) + 1.3), layout="constrained")
        FigureCanvasAgg(figure)
        curves, events, frames = figure.subplots(3, 1, height_ratios=heights)
        events.sharex(curves)
        _draw_curves(curves, timeline, labels)
        _draw_events(events, timeline, labels)
        _draw_frames(frames, timeline)
        hidden = len(timeline.labels) - len(labels)
        title = f"{timeline.title}   ({timeline.model})"
        if hidden:
            title += f"   the {len(labels)} likeliest of {len(timeline.labels)} labels"
        figure.suptitle(plain_text(title), x=0.01, ha="left", fontsize=12)
        _save(figure, path)


def check_plotting(path: Path) -> None:
    """Raise MissingExtraError or UsageError where such a picture cannot be drawn."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "drawing the timeline", module=error.name or "matplotlib", extra="watch"
        ) from error
    import_cv2("drawing the timeline")
    known = sorted(FigureCanvasAgg.get_supported_filetypes())
    if path.suffix[1:].lower() not in known:
        raise UsageError(f"found picture '{path}', expected a name ending in {', '.join(known)}")


def plain_text(text: str) -> str:
    """Return text that matplotlib shows as it is: "$" is no formula, a first "_" hides nothing."""
    shown = text.replace("$", r"\$")
    return f"\u200b{shown}" if shown.startswith("_") else shown


# ---- the three parts ---------------------------------------------------------------------------


def _draw_curves(axes: "Axes", timeline: Timeline, labels: list[str]) -> None:
    for index, label in enumerate(labels):
        seconds, values = _curve(timeline, label)
        axes.plot(
            seconds,
            values,
            label=plain_text(label),
            color=COLOURS[index],
            linestyle=LINE_STYLES[index],
            linewidth=2.0,
            **_marker(timeline),
        )
    seconds, values = _curve(timeline, None)
    axes.plot(
        seconds,
        values,
        label="(none of these)",
        color=BACKGROUND_COLOUR,
        linestyle=":",
        linewidth=2.0,
        **_marker(timeline),
    )
    _shade_gaps(axes, timeline)
    start_s, end_s = _limits_s(timeline)
    axes.set_xlim(start_s, end_s)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("probability")
    axes.set_xlabel("time, seconds")
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left", bbox_to_anchor=(1.005, 1.0), frameon=False, fontsize=10)


def _draw_events(axes: "Axes", timeline: Timeline, labels: list[str]) -> None:
    spans = [span for span in timeline.spans if span.label in labels]
    lanes = [label for label in labels if any(span.label == label for span in spans)]
    for span in spans:
        lane = lanes.index(span.label)
        start_s, end_s = span.start_ms / 1000, span.end_ms / 1000
        colour = COLOURS[labels.index(span.label)]
        width = max(end_s - start_s, 0.02)
        axes.barh(lane, width, left=start_s, height=0.62, color=colour, alpha=0.85)
        if span.open:
            axes.plot([start_s + width], [lane], marker=">", color=colour, clip_on=False)
    axes.set_yticks(range(len(lanes)), [plain_text(lane) for lane in lanes], fontsize=9)
    axes.yaxis.tick_right()
    axes.tick_params(axis="y", length=0, pad=9)
    axes.tick_params(axis="x", labelbottom=False, length=0)
    axes.set_ylim(max(len(lanes), 1) - 0.45, -0.55)
    axes.set_ylabel("events", rotation=0, ha="right", va="center")
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
    _shade_gaps(axes, timeline)
    if not lanes:
        start_s, end_s = _limits_s(timeline)
        axes.text((start_s + end_s) / 2, 0, "no event", ha="center", va="center", color="#666666")


def _draw_frames(axes: "Axes", timeline: Timeline) -> None:
    """Place pictures side by side, each at the time at its middle."""
    start_s, end_s = _limits_s(timeline)
    step_s = (end_s - start_s) / THUMBNAILS
    middles_s = [start_s + step_s * (index + 0.5) for index in range(THUMBNAILS)]
    axes.set_xlim(start_s, end_s)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_xticks(middles_s, [f"{middle:.1f} s" for middle in middles_s], fontsize=8)
    axes.tick_params(axis="x", length=0)
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
    pictures = timeline.thumbnails([middle * 1000 for middle in middles_s])
    for middle_s, jpeg in zip(middles_s, pictures, strict=True):
        picture = _decode(jpeg)
        if picture is not None:
            _place(axes, picture, middle_s, step_s * 0.96)


def _place(axes: "Axes", picture: "NDArray[np.uint8]", middle_s: float, width_s: float) -> None:
    """Show a picture inside its slot, undistorted."""
    inset = axes.inset_axes((middle_s - width_s / 2, 0.0, width_s, 1.0), transform=axes.transData)
    inset.imshow(picture, aspect="equal")
    inset.set_axis_off()


# ---- helpers -----------------------------------------------------------------------------------


def _curve(timeline: Timeline, label: str | None) -> tuple[list[float], list[float]]:
    """Return (seconds, probabilities) of a label or the background, NaN inside every gap."""
    gaps = deque(timeline.gaps())
    seconds: list[float] = []
    values: list[float] = []
    for point in timeline.points:
        while gaps and gaps[0][1] <= point.timestamp_ms:
            seconds.append(sum(gaps.popleft()) / 2000)
            values.append(math.nan)
        seconds.append(point.timestamp_ms / 1000)
        values.append(
            point.background if label is None else point.probabilities.get(label, math.nan)
        )
    return seconds, values


def _marker(timeline: Timeline) -> dict[str, Any]:
    """Dots where answers are few, so that one between two gaps is seen."""
    few = len(timeline.points) <= 60
    return {"marker": "o", "markersize": 3.0} if few else {}


def _shade_gaps(axes: "Axes", timeline: Timeline) -> None:
    for index, (start_ms, end_ms) in enumerate(timeline.gaps()):
        axes.axvspan(
            start_ms / 1000,
            end_ms / 1000,
            facecolor="#F0F0F0",
            edgecolor="#C8C8C8",
            hatch="//",
            linewidth=0,
            label="no predictions" if index == 0 else None,
            zorder=0,
        )


def _limits_s(timeline: Timeline) -> tuple[float, float]:
    start_s = timeline.points[0].timestamp_ms / 1000
    end_s = timeline.points[-1].timestamp_ms / 1000
    return start_s, max(end_s, start_s + 0.1)


def _pictures_height(timeline: Timeline) -> float:
    """Return the height in inches that the row of pictures needs, by their own shape."""
    picture = _decode(timeline.thumbnails([0.0])[0])
    if picture is None:
        return 0.3
    height, width = picture.shape[:2]
    return float(min(1.6, max(0.3, _PICTURE_INCHES * height / width)))


def _decode(jpeg: bytes | None) -> "NDArray[np.uint8] | None":
    """Return a small RGB picture."""
    if jpeg is None:
        return None
    import numpy as np

    cv2 = import_cv2("drawing the timeline")
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        return None
    height, width = image.shape[:2]
    scale = min(1.0, THUMBNAIL_HEIGHT / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(shrunk[:, :, ::-1])


def _known_fonts() -> list[str]:
    from matplotlib import font_manager

    known = set(font_manager.get_font_names())
    return [font for font in _FONTS if font in known]


def _save(figure: Any, path: Path) -> None:
    import warnings

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            # A label in a script that no installed font has is drawn as boxes.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise PlotError(f"cannot write '{path}': {error}") from error
