"""Draw a session's answers beside and onto its pictures. Knows no file and no connection.

Pictures are [H, W, 3] uint8, BGR.
"""

import functools
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ovoad_client.images import import_cv2

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Colour = tuple[int, int, int]  # BGR
PICTURE_BOX: Final = (640, 480)  # pictures are fitted into it
LEAST_PICTURE_HEIGHT: Final = 360
PANEL_WIDTH: Final = 300
STRIP_HEIGHT: Final = 116
STRIP_SPAN_MS: Final = 20_000  # the curves' past
MOST_LABELS: Final = 8
HISTORY_KEPT: Final = 1200  # 20 s at 60 frames/s
_ROW: Final = 40
_MARGIN: Final = 12
_CURVE_TOP: Final = 12
_CURVE_BOTTOM: Final = 26  # from the strip's lower edge: the scale of time
_DARK: Final[Colour] = (30, 26, 24)
_STRIP: Final[Colour] = (22, 19, 18)
_TRACK: Final[Colour] = (62, 56, 52)
_GRID: Final[Colour] = (52, 46, 43)
_WHITE: Final[Colour] = (245, 245, 245)
_GREY: Final[Colour] = (150, 150, 150)
# After Okabe and Ito (2008), lightened for a dark ground: told apart with any colour vision.
COLOURS: Final[tuple[Colour, ...]] = (
    (233, 180, 86),
    (0, 159, 230),
    (140, 200, 60),
    (90, 130, 255),
    (190, 140, 220),
    (66, 228, 240),
    (255, 170, 170),
    (235, 235, 235),
)
_FONTS: Final = ("DejaVu Sans", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Noto Sans Arabic")


class Annotator:
    """Draws frame after frame; keeps the curves' past of 20 s.

    The frame's size is settled by the first picture; later ones are fitted into its place.
    Of more than eight labels those are shown that were the likeliest in the last 20 s.
    """

    def __init__(self, labels: Sequence[str], *, picture_size: tuple[int, int]) -> None:
        """picture_size: (width, height) of the first picture."""
        self._labels = list(labels)
        self._picture = _fitted(picture_size, PICTURE_BOX)
        self.width = _even(self._picture[0] + PANEL_WIDTH)
        self._area = _even(max(self._picture[1], LEAST_PICTURE_HEIGHT))
        self.height = self._area + STRIP_HEIGHT
        self._rows = min(MOST_LABELS, (self._area - 2 * _MARGIN) // _ROW - 1)
        self._history: deque[tuple[int, NDArray[np.float32]]] = deque(maxlen=HISTORY_KEPT)
        self._active: dict[str, int] = {}
        self._breaks: deque[int] = deque(maxlen=64)  # times before which no curve reaches

    def show_events(self, active: Mapping[str, int]) -> None:
        """Show these events, label to start_ms, from here on."""
        self._active = dict(active)

    def break_curves(self, timestamp_ms: int) -> None:
        """No curve crosses this time: there were no predictions before it."""
        self._breaks.append(timestamp_ms)

    def draw(
        self,
        picture: "NDArray[np.uint8]",
        timestamp_ms: int,
        probabilities: dict[str, float],
        background: float,
        *,
        warming_up: bool = False,
    ) -> "NDArray[np.uint8]":
        """Return the frame [H, W, 3] of one prediction."""
        import numpy as np

        values = [probabilities.get(label, np.nan) for label in self._labels]
        self._history.append((timestamp_ms, np.array([*values, background], np.float32)))
        frame = self._canvas(picture)
        shown = self._shown()
        self._draw_panel(frame, shown)
        self._draw_strip(frame, shown, timestamp_ms)
        state = " · window warming up" if warming_up else ""
        _chip(frame, f"{clock(timestamp_ms)}{state}", (_MARGIN, _MARGIN), _WHITE)
        self._draw_events(frame, timestamp_ms)
        return frame

    def draw_gap(self, frame: "NDArray[np.uint8]", gap_ms: int) -> "NDArray[np.uint8]":
        """Return a frame that says that there are no predictions for so long."""
        dimmed = frame.copy()
        area = dimmed[: self._area]
        area[:] = area // 3
        text = f"no predictions for {gap_ms / 1000:.1f} s"
        _chip(dimmed, text, (_MARGIN, self._area // 2), _WHITE)
        return dimmed

    # ---- the parts ---------------------------------------------------------------------------

    def _canvas(self, picture: "NDArray[np.uint8]") -> "NDArray[np.uint8]":
        import numpy as np

        cv2 = import_cv2("drawing the annotated video")
        frame = np.empty((self.height, self.width, 3), np.uint8)
        frame[: self._area] = _DARK
        frame[self._area :] = _STRIP
        place_width, place_height = self._picture
        height, width = picture.shape[:2]
        width, height = _fitted((width, height), (place_width, place_height))
        if (width, height) != (picture.shape[1], picture.shape[0]):
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
        left, top = (place_width - width) // 2, (self._area - height) // 2
        frame[: self._area, :place_width] = 0
        frame[top : top + height, left : left + width] = picture
        return frame

    def _shown(self) -> list[int]:
        """Return the numbers of the labels in the panel, in their own order."""
        import numpy as np

        if len(self._labels) <= self._rows:
            return list(range(len(self._labels)))
        recent = np.stack([values[:-1] for _, values in self._history])
        peaks = np.nan_to_num(recent, nan=-1.0).max(axis=0)
        return sorted(np.argsort(-peaks, kind="stable")[: self._rows].tolist())

    def _draw_panel(self, frame: "NDArray[np.uint8]", shown: list[int]) -> None:
        import numpy as np

        values = self._history[-1][1]
        left = self._picture[0] + _MARGIN
        right = self.width - _MARGIN
        rows = [(number, self._labels[number]) for number in shown] + [(-1, "(none of these)")]
        top = _MARGIN
        for number, label in rows:
            value = float(values[number])
            active = number >= 0 and label in self._active
            colour = _GREY if number < 0 else COLOURS[number % len(COLOURS)]
            shade = _WHITE if active else _mixed(colour, _WHITE, 0.5)
            name = text_image(
                f"● {label}" if active else label, 15, shade, _DARK, right - left - 46
            )
            _paste(frame, name, left, top)
            number_text = "–" if np.isnan(value) else f"{value:.2f}"
            digits = text_image(number_text, 15, shade, _DARK, 60)
            _paste(frame, digits, right - digits.shape[1], top)
            bar = frame[top + 23 : top + 31, left:right]
            bar[:] = _TRACK
            bar[:, : round((right - left) * (0.0 if np.isnan(value) else value))] = colour
            top += _ROW

    def _draw_strip(self, frame: "NDArray[np.uint8]", shown: list[int], now_ms: int) -> None:
        cv2 = import_cv2("drawing the annotated video")
        top, bottom = self._area + _CURVE_TOP, self.height - _CURVE_BOTTOM
        for part in (0.0, 0.5, 1.0):
            y = round(bottom - part * (bottom - top))
            frame[y, :] = _GRID
        pixels_per_ms = (self.width - _MARGIN) / STRIP_SPAN_MS
        for second in range(
            max(0, (now_ms - STRIP_SPAN_MS) // 5000 + 1) * 5, now_ms // 1000 + 1, 5
        ):
            x = round(self.width - _MARGIN - (now_ms - second * 1000) * pixels_per_ms)
            frame[top:bottom, x] = _GRID
            tick = text_image(f"{second} s", 12, _GREY, _STRIP, 80)
            left = min(x - tick.shape[1] // 2, self.width - tick.shape[1] - 2)
            _paste(frame, tick, left, bottom + 6)
        for run in self._runs():
            times = run[0]
            xs = self.width - _MARGIN - (now_ms - times) * pixels_per_ms
            for number in [-1, *shown]:
                ys = bottom - run[1][:, number] * (bottom - top)
                colour = _GREY if number < 0 else COLOURS[number % len(COLOURS)]
                _curve(cv2, frame, xs, ys, colour, 1 if number < 0 else 2)

    def _runs(self) -> "list[tuple[NDArray[np.float64], NDArray[np.float32]]]":
        """Return (times [N], values [N, C + 1]) of each stretch without a break."""
        import numpy as np

        newest_ms = self._history[-1][0]
        recent = [item for item in self._history if newest_ms - item[0] <= STRIP_SPAN_MS]
        starts = [0]
        breaks = set(self._breaks)
        starts += [index for index in range(1, len(recent)) if recent[index][0] in breaks]
        runs = []
        for start, end in zip(starts, [*starts[1:], len(recent)], strict=True):
            part = recent[start:end]
            times = np.array([time for time, _ in part], np.float64)
            runs.append((times, np.stack([values for _, values in part])))
        return runs

    def _draw_events(self, frame: "NDArray[np.uint8]", now_ms: int) -> None:
        bottom = self._area - _MARGIN
        for label, start_ms in list(self._active.items())[-4:]:
            number = self._labels.index(label) if label in self._labels else 0
            text = f"{max(0, now_ms - start_ms) / 1000:.1f} s  {label}"
            colour = COLOURS[number % len(COLOURS)]
            bottom -= 30
            _chip(frame, text, (_MARGIN, bottom), colour, self._picture[0] - 2 * _MARGIN)
            bottom -= 4


# ---- helpers -----------------------------------------------------------------------------------


def clock(timestamp_ms: int) -> str:
    """Return e.g. "1:02:03.4", or "0:05.2" within the first hour."""
    tenths = timestamp_ms // 100
    minutes, rest = divmod(tenths, 600)
    text = f"{rest // 10:02}.{rest % 10}"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{text}" if hours else f"{minutes}:{text}"


@functools.lru_cache(maxsize=1024)
def text_image(
    text: str, size: int, colour: Colour, ground: Colour, most_width: int
) -> "NDArray[np.uint8]":
    """Return text as a picture [size + 5, W, 3] on its ground, shortened to most_width pixels."""
    import numpy as np
    from PIL import Image, ImageDraw

    font = _font(text, size)
    shown = text
    while len(shown) > 1 and font.getlength(shown) > most_width:
        shown = shown.rstrip("…")[:-1].rstrip() + "…"
    width = max(1, min(most_width, round(font.getlength(shown)) + 1))
    image = Image.new("RGB", (width, size + 5), ground[::-1])
    ImageDraw.Draw(image).text((0, size + 1), shown, font=font, fill=colour[::-1], anchor="ls")
    return np.ascontiguousarray(np.asarray(image)[:, :, ::-1])


def _font(text: str, size: int) -> Any:
    """Return the first known font that has every character of the text, else the first."""
    from PIL import ImageFont

    paths = _font_paths()
    wanted = {ord(character) for character in text}
    fitting = (path for path, characters in paths if wanted <= characters)
    return ImageFont.truetype(next(fitting, paths[0][0]), size)


@functools.cache
def _font_paths() -> list[tuple[str, frozenset[int]]]:
    """Return (path, characters) of each known font; the first comes with matplotlib."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    known = set(font_manager.get_font_names())
    paths = [font_manager.findfont(name) for name in _FONTS if name in known]
    return [(str(path), frozenset(FT2Font(str(path)).get_charmap())) for path in paths]


def _chip(
    frame: "NDArray[np.uint8]",
    text: str,
    place: tuple[int, int],
    colour: Colour,
    most_width: int = 600,
) -> None:
    """Write text on a dark ground at (left, top)."""
    image = text_image(text, 17, colour, _DARK, most_width - 16)
    left, top = place
    height, width = image.shape[:2]
    frame[top : top + height + 8, left : left + width + 16] = _DARK
    _paste(frame, image, left + 8, top + 4)


def _paste(frame: "NDArray[np.uint8]", image: "NDArray[np.uint8]", left: int, top: int) -> None:
    """Put an image onto the frame; what lies outside is cut off."""
    height, width = frame.shape[:2]
    cut_left, cut_top = max(0, -left), max(0, -top)
    part = image[cut_top : max(0, height - top), cut_left : max(0, width - left)]
    rows, columns = part.shape[:2]
    left, top = left + cut_left, top + cut_top
    frame[top : top + rows, left : left + columns] = part


def _curve(
    cv2: Any,
    frame: "NDArray[np.uint8]",
    xs: "NDArray[np.float64]",
    ys: "NDArray[np.float32]",
    colour: Colour,
    thickness: int,
) -> None:
    """Draw one curve; points without a value are left out. Sixteenths of a pixel."""
    import numpy as np

    known = ~np.isnan(ys)
    points = np.stack([xs[known], ys[known]], axis=1) * 16
    if len(points):
        path = np.round(points).astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(frame, [path], False, colour, thickness, cv2.LINE_AA, 4)


def _fitted(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """Return the largest (width, height) of the same shape that fits the box."""
    scale = min(box[0] / size[0], box[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _even(length: int) -> int:
    return length + length % 2


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    first, second, third = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return first, second, third
