"""Read a video file, a camera or a network address through OpenCV. Knows no server."""

import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ovoad_client.errors import SourceError
from ovoad_client.images import import_cv2
from ovoad_client.reconnecting import Reconnect

if TYPE_CHECKING:
    import cv2
    import numpy as np
    from numpy.typing import NDArray

CaptureKind = Literal["file", "camera", "network"]
NETWORK_TIMEOUT_MS: Final = 10_000
DEFAULT_FRAME_MS: Final = 40.0  # 25 frames/s, where the container tells no time
RECONNECT: Final = Reconnect(first_s=0.5, longest_s=8.0, give_up_s=300.0)
ADDRESS: Final = re.compile(r"^(rtsps?|rtmp|https?|udp|tcp)://", re.IGNORECASE)
_SECRET: Final = re.compile(r"//[^/@\s]+@")
Open = Callable[[], "cv2.VideoCapture"]


class Capture:
    """An open video; see `sources.VideoSource`.

    A live network source that stops giving frames is opened again with back-off, which `tell`
    hears; its frames go on bearing the time at which they came, so the break is a gap.
    """

    def __init__(
        self, open_capture: Open, *, name: str, kind: CaptureKind, reconnect: Reconnect | None
    ) -> None:
        self._open = open_capture
        self._capture = capture = open_capture()
        self._reconnect = reconnect
        self._stopped = threading.Event()
        self.name = name
        self.kind: CaptureKind = kind
        self.tell: Callable[[str], None] | None = None
        self.width = int(capture.get(3))  # CAP_PROP_FRAME_WIDTH
        self.height = int(capture.get(4))  # CAP_PROP_FRAME_HEIGHT
        self.fps = _finite(capture.get(5))  # CAP_PROP_FPS
        count = _finite(capture.get(7)) if kind != "camera" else None  # CAP_PROP_FRAME_COUNT
        self.frame_count = int(count) if count is not None else None
        self.duration_ms: float | None = None
        if self.frame_count is not None and self.fps is not None:
            self.duration_ms = self.frame_count * 1000 / self.fps
        self.live = kind == "camera" or self.duration_ms is None
        self.may_end = not self.live

    def grab(self) -> Iterator[int]:
        """Step through the frames, yielding the time of each in milliseconds, the first at 0.

        Times strictly increase. A live source's frames bear the time at which they came; a file's
        the container's time, and where it tells none, the last one plus a frame's duration.
        """
        frame_ms = 1000 / self.fps if self.fps is not None else DEFAULT_FRAME_MS
        first_ms: float | None = None
        last_ms = -1.0
        while self._step():
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

    def stop(self) -> None:
        """End a wait between two attempts to connect; may be called from any thread."""
        self._stopped.set()

    def close(self) -> None:
        """Give the device or file back."""
        self._capture.release()

    def _step(self) -> bool:
        """Go to the next frame, connecting again where that is this source's way."""
        if self._capture.grab():
            return True
        if self.kind != "network" or not self.live or self._reconnect is None:
            return False
        return self._connect_again(self._reconnect)

    def _connect_again(self, reconnect: Reconnect) -> bool:
        """Open the source until it gives a frame; False where stopped or `give_up_s` is over."""
        start_s, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            wait_s = reconnect.delay_s(attempt)
            if time.monotonic() + wait_s - start_s > reconnect.give_up_s:
                self._say(f"gave up after {attempt - 1} attempts to open it again")
                return False
            self._say(f"no frames come, opening it again in {wait_s:.1f} s (attempt {attempt})")
            self._capture.release()
            if self._stopped.wait(wait_s):
                return False
            try:
                self._capture = self._open()
            except SourceError:
                continue
            if self._capture.grab():
                self._say(f"frames come again after {time.monotonic() - start_s:.1f} s")
                return True

    def _say(self, text: str) -> None:
        if self.tell is not None:
            self.tell(f"{self.name}: {text}")


def open_file(path: Path) -> Capture:
    """Open a video file; raises SourceError."""
    cv2 = import_cv2("reading video")
    problem = file_problem(path)
    if problem is not None:
        raise SourceError(f"cannot read video '{path}': {problem}")

    def opened() -> Any:
        # Naming the reader keeps OpenCV from taking "frame_001.jpg" for a sequence of images.
        capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise SourceError(
                f"cannot read video '{path}': no video frames found: "
                "found a file that FFmpeg does not take for a video"
            )
        return capture

    return Capture(opened, name=path.name, kind="file", reconnect=None)


def file_problem(path: Path) -> str | None:
    """Return why a file cannot be read, or None."""
    if not path.exists():
        return "file does not exist"
    if not path.is_file():
        return "found a folder, expected a file"
    if not os.access(path, os.R_OK):
        return "permission denied"
    if path.stat().st_size == 0:
        return "no video frames found: the file is empty"
    return None


def open_camera(number: int) -> Capture:
    """Open a camera by its number; raises SourceError."""
    cv2 = import_cv2("reading a camera")
    device = Path(f"/dev/video{number}")
    if sys.platform == "linux":
        if not device.exists():
            raise SourceError(f"cannot open camera {number}: {describe_cameras()}")
        if not os.access(device, os.R_OK | os.W_OK):
            raise SourceError(
                f"cannot open camera {number}: permission to {device} denied, "
                "expected this user in the group video"
            )

    def opened() -> Any:
        capture = cv2.VideoCapture(number)
        if not capture.isOpened():
            raise SourceError(
                f"cannot open camera {number}: it is in use, or gives no video; "
                f"{describe_cameras()}"
            )
        return capture

    return Capture(opened, name=f"camera {number}", kind="camera", reconnect=None)


def describe_cameras(folder: Path = Path("/dev")) -> str:
    """Return "found /dev/video0, /dev/video1" or that there is none."""
    devices = sorted(folder.glob("video[0-9]*"), key=lambda path: int(path.name[5:]))
    return f"found {', '.join(map(str, devices))}" if devices else "found none (no /dev/video*)"


def open_network(address: str, *, reconnect: Reconnect | None = RECONNECT) -> Capture:
    """Open an rtsp, http … address; the first attempt is the only one. Raises SourceError."""
    cv2 = import_cv2("reading video")
    name = _SECRET.sub("//…@", address)
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, NETWORK_TIMEOUT_MS]
    timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, NETWORK_TIMEOUT_MS]

    def opened() -> Any:
        capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, timeouts)
        if not capture.isOpened():
            raise SourceError(
                f"cannot read video {name}: no video there, or no answer within "
                f"{NETWORK_TIMEOUT_MS / 1000:g} s"
            )
        return capture

    return Capture(opened, name=name, kind="network", reconnect=reconnect)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) and value > 0 else None
