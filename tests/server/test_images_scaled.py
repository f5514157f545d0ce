"""JPEG at reduced scale: how small it comes, and that it shows what the whole picture shows."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ovoad_server.engine.images import ImageError, decode_image

ORIENTATION = 0x0112
MAX_PIXELS = 4096 * 4096
Pixels = NDArray[np.uint8]


def picture(width: int = 640, height: int = 360) -> Image.Image:
    """Return a picture with no two corners alike: red grows right, green down, blue to neither."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 40)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8), "RGB")


def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decode(data: bytes, *, least_side: int) -> Pixels:
    return decode_image(data, max_pixels=MAX_PIXELS, least_side=least_side)


def thumbnail(pixels: Pixels) -> NDArray[np.int16]:
    """Shrink to 16 x 16 to compare pictures of different sizes."""
    small = Image.fromarray(pixels).resize((16, 16), Image.Resampling.BOX)
    return np.asarray(small, np.int16)


def difference(reduced: Pixels, whole: Pixels) -> int:
    """Return the largest difference of any value of the thumbnails."""
    return int(np.abs(thumbnail(reduced) - thumbnail(whole)).max())


@pytest.mark.parametrize(
    ("least_side", "shape"),
    [
        (0, (360, 640)),
        (181, (360, 640)),
        (180, (180, 320)),
        (91, (180, 320)),
        (90, (90, 160)),
        (46, (90, 160)),
        (45, (45, 80)),
        (1, (45, 80)),
        (1000, (360, 640)),
    ],
)
def test_the_smallest_scale_that_leaves_the_least_side_is_taken(
    least_side: int, shape: tuple[int, int]
) -> None:
    assert decode(encode(picture()), least_side=least_side).shape == (*shape, 3)


def test_without_a_least_side_the_picture_comes_whole() -> None:
    assert decode_image(encode(picture()), max_pixels=MAX_PIXELS).shape == (360, 640, 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_other_formats_come_whole(kind: str) -> None:
    assert decode(encode(picture(), kind), least_side=45).shape == (360, 640, 3)


@pytest.mark.parametrize("least_side", [180, 90, 45])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_reduced_shows_the_same_in_rgb(least_side: int, options: dict[str, Any]) -> None:
    data = encode(picture(), quality=90, **options)
    reduced = decode(data, least_side=least_side)
    assert difference(reduced, decode(data, least_side=0)) <= 3
    assert abs(int(reduced[0, -1, 0]) - 255) < 8  # the upper right corner is red


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_followed(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(picture(), quality=90, exif=exif)
    reduced = decode(data, least_side=90)
    assert reduced.shape == ((160, 90, 3) if orientation >= 5 else (90, 160, 3))
    assert difference(reduced, decode(data, least_side=0)) <= 3


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_become_rgb(mode: str) -> None:
    data = encode(picture().convert(mode), quality=90)
    reduced = decode(data, least_side=90)
    assert reduced.shape == (90, 160, 3)
    assert difference(reduced, decode(data, least_side=0)) <= 3
    if mode == "L":
        assert (reduced == reduced[..., :1]).all()


def test_pixels_are_counted_before_the_picture_is_reduced() -> None:
    with pytest.raises(ImageError, match="image has 640x360 pixels, expected at most 230399"):
        decode_image(encode(picture()), max_pixels=640 * 360 - 1, least_side=45)


def test_truncated_pictures_are_refused_when_reduced() -> None:
    data = encode(picture())
    for size in range(0, len(data) - 1, 97):
        with pytest.raises(ImageError):
            decode(data[:size], least_side=45)


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    least_side=st.integers(1, 80),
    subsampling=st.integers(0, 2),
)
def test_of_any_size_the_short_side_is_at_least_that_of_the_wish_or_the_picture(
    width: int, height: int, least_side: int, subsampling: int
) -> None:
    data = encode(picture(width, height), subsampling=subsampling)
    pixels = decode(data, least_side=least_side)
    assert min(pixels.shape[:2]) >= min(least_side, width, height)
    assert max(pixels.shape[:2]) <= max(width, height)
    assert pixels.dtype == np.uint8
