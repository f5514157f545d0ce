"""Small pictures to send, made with the standard library alone, and pictures that are none."""

import base64
import struct
import zlib
from typing import Final

JPEG: Final = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABQODxIPDRQSEBIXFRQYHjIhHhwcHj0sLiQySUBMS0dARkVQWnNiUFVt"
    "VkVGZIhlbXd7gYKBTmCNl4x9lnN+gXz/2wBDARUXFx4aHjshITt8U0ZTfHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8"
    "fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHz/wAARCAAYACADASIAAhEBAxEB/8QAGAAAAwEBAAAAAAAAAAAAAAAA"
    "AAEFAgT/xAAXEAADAQAAAAAAAAAAAAAAAAAAAQNh/8QAFwEBAQEBAAAAAAAAAAAAAAAABQQDBv/EABcRAQEBAQAA"
    "AAAAAAAAAAAAAAMAAQL/2gAMAwEAAhEDEQA/AOFxwTjhSccE44RAs8jU1xwy44UnHBOODILQI1VccE44AHLh1tmn"
    "W2XHBOOAAyHWx6dbf//Z"
)
WEBP: Final = base64.b64decode(
    "UklGRnQAAABXRUJQVlA4IGgAAABQBACdASogABgAPvFkplAppaOit+gBMB4JbACdMoR45zKFb3xmbYD5iekAAP6h"
    "sfDPyfc7iRTm4fKjN/8lefEdlaYXCsIiTgnFQry4GvD/q31X+n/5t+dtolnxearwlnHfM3wWJ4AAAA=="
)
NO_PICTURE: Final = b"these bytes are no picture at all"


def png(seed: int = 0, *, side: int = 32) -> bytes:
    """Return a PNG of side x side pixels whose colours depend on `seed`."""
    rows = b"".join(
        b"\0"
        + bytes((40 * seed + 7 * x * (c + 1) + 3 * y) % 256 for x in range(side) for c in (0, 1, 2))
        for y in range(side)
    )
    return _png(side, side, zlib.compress(rows))


def vast_png(side: int) -> bytes:
    """Return a PNG whose header claims side x side pixels, and that holds none of them."""
    return _png(side, side, zlib.compress(b"\0"))


def _png(width: int, height: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
