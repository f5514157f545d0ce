"""Pixels on their way to the worker without an image file around them. Knows no decoder."""

import struct
from typing import Final

import numpy as np

from ovoad_server.engine.interface import Frame

_HEAD: Final = struct.Struct("<II")


class RawImage(bytes):
    """Pixels that the server has decoded itself: height and width, then RGB [H, W, 3].

    A kind of bytes, so that it goes wherever image files go, and a type of its own, so that no
    client's bytes are taken for one. A PNG instead costs more than the encoder
    (benchmarks/clip_cost.py).
    """

    @staticmethod
    def head(height: int, width: int) -> bytes:
        """Return what comes before the pixels."""
        return _HEAD.pack(height, width)

    def pixels(self) -> Frame:
        """Return the pixels [H, W, 3] as an array of their own."""
        height, width = _HEAD.unpack_from(self)
        flat = np.frombuffer(self, np.uint8, offset=_HEAD.size)
        return flat.reshape(height, width, 3).copy()
