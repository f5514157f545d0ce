"""JPEG files with every defect that has a name."""

import io
import struct
from collections.abc import Iterator, Sequence
from typing import Final

import cv2
from PIL import Image

from .image_parts import (
    HEIGHT,
    UPRIGHT,
    WIDTH,
    Picture,
    bad,
    encode,
    good,
    jpeg,
    noise,
    patched,
    scene,
    segment,
    segments,
    where,
    without,
)

ORIENTATION: Final = 0x0112
ON_ITS_SIDE: Final = (WIDTH, HEIGHT)


def jpeg_headers() -> Iterator[Picture]:
    """Cut at and inside every segment; frame headers that lie."""
    whole = jpeg(progressive=True, exif=_exif(1))
    for number, (marker, start, end) in enumerate(segments(whole)):
        for place, at in (("before", start), ("inside", start + 1), ("at the end of", end - 1)):
            yield bad(f"jpeg cut {place} segment {number} ({marker:02x})", whole[:at])
    plain = jpeg()
    frame = where(plain, 0xC0)
    for name, height, width in (
        ("no rows", 0, WIDTH),
        ("no columns", HEIGHT, 0),
        ("nothing", 0, 0),
    ):
        yield bad(f"jpeg of {name}", patched(plain, frame + 5, struct.pack(">HH", height, width)))
    huge = patched(plain, frame + 5, struct.pack(">HH", 65535, 65535))
    yield bad("jpeg of 65535 x 65535", huge, "image_too_large")
    for name, at, new in (
        ("precision 0", 4, b"\x00"),
        ("precision 12", 4, b"\x0c"),
        ("precision 255", 4, b"\xff"),
        ("no components", 9, b"\x00"),
        ("255 components", 9, b"\xff"),
        ("sampling factor 0", 11, b"\x00"),
        ("sampling factor 15", 11, b"\xff"),
        ("length 0", 2, b"\x00\x00"),
        ("length 2", 2, b"\x00\x02"),
        ("length 65535", 2, b"\xff\xff"),
    ):
        yield bad(f"jpeg frame header with {name}", patched(plain, frame + at, new))
    header = plain[frame : frame + 19]
    yield bad("jpeg with two frame headers", plain[:frame] + header + plain[frame:])
    larger = patched(header, 5, struct.pack(">HH", 60000, 60000))
    yield bad(
        "jpeg whose second frame header is huge", plain[: frame + 19] + larger + plain[frame + 19 :]
    )
    yield bad("jpeg of another process (SOF5)", patched(plain, frame + 1, b"\xc5"))
    yield bad("jpeg that starts twice", plain[:2] + plain)
    yield bad("jpeg without its frame header", without(plain, 0xC0))
    yield bad("jpeg of start and end alone", b"\xff\xd8\xff\xd9")


def jpeg_tables() -> Iterator[Picture]:
    """Quantisation and Huffman tables that are wrong or missing."""
    plain = jpeg()
    huffman, quantisation = where(plain, 0xC4), where(plain, 0xDB)
    yield good("jpeg without its Huffman tables", without(plain, 0xC4))
    yield bad("jpeg without its quantisation tables", without(plain, 0xDB))
    yield bad("jpeg with 255 codes of one bit", patched(plain, huffman + 5, b"\xff"))
    yield bad("jpeg with Huffman table 15", patched(plain, huffman + 4, b"\x0f"))
    yield bad("jpeg with Huffman tables of length 0", patched(plain, huffman + 2, b"\0\0"))
    yield bad("jpeg with Huffman tables cut short", patched(plain, huffman + 2, b"\0\x05"))
    yield bad("jpeg with quantisation table 15", patched(plain, quantisation + 4, b"\x0f"))
    yield good("jpeg of quantisation zero", patched(plain, quantisation + 5, bytes(64)))


def jpeg_scans() -> Iterator[Picture]:
    """Scan headers that lie, entropy-coded data that are damaged or missing."""
    plain = jpeg()
    scan = where(plain, 0xDA)
    data = scan + 14
    for name, at, new in (
        ("no components", 4, b"\x00"),
        ("5 components", 4, b"\x05"),
        ("an unknown component", 5, b"\xee"),
        ("Huffman table 15", 6, b"\xff"),
        ("length 0", 2, b"\x00\x00"),
    ):
        yield bad(f"jpeg scan with {name}", patched(plain, scan + at, new))
    yield good("jpeg scan of noise", plain[:data] + noise(400) + b"\xff\xd9")
    yield good("jpeg scan of zeros", plain[:data] + bytes(400) + b"\xff\xd9")
    yield good("jpeg scan of ones", plain[:data] + b"\xff\x00" * 400 + b"\xff\xd9")
    yield good("jpeg scan that is empty", plain[:data] + b"\xff\xd9")
    yield good("jpeg scan cut short before the end marker", plain[: data + 60] + b"\xff\xd9")
    yield good("jpeg scan with stray bytes after it", plain[:-2] + noise(99) + b"\xff\xd9")
    yield bad("jpeg with no scan", plain[:scan] + b"\xff\xd9")
    steps = jpeg(progressive=True)
    parts = [steps[start:end] for marker, start, end in segments(steps) if marker == 0xDA]
    yield good("jpeg with its first scan twice", steps[:-2] + parts[0] + b"\xff\xd9")
    yield good("jpeg with its scans reversed", _with_scans(steps, parts[::-1]))
    yield good("jpeg with its last scan alone", _with_scans(steps, parts[-1:]))
    yield good("jpeg of 30 scans", _with_scans(steps, parts + parts[-1:] * (30 - len(parts))))
    yield bad("jpeg of 33 scans", _with_scans(steps, parts + parts[-1:] * (33 - len(parts))))


def _with_scans(progressive: bytes, scans: Sequence[bytes]) -> bytes:
    head = progressive[: where(progressive, 0xC4)]
    tables = [progressive[s:e] for marker, s, e in segments(progressive) if marker == 0xC4]
    return head + b"".join(tables) + b"".join(scans) + b"\xff\xd9"


def jpeg_variants() -> Iterator[Picture]:
    """Sound JPEGs of unusual kinds."""
    pixels = scene()[..., ::-1]
    for name, parameters in (
        ("restart markers", [cv2.IMWRITE_JPEG_RST_INTERVAL, 1]),
        ("quality 1", [cv2.IMWRITE_JPEG_QUALITY, 1]),
        ("optimised tables", [cv2.IMWRITE_JPEG_OPTIMIZE, 1]),
        (
            "4:1:1 sampling",
            [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411],
        ),
        (
            "4:4:0 sampling",
            [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440],
        ),
    ):
        yield good(f"jpeg of {name}", cv2.imencode(".jpg", pixels, parameters)[1].tobytes())
    restarts = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_RST_INTERVAL, 1])[1].tobytes()
    for name, new in (
        ("garbage between restarts", b"\xff\xd1" + noise(40)),
        ("a restart out of turn", b"\xff\xd6"),
        ("a restart missing", b""),
    ):
        yield good(f"jpeg with {name}", restarts.replace(b"\xff\xd1", new, 1))
    yield good("jpeg in YCCK", encode("JPEG", mode="CMYK"))
    yield good("jpeg in CMYK, progressive", encode("JPEG", mode="CMYK", progressive=True))
    strange = patched(jpeg(), where(jpeg(), 0xC0) + 10, b"RGB"[0:1])
    yield bad("jpeg whose scan does not know its component", strange)
    thin = io.BytesIO()
    Image.fromarray(scene(width=65_500, height=1), "RGB").save(thin, "JPEG")
    yield good("jpeg of one row and 65500 columns", thin.getvalue(), (1, 65_500))


def jpeg_metadata() -> Iterator[Picture]:
    """EXIF, ICC and comments, whole and broken."""
    for orientation in range(10):
        shape = ON_ITS_SIDE if 5 <= orientation <= 8 else UPRIGHT
        yield good(f"jpeg of orientation {orientation}", jpeg(exif=_exif(orientation)), shape)
    plain = jpeg()
    tiff = b"Exif\0\0MM\0*"
    for name, payload in (
        ("empty EXIF", b""),
        ("EXIF of noise", b"Exif\0\0" + noise(200)),
        ("EXIF whose directory is beyond its end", tiff + b"\xff\xff\xff\xff"),
        ("EXIF whose directory is itself", tiff + b"\0\0\0\0"),
        ("EXIF of 65535 entries", tiff + b"\0\0\0\x08\xff\xff" + bytes(60)),
        ("EXIF whose value is beyond its end", tiff + b"\0\0\0\x08\0\1" + _entry(0x7FFFFFFF)),
        ("EXIF of 1 byte", b"E"),
    ):
        yield good(f"jpeg with {name}", plain[:2] + segment(0xE1, payload) + plain[2:])
    for name, payload in (
        ("an ICC profile of noise", b"ICC_PROFILE\0\1\1" + noise(500)),
        ("ICC part 7 of 3", b"ICC_PROFILE\0\7\3" + noise(50)),
        ("ICC part 0 of 0", b"ICC_PROFILE\0\0\0"),
        ("an Adobe marker of 1 byte", b"A"),
        ("an Adobe marker of transform 255", b"Adobe\0\x64\0\0\0\0\xff"),
    ):
        marker = 0xEE if "Adobe" in name else 0xE2
        yield good(f"jpeg with {name}", plain[:2] + segment(marker, payload) + plain[2:])
    comments = segment(0xFE, b"\xff\xda\xff\xd9" * 8)
    yield bad("jpeg with comments that look like 34 scans", plain[:2] + comments * 5 + plain[2:])
    yield good("jpeg with 900 comments", plain[:2] + segment(0xFE, b"x") * 900 + plain[2:])
    yield bad("jpeg with 1100 comments", plain[:2] + segment(0xFE, b"x") * 1100 + plain[2:])
    yield bad("jpeg with a comment longer than itself", plain[:2] + b"\xff\xfe\xff\xff" + plain[2:])
    yield good("jpeg with a comment of length 0", plain[:2] + b"\xff\xfe\0\0" + plain[2:])
    yield good("jpeg with fill bytes before a marker", plain[:2] + b"\xff" * 50 + plain[2:])


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def _entry(offset: int) -> bytes:
    return struct.pack(">HHII", 0x010F, 2, 1000, offset) + bytes(4)
