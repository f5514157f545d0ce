"""Which frames of a video are scored: those nearest to an even time grid. Knows no server.

The same frames as `ovoad_model.video.read_grid_frames` gives; of the others only the compressed
data are decoded, no picture is made of them.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ovoad_server.engine.reduction import reduction

Pixels = NDArray[np.uint8]
DEFAULT_FRAME_MS: Final = 40.0  # 25 frames/s, where the file tells none


@dataclass(frozen=True)
class Sample:
    """A frame on the grid: RGB [H, W, 3] and its own time, the first frame's being 0."""

    timestamp_ms: int
    pixels: Pixels


@dataclass(frozen=True)
class _Kept:
    time_ms: float
    distance_ms: float
    cell: int
    picture: Pixels  # BGR


def sample_frames(
    capture: cv2.VideoCapture, *, fps: float, each: Callable[[float, int], None]
) -> Iterator[Sample]:
    """Yield the frame nearest to each of 0, 1/fps, 2/fps … seconds after the first frame.

    `each` is told time and number of every frame before it may be yielded. Frames that do not
    decode count as not there. Timestamps strictly increase.
    """
    period_ms = 1000.0 / fps
    kept: _Kept | None = None
    last_ms = -1
    for number, time_ms in enumerate(_times(capture), start=1):
        each(time_ms, number)
        cell = math.ceil(time_ms / period_ms - 0.5)
        distance_ms = abs(time_ms - cell * period_ms)
        if kept is not None and cell == kept.cell and distance_ms >= kept.distance_ms:
            continue
        found, picture = capture.retrieve()
        if not found:
            continue
        if kept is not None and cell != kept.cell:
            last_ms = max(last_ms + 1, round(kept.time_ms))
            yield Sample(last_ms, _to_rgb(kept.picture))
        kept = _Kept(time_ms, distance_ms, cell, np.asarray(picture, np.uint8))
    if kept is not None:
        yield Sample(max(last_ms + 1, round(kept.time_ms)), _to_rgb(kept.picture))


def shrink(pixels: Pixels, *, least_side: int) -> Pixels:
    """Return RGB [H, W, 3] at 1/8, 1/4 or 1/2 of its size, or as it is: means of whole pixels.

    As JPEGs are decoded (engine/reduction.py): a picture of 25 MB on its way to the worker would
    hold up all sessions.
    """
    height, width, _ = pixels.shape
    scale = reduction(width, height, least_side=least_side)
    if scale == 1:
        return pixels
    size = (-(-width // scale), -(-height // scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def frame_duration_ms(capture: cv2.VideoCapture) -> float | None:
    """Return one frame's duration by the file's header, None where it tells none."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return 1000.0 / fps if math.isfinite(fps) and fps > 0 else None


def _times(capture: cv2.VideoCapture) -> Iterator[float]:
    """Step through the frames: milliseconds since the first, counted on where there is no time."""
    frame_ms = frame_duration_ms(capture) or DEFAULT_FRAME_MS
    first_ms: float | None = None
    last_ms = -math.inf
    while capture.grab():
        position_ms = float(capture.get(cv2.CAP_PROP_POS_MSEC))
        if first_ms is None:
            first_ms = position_ms if math.isfinite(position_ms) else 0.0
        time_ms = position_ms - first_ms
        if not math.isfinite(time_ms) or time_ms <= last_ms:
            time_ms = last_ms + frame_ms if math.isfinite(last_ms) else 0.0
        yield time_ms
        last_ms = time_ms


def _to_rgb(picture: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
