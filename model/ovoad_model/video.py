"""Read a video file as frames on an even time grid. Knows no encoder and no window."""

import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ovoad_model.arrays import Frame
from ovoad_model.errors import ModelError


class VideoError(ModelError):
    """A video that cannot be read; `path` names it and `reason` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def read_grid_frames(path: str | Path, *, fps: float = 4.0) -> Iterator[tuple[int, Frame]]:
    """Yield the frames nearest to the grid 0, 1/fps, 2/fps … seconds after the first frame.

    A frame belongs to cell round((time - first) * fps), half-way ones to the earlier cell; of a
    cell's frames the one nearest to its grid time is kept, the earlier of two equally near. So a
    video slower than the grid has empty cells and no frame comes twice. A live window's grid.

    Yields (timestamp_ms, frame): the frame's own time, first frame = 0, strictly increasing; RGB
    uint8 [H, W, 3], turned upright where the file carries a rotation flag. Frames are decoded as
    they are asked for, one at a time.

    Raises VideoError where the file is missing, empty, no video, or holds no frame.
    """
    if not fps > 0:
        raise ValueError(f"found fps {fps}, expected more than 0")
    path = Path(path)
    period_ms = 1000.0 / fps
    kept: tuple[float, Frame] | None = None
    kept_cell = 0
    for time_ms, frame in _decode(path):
        cell = math.ceil(time_ms / period_ms - 0.5)
        distance_ms = abs(time_ms - cell * period_ms)
        if kept is not None and cell == kept_cell:
            if distance_ms < abs(kept[0] - kept_cell * period_ms):
                kept = (time_ms, frame)
            continue
        if kept is not None:
            yield round(kept[0]), _to_rgb(kept[1])
        kept, kept_cell = (time_ms, frame), cell
    if kept is not None:
        yield round(kept[0]), _to_rgb(kept[1])


def _decode(path: Path) -> Iterator[tuple[float, Frame]]:
    """Yield (milliseconds since the first frame, BGR frame) of every frame that decodes."""
    capture = _open(path)
    try:
        frame_ms = _frame_duration_ms(capture)
        first_ms = 0.0
        last_ms = -math.inf
        index = 0
        while True:
            found, frame = capture.read()
            if not found:
                break
            position_ms = float(capture.get(cv2.CAP_PROP_POS_MSEC))
            if index == 0:
                first_ms = position_ms if math.isfinite(position_ms) else 0.0
            time_ms = position_ms - first_ms
            if not math.isfinite(time_ms) or time_ms <= last_ms:
                # The container gives no usable time for this frame: count on from the last one.
                time_ms = last_ms + frame_ms if index else 0.0
            yield time_ms, np.asarray(frame, dtype=np.uint8)
            last_ms = time_ms
            index += 1
    finally:
        capture.release()
    if index == 0:
        raise VideoError(path, "found no frame that decodes, expected at least one")


def _open(path: Path) -> cv2.VideoCapture:
    """Open the file with OpenCV's FFmpeg reader, or say why it cannot be opened."""
    if not path.is_file():
        raise VideoError(path, "found no such file" if not path.exists() else "found no plain file")
    if path.stat().st_size == 0:
        raise VideoError(path, "found an empty file, expected a video")
    # Naming the reader keeps OpenCV from reading "frame_001.jpg" as a sequence of images.
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        capture.release()
        raise VideoError(path, "found a file that is not a video that FFmpeg can read")
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    return capture


def _frame_duration_ms(capture: cv2.VideoCapture) -> float:
    """One frame's duration by the file's header; 40 ms (25 fps) where it tells none."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return 1000.0 / fps if math.isfinite(fps) and fps > 0 else 40.0


def _to_rgb(frame: Frame) -> Frame:
    """Turn OpenCV's BGR [H, W, 3] into RGB."""
    return np.ascontiguousarray(frame[:, :, ::-1])
