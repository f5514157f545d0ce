"""Find and open what a SOURCE names, and read it frame by frame.

Knows no server. Reading blocks; `reading.py` runs it in a thread.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from ovoad_client.captures import (
    ADDRESS,
    RECONNECT,
    describe_cameras,
    open_camera,
    open_file,
    open_network,
)
from ovoad_client.errors import SourceError, UsageError
from ovoad_client.images import (
    DEFAULT_MAX_SIDE,
    JPEG_QUALITY,
    SourceFrame,
    encode_jpeg,
    import_cv2,
    sent_size,
)
from ovoad_client.pictures import FOLDER_FPS, PictureFolder, open_standard_input
from ovoad_client.reconnecting import Reconnect
from ovoad_client.screen import SCREEN, SCREEN_FPS, Screen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "DEFAULT_MAX_SIDE",
    "JPEG_QUALITY",
    "STANDARD_INPUT",
    "SourceFrame",
    "VideoSource",
    "describe_cameras",
    "encode_jpeg",
    "import_cv2",
    "open_source",
    "read_frames",
    "sent_size",
]

Kind = Literal["file", "camera", "network", "folder", "pipe", "screen"]
STANDARD_INPUT: Final = "-"


class VideoSource(Protocol):
    """An open source. `live` ones give frames when they happen, others when asked.

    name is fit to be shown (passwords hidden); width and height are the source's own pixels;
    duration_ms and frame_count are None where the source has no known end; may_end tells that an
    end is no failure. What the source has to tell a person meanwhile goes to `tell`, from whatever
    thread reads it.
    """

    name: str
    width: int
    height: int
    fps: float | None
    frame_count: int | None
    duration_ms: float | None
    tell: Callable[[str], None] | None

    @property
    def kind(self) -> Kind: ...
    @property
    def live(self) -> bool: ...
    @property
    def may_end(self) -> bool: ...

    def grab(self) -> Iterator[int]:
        """Step through the frames, yielding the time of each in milliseconds, the first at 0."""
        ...

    def retrieve(self) -> "NDArray[np.uint8] | None":
        """Decode the frame grabbed last: [H, W, 3] BGR, or None where it does not decode."""
        ...

    def stop(self) -> None:
        """End whatever grab() waits for; may be called from any thread."""
        ...

    def close(self) -> None:
        """Give the device or file back."""
        ...


def open_source(
    source: str, *, fps: float | None = None, reconnect: Reconnect | None = RECONNECT
) -> VideoSource:
    """Open what SOURCE names; raises SourceError, UsageError, MissingExtraError.

    A file, a folder of pictures, a camera number, an rtsp/http address, "-" for JPEG pictures on
    standard input, "screen", "screen:1" or "screen:X,Y,WIDTHxHEIGHT". fps: of pictures and of the
    screen. reconnect: how a network source that stops is opened again; None: never.
    """
    import_cv2("reading video")
    path = Path(source)
    screen = SCREEN.match(source)
    if source == STANDARD_INPUT:
        return open_standard_input(fps=fps)
    if screen is not None and not path.exists():
        return Screen(screen["part"], fps=fps or SCREEN_FPS)
    if path.is_dir():
        return PictureFolder(path, fps=fps or FOLDER_FPS)
    if fps is not None:
        raise UsageError(f"found --fps with {source}, expected a folder, - or screen")
    if source.isdecimal():
        return open_camera(int(source))
    if ADDRESS.match(source):
        return open_network(source, reconnect=reconnect)
    return open_file(path)


def read_frames(
    source: str, *, max_side: int = DEFAULT_MAX_SIDE, fps: float | None = None
) -> Iterator[SourceFrame]:
    """Open a source and yield its frames as they can be read, shrunk to max_side, as JPEG.

    Raises what `open_source` raises, and SourceError where no frame decodes.
    """
    opened = open_source(source, fps=fps)
    found = False
    try:
        for timestamp_ms in opened.grab():
            image = opened.retrieve()
            if image is not None:
                found = True
                yield SourceFrame(timestamp_ms, encode_jpeg(image, max_side=max_side))
    finally:
        opened.close()
    if not found:
        raise SourceError(f"cannot read video '{opened.name}': no video frames found")
