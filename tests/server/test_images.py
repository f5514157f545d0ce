"""What is taken as an image and what is refused, with every refusal's text."""

import contextlib
import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ovoad_server.engine.image_headers import ImageHeader, read_header
from ovoad_server.engine.images import ImageError, decode_image

MAX_PIXELS = 4096 * 4096
ORIENTATION = 0x0112


def gradient(*, width: int = 48, height: int = 32) -> Image.Image:
    """Return a picture that no codec reduces to nothing: red grows to the right, green down."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8), "RGB")


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decode(data: bytes) -> NDArray[np.uint8]:
    return decode_image(data, max_pixels=MAX_PIXELS)


def refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data)
    return caught.value


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


def with_thumbnail(data: bytes) -> bytes:
    """Put a whole small JPEG into an EXIF segment, as cameras do."""
    segment = b"Exif\x00\x00" + encode(gradient(width=16, height=16), "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


# ---- good images -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_three_formats_give_rgb(kind: str) -> None:
    pixels = decode(encode(gradient(), kind, quality=95))
    assert pixels.shape == (32, 48, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(gradient()).astype(int)).mean() < 8


def test_smallest_image_is_one_pixel() -> None:
    pixels = decode(encode(Image.new("RGB", (1, 1), (200, 100, 50)), "PNG"))
    assert pixels.tolist() == [[[200, 100, 50]]]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_dropped(kind: str) -> None:
    image = Image.new("RGBA", (8, 4), (200, 100, 50, 10))
    pixels = decode(encode(image, kind, lossless=True, exact=True))
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() <= 2
    assert pixels.shape == (4, 8, 3)


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "JPEG"), ("L", "PNG"), ("LA", "PNG"), ("1", "PNG")]
)
def test_grey_becomes_three_equal_channels(mode: str, kind: str) -> None:
    pixels = decode(encode(gradient().convert(mode), kind))
    assert pixels.shape == (32, 48, 3)
    assert (pixels == pixels[..., :1]).all()


def test_cmyk_jpeg_becomes_rgb() -> None:
    image = Image.new("RGB", (16, 16), (200, 40, 40)).convert("CMYK")
    red, green, blue = decode(encode(image, "JPEG")).reshape(-1, 3).mean(axis=0)
    assert red > 150
    assert max(green, blue) < 90


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_become_eight(channels: int) -> None:
    deep = np.full((4, 6, channels), 40_000, np.uint16)
    pixels = decode(cv2.imencode(".png", deep)[1].tobytes())
    assert pixels.shape == (4, 6, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - 40_000 // 256).max() <= 1


def test_palette_becomes_rgb() -> None:
    image = Image.new("RGB", (8, 8), (10, 200, 30)).quantize(4)
    assert image.mode == "P"
    assert (decode(encode(image, "PNG")) == (10, 200, 30)).all()


@pytest.mark.parametrize(("orientation", "shape"), [(1, (32, 48)), (3, (32, 48)), (6, (48, 32))])
def test_exif_orientation_is_followed(orientation: int, shape: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    pixels = decode(encode(gradient(), "JPEG", quality=95, exif=exif))
    assert pixels.shape[:2] == shape
    upright = np.rot90(np.asarray(gradient()), {1: 0, 3: 2, 6: -1}[orientation])
    assert np.abs(pixels.astype(int) - upright.astype(int)).mean() < 8


def test_progressive_jpeg_is_an_image() -> None:
    assert decode(encode(gradient(), "JPEG", progressive=True)).shape == (32, 48, 3)


def test_jpeg_with_thumbnail_gives_the_large_picture() -> None:
    assert decode(with_thumbnail(encode(gradient(), "JPEG"))).shape == (32, 48, 3)


def test_bytes_after_the_end_of_an_image_do_no_harm() -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        assert decode(encode(gradient(), kind) + bytes(100)).shape == (32, 48, 3)


def test_animated_webp_gives_its_first_picture() -> None:
    first, second = Image.new("RGB", (16, 8), "red"), Image.new("RGB", (16, 8), "blue")
    data = encode(first, "WEBP", save_all=True, append_images=[second], lossless=True)
    assert (decode(data) == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "exif": Image.Exif(), "comment": b"\xff\xc0" * 9}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\x00\x00x"}),
        ("WEBP", {"save_all": True, "append_images": [Image.new("RGB", (301, 203))]}),
    ],
)
def test_header_tells_format_and_size(kind: Any, options: dict[str, Any]) -> None:
    data = encode(gradient(width=301, height=203), kind, **options)
    assert read_header(data) == ImageHeader(kind, 301, 203)


# ---- refused -----------------------------------------------------------------------------------


def test_no_bytes_are_refused() -> None:
    error = refusal(b"")
    assert (str(error), error.code) == (
        "image has 0 bytes, expected JPEG, PNG or WebP",
        "bad_image",
    )


@pytest.mark.parametrize(
    "data", [b"x", b"hello, I am text", bytes(1000), b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF"]
)
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    error = refusal(data)
    assert str(error) == (
        f"found {len(data)} bytes starting {data[:8]!r}, expected JPEG, PNG or WebP"
    )
    assert error.code == "bad_image"


def test_endless_jpeg_header_is_given_up_early() -> None:
    data = b"\xff\xd8" + b"\xff\x00" * 500_000 + encode(gradient(), "JPEG")[2:]
    assert str(refusal(data)).endswith("expected JPEG, PNG or WebP")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_other_formats_are_refused(kind: str) -> None:
    assert str(refusal(encode(gradient(), kind))).endswith("expected JPEG, PNG or WebP")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_image_cut_short_anywhere_is_refused(kind: str) -> None:
    data = encode(gradient(), kind)
    for size in sorted({1, 2, 8, 12, 20, 40, *range(60, len(data), 37), len(data) - 1}):
        assert refusal(data[:size]).code == "bad_image", size


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_image_without_its_second_half_is_called_truncated(kind: str) -> None:
    data = encode(gradient(width=200, height=200), kind)
    half = data[: len(data) // 2]
    assert str(refusal(half)) == (
        f"{kind} image of {len(half)} bytes is truncated, expected a whole one"
    )


def test_end_of_the_thumbnail_does_not_pass_for_that_of_the_picture() -> None:
    data = with_thumbnail(encode(gradient(width=200, height=200), "JPEG", progressive=True))
    for size in range(700, len(data) - 1, 101):
        assert refusal(data[:size]).code == "bad_image", size


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_damaged_data_are_refused(kind: str) -> None:
    data = bytearray(encode(gradient(), kind, lossless=True))
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    error = refusal(bytes(data))
    assert error.code == "bad_image"
    assert "cannot be decoded" in str(error)


@pytest.mark.parametrize("side", [4097, 10_000, 30_000, 2**31 - 1])
def test_image_that_claims_too_many_pixels_is_refused_undecoded(
    side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("the decoder was called")

    monkeypatch.setattr(cv2, "imdecode", never)
    error = refusal(png_header(side, side))
    assert str(error) == f"image has {side}x{side} pixels, expected at most 16777216 in all"
    assert error.code == "image_too_large"


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_pixels_are_counted_in_each_format(kind: str) -> None:
    data = encode(gradient(), kind)
    with pytest.raises(ImageError, match="image has 48x32 pixels, expected at most 1535 in all"):
        decode_image(data, max_pixels=1535)
    assert decode_image(data, max_pixels=1536).shape == (32, 48, 3)


def test_png_that_claims_more_than_it_holds_is_refused() -> None:
    assert refusal(png_header(4096, 4096)).code == "bad_image"


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_image_without_pixels_is_refused(size: tuple[int, int]) -> None:
    assert refusal(png_header(*size)).code == "bad_image"


# ---- anything ----------------------------------------------------------------------------------

GOOD = [
    with_thumbnail(encode(gradient(), "JPEG")),
    encode(gradient(), "JPEG", exif=Image.Exif(), progressive=True),
    encode(gradient(), "PNG"),
    encode(gradient(), "WEBP"),
    encode(gradient(), "WEBP", lossless=True, exif=Image.Exif()),
]


@settings(max_examples=300, deadline=None)
@given(
    base=st.sampled_from(GOOD),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=6)), max_size=5),
    keep=st.floats(0, 1),
    cut=st.booleans(),
)
def test_whatever_the_bytes_the_answer_is_pixels_or_image_error(
    base: bytes, changes: list[tuple[float, bytes]], keep: float, cut: bool
) -> None:
    data = bytearray(base)
    for place, new in changes:
        start = int(place * len(data))
        data[start : start + len(new)] = new
    taken = bytes(data[: int(keep * len(data))] if cut else data)
    with contextlib.suppress(ImageError):
        pixels = decode(taken)
        assert pixels.dtype == np.uint8
        header = read_header(taken)
        assert header is not None
        height, width, channels = pixels.shape
        assert channels == 3
        assert sorted((height, width)) == sorted((header.height, header.width))


def test_a_picture_of_very_many_scans_is_refused_before_it_is_decoded() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    picture = cv2.imencode(".jpg", pixels, progressive)[1].tobytes()
    decode_image(picture, max_pixels=10_000)
    last = picture[picture.rfind(b"\xff\xda") : -2]
    bomb = picture[:-2] + last * 1000 + picture[-2:]
    with pytest.raises(ImageError, match=r"JPEG image has 10\d\d scans, expected at most 32"):
        decode_image(bomb, max_pixels=10_000)
