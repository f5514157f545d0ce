"""Format and size of an image from its first bytes. Knows no decoder and allocates nothing.

Walks the headers as the decoders' libraries do, so that both see the same size.
"""

import struct
from dataclasses import dataclass
from typing import Literal

_MOST_SEGMENTS = 1000  # of a JPEG before its size; real ones have under 100
_MOST_CHUNKS = 10_000  # of a PNG; 4 MiB in the usual pieces of 8 KiB have 500
_PNG_END = b"IEND\xaeB`\x82"
_NO_SIZE_IN = (0xC4, 0xC8, 0xCC)  # JPEG markers amid those of frame headers: DHT, JPG, DAC


@dataclass(frozen=True)
class ImageHeader:
    """What a file claims to be; nothing says yet that the rest of it is there."""

    kind: Literal["JPEG", "PNG", "WEBP"]
    width: int
    height: int


def read_header(data: bytes) -> ImageHeader | None:
    """Return what the header claims, None for a file of another kind or without a whole header."""
    if data[:2] == b"\xff\xd8":
        return _read_jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and len(data) >= 24:
        return _read_png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        return _read_webp(data)
    return None


def _read_jpeg(data: bytes) -> ImageHeader | None:
    """Walk the segments to the frame header (ITU T.81, B.2.2)."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        at = data.find(b"\xff", at)
        if at < 0 or at + 9 > len(data):
            return None
        marker = data[at + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # no segment follows
            at += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE_IN:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return ImageHeader("JPEG", width, height)
        if marker in (0xD9, 0xDA):  # the end, or pixels without a frame header
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _read_png(data: bytes) -> ImageHeader | None:
    """Read the size; None where a chunk claims more bytes than follow, in a file that has its end.

    Decoders make room for what a chunk claims: 2 GiB and 8 s for a file of 3 KB.
    """
    header = ImageHeader("PNG", *struct.unpack_from(">II", data, 16))
    if _PNG_END not in data:  # cut short, which is for others to tell
        return header
    at = 8
    for _ in range(_MOST_CHUNKS):
        kind = data[at + 4 : at + 8]
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        if at > len(data):
            return None
        if kind == b"IEND":
            return header
    return None


def _read_webp(data: bytes) -> ImageHeader | None:
    """Read the first chunk: lossy, lossless or extended (RFC 9649, section 2)."""
    match data[12:16]:
        case b"VP8 " if data[23:26] == b"\x9d\x01\x2a":
            width, height = struct.unpack_from("<HH", data, 26)
            return ImageHeader("WEBP", width & 0x3FFF, height & 0x3FFF)
        case b"VP8L" if data[20] == 0x2F:
            bits = int.from_bytes(data[21:25], "little")
            return ImageHeader("WEBP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        case b"VP8X":
            width = int.from_bytes(data[24:27], "little") + 1
            return ImageHeader("WEBP", width, int.from_bytes(data[27:30], "little") + 1)
    return None
