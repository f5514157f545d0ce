"""Pictures with every defect that has a name, made by code. Knows no server and no decoder.

Each has the answer that the server owes it: `shape` [H, W] of the pixels, or the wire's error code.
Nothing here repeats what test_images.py asks one by one.
"""

import base64
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import cv2
from PIL import Image

from .image_corpus_jpeg import jpeg_headers, jpeg_metadata, jpeg_scans, jpeg_tables, jpeg_variants
from .image_corpus_png import png_chunks, png_headers, png_pixels, png_variants
from .image_corpus_webp import webp_headers, webp_variants
from .image_parts import (
    PNG_SIGNATURE,
    Picture,
    bad,
    encode,
    good,
    jpeg,
    noise,
    png,
    png_of,
    riff,
    scene,
    size,
    webp_chunk,
)

MAX_PIXELS: Final = 4096 * 4096


def corpus() -> list[Picture]:
    """Return all pictures; the same bytes each time for one version of the codecs."""
    makers: Sequence[Callable[[], Iterator[Picture]]] = (
        jpeg_headers,
        jpeg_tables,
        jpeg_scans,
        jpeg_variants,
        jpeg_metadata,
        png_headers,
        png_chunks,
        png_pixels,
        png_variants,
        webp_headers,
        webp_variants,
        strangers,
        polyglots,
        bombs,
    )
    return [picture for make in makers for picture in make()]


def strangers() -> Iterator[Picture]:
    """Files of other kinds, whatever their name was."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.jpg", jpeg())
    for name, data in (
        ("gif", encode("GIF", mode="P")),
        ("bmp", encode("BMP")),
        ("tiff", encode("TIFF")),
        ("avif", cv2.imencode(".avif", scene())[1].tobytes()),
        ("jpeg 2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60)),
        ("ppm", encode("PPM")),
        ("ico", encode("ICO")),
        ("svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
        ("html", b"<!doctype html><img src=x onerror=alert(1)>"),
        ("xml bomb", b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "b">]><a>&b;</a>'),
        ("zip", archive.getvalue()),
        ("pdf", b"%PDF-1.7\n1 0 obj\n"),
        ("script", b"#!/bin/sh\necho x\n"),
        ("executable", b"\x7fELF" + bytes(60)),
        ("json", b'{"type": "session.close"}'),
        ("mp4", b"\0\0\0\x18ftypmp42" + bytes(40)),
        ("wave sound", b"RIFF\x24\0\0\0WAVEfmt " + bytes(40)),
        ("utf-16 text", "no picture".encode("utf-16")),
        ("one byte", b"\xff"),
        ("zeros", bytes(5000)),
        ("noise", noise(5000)),
    ):
        yield bad(f"{name} for a picture", data)


def polyglots() -> Iterator[Picture]:
    """One file inside, before or behind another."""
    extra = {"html": b"<script>alert(1)</script>", "zip": b"PK\x03\x04" + bytes(40)}
    whole = {"jpeg": jpeg(), "png": png(), "webp": riff(webp_chunk(lossless=True))}
    for kind, data in whole.items():
        for name, other in {**extra, **whole}.items():
            yield good(f"{kind} with {name} behind it", data + other)
        yield bad(f"{kind} with a line before it", b"\n" + data)
        yield bad(f"{kind} behind a byte order mark", b"\xef\xbb\xbf" + data)
        yield bad(f"{kind} as base64", _as_text(data))
    yield bad("jpeg's start with a png in it", b"\xff\xd8" + png())
    yield bad("png's signature with a jpeg in it", PNG_SIGNATURE + jpeg())
    yield bad("webp's header with a png in it", b"RIFF" + struct.pack("<I", 999) + b"WEBP" + png())


def _as_text(data: bytes) -> bytes:
    return b"data:image/jpeg;base64," + base64.b64encode(data)


def bombs() -> Iterator[Picture]:
    """Small files that claim or unpack to much."""
    end = (b"IEND", b"")
    for side, code in ((4096, None), (4097, "image_too_large")):
        packed = zlib.compress(bytes((side + 1) * side), 9)
        data = png_of(size(side, side, colour=0), (b"IDAT", packed), end)
        shape = (side, side) if code is None else None
        yield Picture(f"png of {side} x {side} zeros", data, shape=shape, code=code)  # type: ignore[arg-type]
    packed = zlib.compress(bytes(2**26), 9)
    yield good(
        "png whose deflate goes on for 64 MiB", png_of(size(2, 2), (b"IDAT", packed), end), (2, 2)
    )
    for kind, payload in (
        (b"zTXt", b"a\0\0" + packed),
        (b"iCCP", b"a\0\0" + packed),
        (b"iTXt", b"a\0\1\0\0\0" + packed),
    ):
        yield good(f"png whose {kind.decode()} unpacks to 64 MiB", png((kind, payload)))
    wide = io.BytesIO()
    Image.new("RGB", (4096, 4096)).save(wide, "JPEG", progressive=True)
    yield good("jpeg of 4096 x 4096, progressive", wide.getvalue(), (4096, 4096))
    flat = riff((b"VP8L", b"\x2f" + struct.pack("<I", 16383 | 1023 << 14) + bytes(40)))
    yield bad("webp of 16384 x 1024 in 45 bytes", flat)
