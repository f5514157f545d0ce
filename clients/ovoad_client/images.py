"""Shrink, encode and decode single pictures with OpenCV. Knows no source."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ovoad_client.errors import MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

JPEG_QUALITY: Final = 85
DEFAULT_MAX_SIDE: Final = 640


@dataclass(frozen=True)
class SourceFrame:
    """One frame as it is sent: its own time in the source and its JPEG bytes."""

    timestamp_ms: int
    jpeg: bytes


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


def decode_image(data: bytes) -> "NDArray[np.uint8] | None":
    """Return a picture as [H, W, 3] BGR, or None where the bytes are none."""
    cv2 = import_cv2("decoding pictures")
    import numpy as np

    if not data:
        return None
    image: NDArray[np.uint8] | None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # e.g. a head that tells of more pixels than it takes
        return None
    return image


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
        raise MissingExtraError(what, module=error.name or "cv2", extra="watch") from error
    return cv2
