"""From image bytes to pixels, with the header read before anything is decoded.

Knows no session.
"""

from typing import Final

import cv2
import numpy as np

from ovoad_server.engine.image_headers import ImageHeader, read_header
from ovoad_server.engine.interface import Frame
from ovoad_server.engine.raw_image import RawImage
from ovoad_server.engine.reduction import reduction

MAX_SCANS: Final = 32
"""Of a progressive JPEG: encoders write about ten, and each costs a pass over all pixels."""
_SCAN: Final = b"\xff\xda"
_REDUCED: Final = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
}
"""By what a JPEG decoder divides both sides while it decodes; what is left is BGR."""


class ImageError(Exception):
    """Bytes that are not an image this server takes; `code` is the wire's error code."""

    def __init__(self, message: str, *, code: str = "bad_image") -> None:
        super().__init__(message)
        self.code = code


def decode_image(data: bytes, *, max_pixels: int, least_side: int = 0) -> Frame:
    """Decode JPEG, PNG or WebP bytes into RGB uint8 [H, W, 3].

    Grey, alpha, CMYK and 16-bit images are converted; alpha is dropped. `least_side` lets a JPEG
    come at 1/2, 1/4 or 1/8 of its size, the smallest whose shorter side has that many pixels; 0 is
    the whole size. Scaled on to that side it shows the same in less time
    (benchmarks/decode_speed.py). Raises ImageError for anything else, for truncated files, and
    before decoding for more than `max_pixels`.
    """
    if isinstance(data, RawImage):
        return data.pixels()
    if not data:
        raise ImageError("image has 0 bytes, expected JPEG, PNG or WebP")
    header = read_header(data)
    if header is None:
        raise ImageError(
            f"found {len(data)} bytes starting {data[:8]!r}, expected JPEG, PNG or WebP"
        )
    if header.width * header.height > max_pixels:
        raise ImageError(
            f"image has {header.width}x{header.height} pixels, "
            f"expected at most {max_pixels} in all",
            code="image_too_large",
        )
    kind = header.kind
    scans = data.count(_SCAN) if kind == "JPEG" else 0
    if scans > MAX_SCANS:
        raise ImageError(f"JPEG image has {scans} scans, expected at most {MAX_SCANS}")
    if not _is_complete(data, kind):
        raise ImageError(f"{kind} image of {len(data)} bytes is truncated, expected a whole one")
    try:
        pixels = _decode(data, header, least_side)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ImageError(
            f"{kind} image of {len(data)} bytes cannot be decoded, its data are damaged"
        )
    return pixels


def _decode(data: bytes, header: ImageHeader, least_side: int) -> Frame | None:
    """Call the decoder; None for damaged data."""
    reduced = _reduction(header, least_side)
    flag = cv2.IMREAD_COLOR_RGB if reduced is None else reduced
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    if pixels is None:
        return None
    if reduced is not None:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return np.asarray(pixels, np.uint8)


def _reduction(header: ImageHeader, least_side: int) -> int | None:
    """Choose the flag of the smallest size that leaves `least_side`; None for the whole size."""
    if header.kind != "JPEG":
        return None
    return _REDUCED.get(reduction(header.width, header.height, least_side=least_side))


def _is_complete(data: bytes, kind: str) -> bool:
    """Tell whether the file's end is there; decoders fill a missing rest with grey."""
    if kind == "JPEG":  # neither marker can occur inside entropy-coded data
        return data.rfind(b"\xff\xd9") > data.rfind(_SCAN)
    if kind == "PNG":
        return data.rfind(b"IEND\xaeB`\x82") > 0
    return len(data) >= int.from_bytes(data[4:8], "little") + 8
