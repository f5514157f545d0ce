"""Read a folder of pictures, or pictures from standard input. Knows no server."""

import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ovoad_client.errors import SourceError, UsageError, os_reason
from ovoad_client.images import decode_image
from ovoad_client.jpegs import JpegSplitter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENDINGS: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
FOLDER_FPS: Final = 25.0
_READ_BYTES: Final = 1 << 16
_POLL_S: Final = 0.2


class PictureFolder:
    """The pictures of a folder in the order of their names (2 before 10), `fps` a second."""

    kind: Literal["folder"] = "folder"
    live = False
    may_end = True

    def __init__(self, folder: Path, *, fps: float = FOLDER_FPS) -> None:
        self._paths = picture_paths(folder)
        self._current = self._paths[0]
        first = self.retrieve()
        if first is None:
            raise SourceError(f"cannot read picture '{self._current}': found no picture in it")
        self.name = folder.resolve().name
        self.tell: Callable[[str], None] | None = None
        self.height, self.width = first.shape[:2]
        self.fps: float | None = fps
        self.frame_count: int | None = len(self._paths)
        self.duration_ms: float | None = len(self._paths) * 1000 / fps

    def grab(self) -> Iterator[int]:
        """Step through the pictures, yielding the time of each in milliseconds."""
        assert self.fps is not None
        for number, path in enumerate(self._paths):
            self._current = path
            yield round(number * 1000 / self.fps)

    def retrieve(self) -> "NDArray[np.uint8] | None":
        """Decode the current picture: [H, W, 3] BGR, or None where it does not decode."""
        try:
            return decode_image(self._current.read_bytes())
        except OSError as error:
            reason = os_reason(error)
            raise SourceError(f"cannot read picture '{self._current}': {reason}") from error

    def stop(self) -> None:
        """Nothing here waits."""

    def close(self) -> None:
        """Nothing is open."""


def picture_paths(folder: Path) -> list[Path]:
    """Return the pictures of a folder, sorted as people do; raises SourceError where none is."""
    try:
        found = [
            path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file()
        ]
    except OSError as error:
        reason = os_reason(error)
        raise SourceError(f"cannot read folder '{folder}': {reason}") from error
    if not found:
        raise SourceError(
            f"cannot read folder '{folder}': found no pictures, expected names ending in "
            f"{', '.join(ENDINGS)}"
        )
    return sorted(found, key=lambda path: _natural(path.name))


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a key by which picture2 comes before picture10."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


class PictureStream:
    """JPEG pictures one after another on a file descriptor, as `ffmpeg -f mjpeg -` writes them.

    Without fps the pictures bear the time at which they came, and the stream is live; with fps they
    are numbered on at that rate, and the stream is read as a file is.
    """

    kind: Literal["pipe"] = "pipe"
    may_end = True

    def __init__(self, descriptor: int, *, name: str, fps: float | None) -> None:
        self._descriptor = descriptor
        self._splitter = JpegSplitter()
        self._stopped = threading.Event()
        self._ready: list[bytes] = []
        self._current = b""
        self.name = name
        self.tell: Callable[[str], None] | None = None
        self.fps = fps
        self.live = fps is None
        self.frame_count: int | None = None
        self.duration_ms: float | None = None
        first = self._next_picture()
        image = None if first is None else decode_image(first)
        if first is None or image is None:
            raise SourceError(f"cannot read {name}: found no JPEG picture, expected MJPEG")
        self._ready.insert(0, first)
        self.height, self.width = image.shape[:2]

    def grab(self) -> Iterator[int]:
        """Step through the pictures, yielding the time of each in milliseconds, the first at 0."""
        start_s = time.monotonic()
        number, last_ms = 0, -1
        while (picture := self._next_picture()) is not None:
            self._current = picture
            if self.fps is None:
                last_ms = max(last_ms + 1, round((time.monotonic() - start_s) * 1000))
            else:
                last_ms = round(number * 1000 / self.fps)
            number += 1
            yield last_ms

    def retrieve(self) -> "NDArray[np.uint8] | None":
        """Decode the current picture: [H, W, 3] BGR, or None where it does not decode."""
        return decode_image(self._current)

    def stop(self) -> None:
        """End the wait for bytes; may be called from any thread."""
        self._stopped.set()

    def close(self) -> None:
        """Standard input is left to whoever opened it."""

    def _next_picture(self) -> bytes | None:
        while not self._ready:
            if self._stopped.is_set():
                return None
            readable, _, _ = select.select([self._descriptor], [], [], _POLL_S)
            if readable:
                data = os.read(self._descriptor, _READ_BYTES)
                if not data:
                    return None
                self._ready += self._splitter.feed(data)
        return self._ready.pop(0)


def open_standard_input(*, fps: float | None) -> PictureStream:
    """Read MJPEG from standard input; raises UsageError at a terminal, SourceError."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "found a terminal as standard input, expected JPEG pictures: "
            "ffmpeg -i VIDEO -f mjpeg - | ovoad watch - …"
        )
    return PictureStream(sys.stdin.fileno(), name="standard input", fps=fps)
