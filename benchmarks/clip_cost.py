"""What a clip costs beside its scoring: reading it, and bringing its pixels to the worker.

    python benchmarks/clip_cost.py VIDEO [VIDEO …] [--rounds 5]

The first table reads each file to its end on one thread and makes RGB of the frames on a 4 fps
grid: with OpenCV as the server does, and with PyAV (extra `dev`); each in turn, the best round
counts. The second brings one frame of each size through the worker's pipe format and back to
pixels: as it is (`RawImage`), as PNG at its fastest, and as the server does, shrunk before by the
decoder's process to what the default encoder needs; shrinking is told apart.
"""

import argparse
import math
import pickle
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from ovoad_client.bench.result import describe_machine
from ovoad_client.bench.table import markdown
from ovoad_server.clips.sampling import sample_frames, shrink
from ovoad_server.engine.images import decode_image
from ovoad_server.engine.raw_image import RawImage

Pixels = NDArray[np.uint8]
LEAST_SIDE = 260  # of the default encoder's input
SIZES = ((640, 360), (1280, 720), (1920, 1080), (3840, 2160))


def read_with_opencv(path: Path) -> int:
    """Return how many frames are on the grid."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    return sum(1 for _ in sample_frames(capture, fps=4.0, each=lambda time_ms, number: None))


def read_with_pyav(path: Path) -> int:
    """Return how many frames are on the grid, chosen by the same rule."""
    found, kept_cell, kept_distance = 0, -1, 0.0
    kept: av.VideoFrame | None = None
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            time_ms = 1000 * (frame.time or 0.0)
            cell = math.ceil(time_ms / 250 - 0.5)
            distance = abs(time_ms - cell * 250)
            if cell == kept_cell and distance >= kept_distance:
                continue
            if kept is not None and cell != kept_cell:
                kept.to_ndarray(format="rgb24")
                found += 1
            kept, kept_cell, kept_distance = frame, cell, distance
    if kept is not None:
        kept.to_ndarray(format="rgb24")
        found += 1
    return found


def as_it_is(frame: Pixels) -> Pixels:
    """Bring a frame to the worker without compressing it."""
    image = RawImage(RawImage.head(*frame.shape[:2]) + frame.tobytes())
    return decode_image(pickle.loads(pickle.dumps(image, protocol=5)), max_pixels=10**9)


def as_png(frame: Pixels) -> Pixels:
    """Bring a frame to the worker as a PNG whose data are stored, not deflated."""
    image = cv2.imencode(".png", frame[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes()
    return decode_image(pickle.loads(pickle.dumps(image, protocol=5)), max_pixels=10**9)


def best_ms(work: Callable[[], object], rounds: int) -> float:
    """Return the milliseconds of the best of some rounds."""
    times = []
    for _ in range(rounds):
        began_s = time.perf_counter()
        work()
        times.append((time.perf_counter() - began_s) * 1000)
    return min(times)


def main() -> int:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rounds = arguments.rounds
    rows: list[tuple[str, ...]] = []
    for path in arguments.videos:
        count = read_with_opencv(path)
        opencv_ms = best_ms(partial(read_with_opencv, path), rounds)
        pyav_ms = best_ms(partial(read_with_pyav, path), rounds)
        rows.append((path.name, str(count), f"{opencv_ms:.0f}", f"{pyav_ms:.0f}"))
    print(describe_machine())
    print("\n".join(markdown(("file", "frames on the grid", "OpenCV, ms", "PyAV, ms"), rows)))
    rows = []
    generator = np.random.default_rng(0)
    for width, height in SIZES:
        small = generator.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        frame = np.asarray(cv2.resize(small, (width, height)), np.uint8)
        assert np.array_equal(as_it_is(frame), as_png(frame))
        raw_ms = best_ms(partial(as_it_is, frame), rounds)
        png_ms = best_ms(partial(as_png, frame), rounds)
        shrink_ms = best_ms(partial(shrink, frame, least_side=LEAST_SIDE), rounds)
        shrunk = shrink(frame, least_side=LEAST_SIDE)
        shrunk_ms = best_ms(partial(as_it_is, shrunk), rounds)
        cells = (raw_ms, png_ms, shrink_ms, shrunk_ms)
        rows.append((f"{width}x{height}", *(f"{ms:.1f}" for ms in cells)))
    heads = ("frame", "as it is, ms", "PNG, ms", "shrinking, ms", "shrunk, ms")
    print("\n".join(markdown(heads, rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
