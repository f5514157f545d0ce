"""Tests of cutting a stream of bytes into JPEG pictures."""

from __future__ import annotations

import itertools
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovoad_client import jpegs
from ovoad_client.jpegs import JpegSplitter


def picture(shade: int, size: int = 24, *, progressive: bool = False) -> bytes:
    """Return a JPEG of noise, so that every kind of byte is in it."""
    pixels = np.random.default_rng(shade).integers(0, 255, (size, size, 3), np.uint8)
    flags = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive), cv2.IMWRITE_JPEG_RST_INTERVAL, 1]
    return cv2.imencode(".jpg", pixels, flags)[1].tobytes()


def with_thumbnail(image: bytes) -> bytes:
    """Return a JPEG with another one inside a segment, as cameras write them."""
    inner = b"Exif\0\0" + picture(9, 8)
    return image[:2] + b"\xff\xe1" + struct.pack(">H", len(inner) + 2) + inner + image[2:]


PICTURES = [picture(1), picture(2, progressive=True), with_thumbnail(picture(3)), picture(4, 100)]


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=20))
def test_pictures_come_whole_however_the_bytes_are_cut(sizes: list[int]) -> None:
    stream = b"--part\r\nContent-Type: image/jpeg\r\n\r\n".join(PICTURES)
    splitter = JpegSplitter()
    found: list[bytes] = []
    for size in itertools.cycle(sizes):
        found += splitter.feed(stream[:size])
        stream = stream[size:]
        if not stream:
            break
    assert found == PICTURES


def test_pictures_come_byte_by_byte() -> None:
    splitter = JpegSplitter()
    found = [image for byte in b"".join(PICTURES) for image in splitter.feed(bytes([byte]))]
    assert found == PICTURES


def test_a_broken_picture_is_passed_over() -> None:
    broken = PICTURES[0][:2] + b"\xff\xe0\x00\x04xxyyyyy"
    assert JpegSplitter().feed(broken + PICTURES[1]) == [PICTURES[1]]


@given(st.binary(max_size=300))
def test_anything_may_come(data: bytes) -> None:
    splitter = JpegSplitter()
    for part in (data, b"\xff\xd8\xff", data, b"\xff\xd9"):
        splitter.feed(part)


def test_what_is_no_picture_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpegs, "MAX_PICTURE_BYTES", 10_000)
    splitter = JpegSplitter()
    scan = b"\xff\xd8\xff\xda\x00\x04xx"  # a scan that never ends
    for _ in range(100):
        assert splitter.feed(scan + b"y" * 3000) == []
        assert len(splitter._data) < 15_000
    splitter.feed(b"z" * 20_000)
    assert splitter.feed(PICTURES[0]) == [PICTURES[0]]
