"""What the corpus of pictures is made of: a scene, and the parts of JPEG, PNG and WebP files."""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Code = Literal["bad_image", "image_too_large"]
Chunk = tuple[bytes, bytes]
PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
HEIGHT: Final = 24
WIDTH: Final = 40
UPRIGHT: Final = (HEIGHT, WIDTH)


@dataclass(frozen=True)
class Picture:
    """A file, and what the server answers: pixels of this shape, or an error of this code."""

    name: str
    data: bytes
    shape: tuple[int, int] | None = None
    code: Code | None = None


def scene(*, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Return RGB pixels [H, W, 3] that no codec reduces to nothing."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x * y) % 256], axis=-1)
    return pixels.astype(np.uint8)


def encode(kind: str, *, mode: str = "RGB", **options: Any) -> bytes:
    """Return the scene as a file."""
    file = io.BytesIO()
    Image.fromarray(scene(), "RGB").convert(mode).save(file, kind, **options)
    return file.getvalue()


def jpeg(**options: Any) -> bytes:
    """Return the scene as JPEG."""
    return encode("JPEG", **{"quality": 90, **options})


def segments(data: bytes) -> list[tuple[int, int, int]]:
    """Return marker, start and end of each JPEG segment; a scan ends where the next marker is."""
    found: list[tuple[int, int, int]] = []
    at = 2
    while at < len(data) - 1:
        marker, start = data[at + 1], at
        if marker == 0xD9:
            return [*found, (marker, start, at + 2)]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            while data[at] != 0xFF or data[at + 1] == 0 or 0xD0 <= data[at + 1] <= 0xD7:
                at += 1
        found.append((marker, start, at))
    raise AssertionError("found no end of the JPEG image")


def segment(marker: int, payload: bytes) -> bytes:
    """Return one JPEG segment."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload


def patched(data: bytes, at: int, new: bytes) -> bytes:
    """Return the data with some bytes replaced."""
    return data[:at] + new + data[at + len(new) :]


def without(data: bytes, *markers: int) -> bytes:
    """Return a JPEG without its segments of these kinds."""
    return data[:2] + b"".join(
        data[start:end] for marker, start, end in segments(data) if marker not in markers
    )


def where(data: bytes, wanted: int) -> int:
    """Return where the first JPEG segment of a kind starts."""
    return next(start for marker, start, _ in segments(data) if marker == wanted)


def chunk(kind: bytes, payload: bytes) -> bytes:
    """Return one PNG chunk with its checksum."""
    checksum = zlib.crc32(kind + payload)
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", checksum)


def png_of(*chunks: Chunk) -> bytes:
    """Return a PNG of these chunks."""
    return PNG_SIGNATURE + b"".join(chunk(kind, payload) for kind, payload in chunks)


def size(
    width: int = WIDTH,
    height: int = HEIGHT,
    *,
    bits: int = 8,
    colour: int = 2,
    rest: bytes = b"\0\0\0",
) -> Chunk:
    """Return an IHDR chunk."""
    return b"IHDR", struct.pack(">IIBB", width, height, bits, colour) + rest


def rows(pixels: NDArray[Any]) -> bytes:
    """Return PNG rows without a filter, compressed."""
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))


def png(*extra: Chunk) -> bytes:
    """Return the scene as PNG with chunks before its pixels."""
    return png_of(size(), *extra, (b"IDAT", rows(scene())), (b"IEND", b""))


def riff(*chunks: Chunk, size_off_by: int = 0) -> bytes:
    """Return a WebP of these chunks."""
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)
        for kind, payload in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + size_off_by) + body


def webp_chunk(*, lossless: bool) -> Chunk:
    """Return the scene as a WebP's one chunk."""
    data = encode("WEBP", lossless=lossless, quality=80)
    length = int.from_bytes(data[16:20], "little")
    return data[12:16], data[20 : 20 + length]


def extended(*, width: int = WIDTH, height: int = HEIGHT, flags: int = 0) -> Chunk:
    """Return a VP8X chunk."""
    payload = bytes((flags, 0, 0, 0))
    return b"VP8X", payload + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def good(name: str, data: bytes, shape: tuple[int, int] = UPRIGHT) -> Picture:
    """Return a picture that is taken."""
    return Picture(name, data, shape=shape)


def bad(name: str, data: bytes, code: Code = "bad_image") -> Picture:
    """Return a picture that is refused."""
    return Picture(name, data, code=code)


def noise(length: int) -> bytes:
    """Return the same noise each time; no byte is 0xFF, so that no marker is in it."""
    return np.random.default_rng(length).integers(0, 255, length, dtype=np.uint8).tobytes()
