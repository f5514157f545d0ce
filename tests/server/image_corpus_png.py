"""PNG files with every defect that has a name."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from .image_parts import (
    HEIGHT,
    WIDTH,
    Picture,
    bad,
    good,
    noise,
    patched,
    png,
    png_of,
    rows,
    scene,
    size,
)


def png_headers() -> Iterator[Picture]:
    """IHDR chunks that lie."""
    pixels, end = (b"IDAT", rows(scene())), (b"IEND", b"")
    for name, header in (
        ("bit depth 3", size(bits=3)),
        ("bit depth 0", size(bits=0)),
        ("colour type 1", size(colour=1)),
        ("colour type 255", size(colour=255)),
        ("palette of 16 bits", size(bits=16, colour=3)),
        ("compression 9", size(rest=b"\x09\0\0")),
        ("filter 9", size(rest=b"\0\x09\0")),
        ("interlacing 9", size(rest=b"\0\0\x09")),
        ("no columns", size(width=0)),
        ("no rows", size(height=0)),
        ("a header too short", (b"IHDR", size()[1][:-1])),
        ("a header too long", (b"IHDR", size()[1] + b"\0")),
        ("more rows than there are", size(height=HEIGHT * 9)),
    ):
        yield bad(f"png with {name}", png_of(header, pixels, end))
    for name, width, height in (("columns", 2**31, 1), ("rows", 1, 2**32 - 1)):
        header = size(width, height)
        yield bad(f"png of too many {name}", png_of(header, pixels, end), "image_too_large")
    yield bad("png without its header", png_of(pixels, end))
    yield bad("png with its header second", png_of((b"tEXt", b"a\0b"), size(), pixels, end))
    yield bad("png with two headers", png_of(size(), size(width=2), pixels, end))
    yield bad("png header with a wrong checksum", patched(png(), 29, b"\0\0\0\0"))
    yield good(
        "png with fewer rows told than there are", png_of(size(height=5), pixels, end), (5, WIDTH)
    )


def png_chunks() -> Iterator[Picture]:
    """Chunks cut, missing, wrong, in another order, or of absurd lengths."""
    whole = png()
    at = 8
    while at < len(whole):
        length = int.from_bytes(whole[at : at + 4], "big")
        for place, cut in (
            ("before", at),
            ("inside", at + 9),
            ("in the checksum of", at + length + 11),
        ):
            yield bad(f"png cut {place} {whole[at + 4 : at + 8].decode()}", whole[:cut])
        yield bad(
            f"png with {whole[at + 4 : at + 8].decode()} of 2 GiB",
            patched(whole, at, b"\x7f\xff\xff\xff"),
        )
        at += length + 12
    yield bad("png without pixels", png_of(size(), (b"IEND", b"")))
    yield bad("png of an empty IDAT", png_of(size(), (b"IDAT", b""), (b"IEND", b"")))
    yield bad("png with an unknown critical chunk", png((b"ABCD", b"x")))
    yield good("png with an unknown chunk", png((b"abCd", b"x")))
    yield good("png with 900 comments", png(*[(b"tEXt", b"a\0b")] * 900))
    pixels = rows(scene())
    pieces = [(b"IDAT", pixels[start : start + 1]) for start in range(len(pixels))]
    yield good("png of one-byte IDATs", png_of(size(), *pieces, (b"IEND", b"")))
    halves = (b"IDAT", pixels[:50]), (b"tEXt", b"a\0b"), (b"IDAT", pixels[50:])
    yield bad("png with a comment amid its pixels", png_of(size(), *halves, (b"IEND", b"")))
    for name, kind, payload in (
        ("an ICC profile of noise", b"iCCP", b"x\0\0" + zlib.compress(noise(300))),
        ("an ICC profile that is no deflate", b"iCCP", b"x\0\0" + noise(300)),
        ("a gamma of 0", b"gAMA", bytes(4)),
        ("chromaticities of noise", b"cHRM", noise(32)),
        ("EXIF of noise", b"eXIf", noise(200)),
        ("a background beyond the palette", b"bKGD", b"\xff" * 6),
        ("a transparent colour cut short", b"tRNS", b"\xff"),
        ("a time of 99 o'clock", b"tIME", b"\xff" * 7),
    ):
        yield good(f"png with {name}", png((kind, payload)))


def png_pixels() -> Iterator[Picture]:
    """Pixel data that are wrong: deflate, filters, checksums, palettes."""
    end = (b"IEND", b"")
    packed = rows(scene())
    yield bad("png of pixels that are no deflate", png_of(size(), (b"IDAT", noise(300)), end))
    yield bad("png of deflate cut short", png_of(size(), (b"IDAT", packed[:-30]), end))
    yield bad("png of a wrong IDAT checksum", patched(png(), len(png()) - 16, b"\0\0\0\0"))
    yield good(
        "png with noise after its deflate", png_of(size(), (b"IDAT", packed + noise(50)), end)
    )
    wrong_sum = packed[:-4] + b"\0\0\0\0"
    yield bad("png of a wrong deflate checksum", png_of(size(), (b"IDAT", wrong_sum), end))
    filtered = zlib.compress(b"".join(b"\x07" + row.tobytes() for row in scene()))
    yield bad("png with row filter 7", png_of(size(), (b"IDAT", filtered), end))
    index = np.full((HEIGHT, WIDTH), 250, np.uint8)
    flat = size(colour=3), (b"PLTE", bytes(9)), (b"IDAT", rows(index)), end
    yield good("png with indices beyond the palette", png_of(*flat))
    yield bad("png of indices without a palette", png_of(flat[0], *flat[2:]))
    yield bad("png of a palette of 8 bytes", png_of(flat[0], (b"PLTE", bytes(8)), *flat[2:]))
    yield bad("png of an empty palette", png_of(flat[0], (b"PLTE", b""), *flat[2:]))
    yield bad("png of 300 palette entries", png_of(flat[0], (b"PLTE", bytes(900)), *flat[2:]))


def png_variants() -> Iterator[Picture]:
    """Sound PNGs of unusual kinds."""
    end = (b"IEND", b"")
    for bits in (1, 2, 4):
        grey = np.zeros((HEIGHT, WIDTH * bits // 8), np.uint8)
        yield good(
            f"png of {bits} bits", png_of(size(bits=bits, colour=0), (b"IDAT", rows(grey)), end)
        )
    deep = scene().astype(">u2") * 257
    yield good("png of 16 bits", png_of(size(bits=16), (b"IDAT", rows(deep)), end))
    alpha = np.zeros((HEIGHT, WIDTH, 4), ">u2")
    yield good(
        "png of 16 bits, all transparent",
        png_of(size(bits=16, colour=6), (b"IDAT", rows(alpha)), end),
    )
    yield good("png interlaced", png_of(size(rest=b"\0\0\1"), (b"IDAT", _interlaced()), end))
    yield bad(
        "png interlaced, its last pass missing",
        png_of(size(rest=b"\0\0\1"), (b"IDAT", _interlaced(passes=6)), end),
    )
    still = png((b"acTL", struct.pack(">II", 2, 0)))
    yield good("png that says it moves and does not", still)
    for name, control in (
        ("larger than the picture", struct.pack(">IIIIIHHBB", 0, 9999, 9999, 0, 0, 1, 1, 0, 0)),
        ("cut short", b"\0\0"),
        ("outside", struct.pack(">IIIIIHHBB", 0, 5, 5, 2**31, 2**31, 1, 1, 9, 9)),
    ):
        yield bad(
            f"png with a moving frame {name}",
            png((b"acTL", struct.pack(">II", 2, 0)), (b"fcTL", control)),
        )

    nothing = b"fcTL", struct.pack(">IIIIIHHBB", 0, 0, 0, 0, 0, 1, 1, 0, 0)
    yield good(
        "png with a moving frame of nothing", png((b"acTL", struct.pack(">II", 2, 0)), nothing)
    )


def _interlaced(*, passes: int = 7) -> bytes:
    pixels, starts = scene(), ((0, 0), (0, 4), (4, 0), (0, 2), (2, 0), (0, 1), (1, 0))
    steps = ((8, 8), (8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (2, 1))
    data = b""
    for (y, x), (down, right) in list(zip(starts, steps, strict=True))[:passes]:
        data += b"".join(b"\0" + row.tobytes() for row in pixels[y::down, x::right])
    return zlib.compress(data)
