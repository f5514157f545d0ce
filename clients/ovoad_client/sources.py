"""Open a video file, a camera or a network address, and read it frame by frame.

Knows no server. Reading blocks; `reading.py` runs it in a thread.
"""

import math
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ovoad_client.errors import MissingExtraError, SourceError

if TYPE_CHECKING:
    import cv2
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["file", "camera", "network"]
NETWORK_TIMEOUT_MS: Final = 10_000
DEFAULT_FRAME_MS: Final = 40.0  # 25 frames/s, where the container tells no time
JPEG_QUALITY: Final = 85
DEFAULT_MAX_SIDE: Final = 640
_ADDRESS = re.compile(r"^(rtsps?|rtmp|https?|udp|tcp)://", re.IGNORECASE)
_SECRET = re.compile(r"//[^/@\s]+@")


@dataclass(frozen=True)
class SourceFrame:
    """One frame as it is sent: its own time in the source and its JPEG bytes."""

    timestamp_ms: int
    jpeg: bytes


class VideoSource:
    """An open video. `live` sources give frames when they happen, others when asked.

    name is fit to be shown (passwords hidden); width and height are the source's own pixels;
    duration_ms and frame_count are None where the source has no known end.
    """

    def __init__(self, capture: "cv2.VideoCapture", *, name: str, kind: Kind) -> None:
        self._capture = capture
        self.name = name
        self.kind: Kind = kind
        self.width = int(capture.get(3))  # CAP_PROP_FRAME_WIDTH
        self.height = int(capture.get(4))  # CAP_PROP_FRAME_HEIGHT
        self.fps = _finite(capture.get(5))  # CAP_PROP_FPS
        count = _finite(capture.get(7)) if kind != "camera" else None  # CAP_PROP_FRAME_COUNT
        self.frame_count = int(count) if count is not None else None
        self.duration_ms: float | None = None
        if self.frame_count is not None and self.fps is not None:
            self.duration_ms = self.frame_count * 1000 / self.fps
        self.live = kind == "camera" or self.duration_ms is None

    def grab(self) -> Iterator[int]:
        """Step through the frames, yielding the time of each in milliseconds, the first at 0.

        Times strictly increase. A live source's frames bear the time at which they came; a file's
        the container's time, and where it tells none, the last one plus a frame's duration.
        """
        frame_ms = 1000 / self.fps if self.fps is not None else DEFAULT_FRAME_MS
        first_ms: float | None = None
        last_ms = -1.0
        while self._capture.grab():
            now_ms = time.monotonic() * 1000 if self.live else float(self._capture.get(0))
            if first_ms is None:
                first_ms = now_ms if math.isfinite(now_ms) else 0.0
            time_ms = now_ms - first_ms
            if not (math.isfinite(time_ms) and round(time_ms) > round(last_ms)):
                time_ms = last_ms + (1.0 if self.live else max(1.0, frame_ms))
            last_ms = max(0.0, time_ms)
            yield round(last_ms)

    def retrieve(self) -> "NDArray[np.uint8] | None":
        """Decode the frame grabbed last: [H, W, 3] BGR, or None where it does not decode."""
        found, image = self._capture.retrieve()
        return image if found else None  # type: ignore[return-value]  # cv2 says any integer

    def close(self) -> None:
        """Give the device or file back."""
        self._capture.release()


def open_source(source: str) -> VideoSource:
    """Open a file, a camera number, or an rtsp/http address; raises SourceError."""
    cv2 = import_cv2("reading video")
    if source.isdecimal():
        return _open_camera(cv2, int(source))
    if _ADDRESS.match(source):
        return _open_network(cv2, source)
    return _open_file(cv2, Path(source))


def encode_jpeg(image: "NDArray[np.uint8]", *, max_side: int = DEFAULT_MAX_SIDE) -> bytes:
    """Return [H, W, 3] BGR as JPEG, its longer side at most max_side pixels (0: as it is)."""
    cv2 = import_cv2("encoding frames")
    height, width = image.shape[:2]
    size = sent_size(width, height, max_side)
    if size != (width, height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done, "a decoded frame encodes"
    return bytes(data)


def sent_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    """Return (width, height) after shrinking the longer side to max_side; never enlarges."""
    longer = max(width, height)
    if max_side <= 0 or longer <= max_side:
        return width, height
    return max(1, round(width * max_side / longer)), max(1, round(height * max_side / longer))


def import_cv2(what: str) -> Any:
    """Import OpenCV with its own chatter silenced; raises MissingExtraError."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise MissingExtraError(what, module=error.name or "cv2", extra="demo") from error
    return cv2


# ---- the three kinds ---------------------------------------------------------------------------


def _open_file(cv2: Any, path: Path) -> VideoSource:
    problem = _file_problem(path)
    if problem is not None:
        raise SourceError(f"cannot read video '{path}': {problem}")
    # Naming the reader keeps OpenCV from taking "frame_001.jpg" for a sequence of images.
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise SourceError(
            f"cannot read video '{path}': no video frames found: "
            "found a file that FFmpeg does not take for a video"
        )
    return VideoSource(capture, name=path.name, kind="file")


def _file_problem(path: Path) -> str | None:
    if not path.exists():
        return "file does not exist"
    if not path.is_file():
        return "found a folder, expected a file"
    if not os.access(path, os.R_OK):
        return "permission denied"
    if path.stat().st_size == 0:
        return "no video frames found: the file is empty"
    return None


def _open_camera(cv2: Any, number: int) -> VideoSource:
    device = Path(f"/dev/video{number}")
    if sys.platform == "linux":
        if not device.exists():
            raise SourceError(f"cannot open camera {number}: {describe_cameras()}")
        if not os.access(device, os.R_OK | os.W_OK):
            raise SourceError(
                f"cannot open camera {number}: permission to {device} denied, "
                "expected this user in the group video"
            )
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise SourceError(
            f"cannot open camera {number}: it is in use, or gives no video; {describe_cameras()}"
        )
    return VideoSource(capture, name=f"camera {number}", kind="camera")


def describe_cameras(folder: Path = Path("/dev")) -> str:
    """Return "found /dev/video0, /dev/video1" or that there is none."""
    devices = sorted(folder.glob("video[0-9]*"), key=lambda path: int(path.name[5:]))
    return f"found {', '.join(map(str, devices))}" if devices else "found none (no /dev/video*)"


def _open_network(cv2: Any, address: str) -> VideoSource:
    name = _SECRET.sub("//…@", address)
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, NETWORK_TIMEOUT_MS]
    timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, NETWORK_TIMEOUT_MS]
    capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, timeouts)
    if not capture.isOpened():
        raise SourceError(
            f"cannot read video {name}: no video there, or no answer within "
            f"{NETWORK_TIMEOUT_MS / 1000:g} s"
        )
    return VideoSource(capture, name=name, kind="network")


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) and value > 0 else None
