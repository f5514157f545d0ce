"""WebP files with every defect that has a name."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from .image_parts import Picture, bad, extended, good, noise, patched, riff, scene, webp_chunk


def webp_headers() -> Iterator[Picture]:
    """Chunks cut, empty, of wrong lengths or wrong signatures."""
    lossy, lossless = webp_chunk(lossless=False), webp_chunk(lossless=True)
    for name, data in (("lossy", riff(lossy)), ("lossless", riff(lossless))):
        for at in (12, 20, 26, 29, 31, len(data) // 2, len(data) - 1):
            yield bad(f"webp, {name}, cut after {at} bytes", data[:at])
    yield bad("webp of an empty chunk", riff((b"VP8 ", b"")))
    yield bad("webp of a wrong signature", riff((b"VP8 ", patched(lossy[1], 3, b"\0\0\0"))))
    yield bad("webp of a wrong lossless signature", riff((b"VP8L", patched(lossless[1], 0, b"\0"))))
    yield bad("webp of an unknown chunk", riff((b"ABCD", lossy[1])))
    yield bad("webp of no size", riff((b"VP8 ", patched(lossy[1], 6, bytes(4)))))
    yield bad("webp whose size is beyond the file", riff(lossy, size_off_by=1000))
    yield bad("webp whose size is short", riff(lossy, size_off_by=-60))
    yield bad("webp that is no key frame", riff((b"VP8 ", patched(lossy[1], 0, b"\x01"))))
    yield good(
        "webp of zeros after its header", riff((lossy[0], lossy[1][:10] + bytes(len(lossy[1]))))
    )


def webp_variants() -> Iterator[Picture]:
    """Extended files: canvases that lie, animations, metadata."""
    lossy, lossless = webp_chunk(lossless=False), webp_chunk(lossless=True)
    yield good("webp, extended", riff(extended(), lossy))
    yield good("webp, extended, lossless", riff(extended(), lossless))
    yield good("webp with EXIF of noise", riff(extended(flags=8), lossy, (b"EXIF", noise(99))))
    yield good("webp with ICC of noise", riff(extended(flags=32), (b"ICCP", noise(99)), lossy))
    yield bad("webp whose canvas is smaller", riff(extended(width=2, height=2), lossy))
    yield bad("webp whose canvas is larger", riff(extended(width=99, height=99), lossy))
    yield bad("webp of a canvas alone", riff(extended()))
    huge = riff(extended(width=2**24, height=2**24), lossy)
    yield bad("webp of a huge canvas", huge, "image_too_large")
    frames = [Image.fromarray(np.roll(scene(), step, 1), "RGB") for step in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    moving = file.getvalue()
    at = moving.find(b"ANMF") + 8
    yield good(
        "webp whose moving frame is larger", patched(moving, at + 6, b"\xff\x0f\0\xff\x0f\0")
    )
    yield bad(
        "webp whose moving frame is outside", patched(moving, at, b"\xff\xff\xff\xff\xff\xff")
    )
    yield bad(
        "webp of moving frames without pixels",
        riff(extended(flags=2), (b"ANIM", bytes(6)), (b"ANMF", bytes(16))),
    )
    yield bad("webp of no moving frame", riff(extended(flags=2), (b"ANIM", bytes(6))))
