"""Take pictures of the screen or a part of it. Knows no server; needs mss."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal

from ovoad_client.errors import MissingExtraError, SourceError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCREEN: Final = re.compile(r"^screen(?::(?P<part>.*))?$")
SCREEN_FPS: Final = 10.0
_REGION: Final = re.compile(r"(\d+),(\d+),(\d+)x(\d+)")
Region = dict[str, int]  # as mss has it: left, top, width, height


class Screen:
    """A monitor, or a region of all monitors together, `fps` times a second; it never ends."""

    kind: Literal["screen"] = "screen"
    live = True
    may_end = False

    def __init__(self, part: str | None, *, fps: float = SCREEN_FPS) -> None:
        self._mss = import_mss()
        self._stopped = threading.Event()
        self._image: NDArray[np.uint8] | None = None
        with _opened(self._mss) as screen:
            self._region = find_region(part, screen.monitors)
        self.name = "screen" if part is None else f"screen {part}"
        self.tell: Callable[[str], None] | None = None
        self.width, self.height = self._region["width"], self._region["height"]
        self.fps: float | None = fps
        self.frame_count: int | None = None
        self.duration_ms: float | None = None

    def grab(self) -> Iterator[int]:
        """Take a picture at each step, yielding its time in milliseconds, the first at 0."""
        import numpy as np

        assert self.fps is not None
        start_s = time.monotonic()
        last_ms = -1
        with _opened(self._mss) as screen:
            while not self._stopped.is_set():
                shot = np.asarray(_grabbed(self._mss, screen, self._region), dtype=np.uint8)
                self._image = np.ascontiguousarray(shot[:, :, :3])  # BGRA without alpha
                last_ms = max(last_ms + 1, round((time.monotonic() - start_s) * 1000))
                yield last_ms
                due_s = start_s + last_ms / 1000 + 1 / self.fps
                self._stopped.wait(max(0.0, due_s - time.monotonic()))

    def retrieve(self) -> "NDArray[np.uint8] | None":
        """Return the last picture: [H, W, 3] BGR."""
        return self._image

    def stop(self) -> None:
        """Take no more pictures; may be called from any thread."""
        self._stopped.set()

    def close(self) -> None:
        """The screen is given back at the end of grab."""


def find_region(part: str | None, monitors: list[Region]) -> Region:
    """Return what to take: "1" is the first monitor, "X,Y,WIDTHxHEIGHT" a part, None all of it.

    monitors: as mss lists them, the first being all together. Raises UsageError.
    """
    if part is None:
        return monitors[0]
    if part.isdecimal():
        if not 1 <= int(part) < len(monitors):
            raise UsageError(
                f"found screen:{part}, expected a monitor from 1 to {len(monitors) - 1}"
            )
        return monitors[int(part)]
    found = _REGION.fullmatch(part)
    if found is None:
        raise UsageError(f"found screen:{part}, expected screen:1 or screen:X,Y,WIDTHxHEIGHT")
    left, top, width, height = map(int, found.groups())
    whole = monitors[0]
    if width == 0 or height == 0 or left + width > whole["width"] or top + height > whole["height"]:
        size = f"{whole['width']}x{whole['height']}"
        raise UsageError(f"found screen:{part}, expected a part of the {size} pixels")
    return {
        "left": whole["left"] + left,
        "top": whole["top"] + top,
        "width": width,
        "height": height,
    }


def import_mss() -> Any:
    """Import mss; raises MissingExtraError."""
    try:
        import mss
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "taking pictures of the screen", module=error.name or "mss", extra="screen"
        ) from error
    return mss


def _opened(mss: Any) -> Any:
    """Open the screen; mss is used in the thread that opened it."""
    try:
        return mss.MSS()
    except (mss.ScreenShotError, OSError) as error:
        raise _problem(error) from error


def _grabbed(mss: Any, screen: Any, region: Region) -> Any:
    try:
        return screen.grab(region)
    except (mss.ScreenShotError, OSError) as error:  # e.g. the display has gone
        raise _problem(error) from error


def _problem(error: Exception) -> SourceError:
    return SourceError(f"cannot take pictures of the screen: {str(error).lower()}")
