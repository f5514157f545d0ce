"""Measure the bare model in one process: what any service around it can reach at best.

    python -m ovoad_model.baseline --frames FOLDER_OF_JPEGS [--json]

Knows no server. Three questions: frames/s of encoder and scorer by batch size, decoding counted or
not; the median milliseconds of one frame; predictions/s where the whole window is encoded again.
numpy's BLAS gets one thread before it is imported, as in the server.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final, get_args

import cv2
import numpy as np

from ovoad_model.arrays import Float32Array, Frame
from ovoad_model.build import build_detector
from ovoad_model.detector import Detector
from ovoad_model.errors import ModelError
from ovoad_model.scorers import ScorerName
from ovoad_model.vocabulary import Vocabulary
from ovoad_model.window import GRID_MS, NEIGHBOURS, SLOTS, Window

BATCHES: Final = (1, 2, 4, 8, 16, 32)
LABELS: Final = ("riding a bicycle", "walking across the street", "driving a car")
LEAST_CALLS: Final = 3
TURNS: Final = 3


@dataclass(frozen=True)
class BareSpeed:
    """What one process does without a server.

    encode_score_fps, decode_encode_score_fps: frames/s by batch size. bare_ms: median milliseconds
    of one frame by stage, and in all. reencode_fps: predictions/s by the number of frames that each
    encodes again.
    """

    encoder: str
    fingerprint: str
    scorer: str
    encode_score_fps: dict[int, float]
    decode_encode_score_fps: dict[int, float]
    bare_ms: dict[str, float]
    reencode_fps: dict[int, float]


class BareLoop:
    """Frames, words and full windows at hand, and the ways to score them."""

    def __init__(self, detector: Detector, words: Vocabulary, jpegs: Sequence[bytes]) -> None:
        self._detector = detector
        self._words = words
        self._jpegs = jpegs
        self._frames = [decode(jpeg) for jpeg in jpegs]
        self._now_ms = 0
        self._windows: list[Window] = []

    def encode_and_score(self, batch: int) -> None:
        """Score one frame of each of `batch` sessions, whose windows are full."""
        self._score(self._detector.encode(self._take(batch)))

    def decode_encode_and_score(self, batch: int) -> None:
        """The same from JPEGs, decoded one after the other."""
        first = self._now_ms // GRID_MS
        jpegs = [self._jpegs[(first + index) % len(self._jpegs)] for index in range(batch)]
        self._score(self._detector.encode([decode(jpeg) for jpeg in jpegs]))

    def encode_window_again(self, frames: int) -> None:
        """Decode one new frame, encode it and those before it, and score that window."""
        decode(self._jpegs[self._now_ms // GRID_MS % len(self._jpegs)])
        self._now_ms += GRID_MS
        window = self._detector.open_window()
        for index, feature in enumerate(self._detector.encode(self._take(frames))):
            window.push(index * GRID_MS, feature)
        self._detector.score([window.view()], [self._words])

    def time_stages_ms(self) -> dict[str, float]:
        """Score one frame from its JPEG; returns the milliseconds by stage and in all."""
        jpeg = self._jpegs[self._now_ms // GRID_MS % len(self._jpegs)]
        start_s = time.perf_counter()
        frame = decode(jpeg)
        decoded_s = time.perf_counter()
        features = self._detector.encode([frame])
        encoded_s = time.perf_counter()
        self._score(features)
        end_s = time.perf_counter()
        return {
            "decode": (decoded_s - start_s) * 1000,
            "encode": (encoded_s - decoded_s) * 1000,
            "score": (end_s - encoded_s) * 1000,
            "total": (end_s - start_s) * 1000,
        }

    def fill_windows(self, count: int) -> None:
        """Have so many windows with all their slots taken."""
        feature = self._detector.encode(self._frames[:1])[0]
        self._windows = [self._detector.open_window() for _ in range(count)]
        for _ in range(SLOTS):
            self._now_ms += GRID_MS
            for window in self._windows:
                window.push(self._now_ms, feature)

    def _take(self, count: int) -> list[Frame]:
        first = self._now_ms // GRID_MS
        return [self._frames[(first + index) % len(self._frames)] for index in range(count)]

    def _score(self, features: Float32Array) -> None:
        self._now_ms += GRID_MS
        windows = self._windows[: len(features)]
        for window, feature in zip(windows, features, strict=True):
            window.push(self._now_ms, feature)
        self._detector.score([window.view() for window in windows], [self._words] * len(windows))


def decode(jpeg: bytes) -> Frame:
    """Decode a JPEG into RGB uint8 [H, W, 3]."""
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert pixels is not None, "frames are checked when they are read"
    return np.asarray(pixels, np.uint8)


def measure(
    loop: BareLoop, *, batches: Sequence[int], windows: Sequence[int], seconds: float
) -> tuple[dict[int, float], dict[int, float], dict[str, float], dict[int, float]]:
    """Measure each way for about `seconds`: the two rates by batch, stages, re-encoding."""
    loop.fill_windows(max([*batches, 1]))
    bare = {batch: partial(loop.encode_and_score, batch) for batch in batches}
    decoded = {batch: partial(loop.decode_encode_and_score, batch) for batch in batches}
    again = {frames: partial(loop.encode_window_again, frames) for frames in windows}
    calls = [*bare.values(), *decoded.values(), *again.values()]
    rates = iter(calls_per_s(calls, seconds))
    return (
        {batch: batch * next(rates) for batch in bare},
        {batch: batch * next(rates) for batch in decoded},
        median_stages_ms(loop, seconds),
        {frames: next(rates) for frames in again},
    )


def calls_per_s(calls: Sequence[Callable[[], None]], seconds: float) -> list[float]:
    """Return how often each call runs in a second, over about `seconds` each.

    They take turns, each after one call that is not timed: a busy machine slows all alike.
    """
    counts = [0] * len(calls)
    spent_s = [0.0] * len(calls)
    for call in calls:
        call()
    for _ in range(TURNS):
        for index, call in enumerate(calls):
            start_s = now_s = time.perf_counter()
            while now_s == start_s or now_s - start_s < seconds / TURNS:
                call()
                counts[index] += 1
                now_s = time.perf_counter()
            spent_s[index] += now_s - start_s
    return [count / seconds_ for count, seconds_ in zip(counts, spent_s, strict=True)]


def median_stages_ms(loop: BareLoop, seconds: float) -> dict[str, float]:
    """Return the median milliseconds of one frame at batch 1, by stage and in all."""
    loop.time_stages_ms()
    taken: list[dict[str, float]] = []
    until_s = time.perf_counter() + seconds
    while len(taken) < LEAST_CALLS or time.perf_counter() < until_s:
        taken.append(loop.time_stages_ms())
    return {stage: median(each[stage] for each in taken) for stage in taken[0]}


def read_jpegs(folder: Path) -> list[bytes]:
    """Return the JPEGs of a folder in the order of their names; raises OSError, ValueError."""
    jpegs = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    if not jpegs:
        raise ValueError(f"found no *.jpg in '{folder}', expected at least one")
    for jpeg in jpegs:
        if cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB) is None:
            raise ValueError(f"found a file in '{folder}' that is no JPEG")
    return jpegs


def build_parser() -> argparse.ArgumentParser:
    """Return the command's flags."""
    parser = argparse.ArgumentParser(
        prog="python -m ovoad_model.baseline",
        description="Measure encoder and scorer in one process, without a server.",
    )
    parser.add_argument("--frames", type=Path, required=True, help="a folder of *.jpg")
    parser.add_argument("--encoder", default="embedded")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--scorer", choices=get_args(ScorerName), default="average")
    parser.add_argument("--weights", type=Path, help="trained weights of scorer ovoad")
    parser.add_argument("--labels", nargs="+", default=LABELS)
    parser.add_argument("--batches", type=_count, nargs="+", default=BATCHES)
    parser.add_argument(
        "--windows", type=_count, nargs="*", default=(NEIGHBOURS, SLOTS), help="encoded again"
    )
    parser.add_argument("--seconds", type=float, default=1.5, help="for each measurement")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 where the model or the frames cannot be read."""
    arguments = build_parser().parse_args(argv)
    try:
        jpegs = read_jpegs(arguments.frames)
        detector = build_detector(
            encoder=arguments.encoder,
            scorer=arguments.scorer,
            weights=arguments.weights,
            runtime=arguments.runtime,
        )
        words = detector.vocabulary(arguments.labels, scorer=arguments.scorer)
    except (ModelError, OSError, ValueError) as error:
        print(f"ovoad_model.baseline: {error}", file=sys.stderr)
        return 1
    loop = BareLoop(detector, words, jpegs)
    found = measure(
        loop,
        batches=arguments.batches,
        windows=arguments.windows,
        seconds=arguments.seconds,
    )
    encoder = detector.encoder
    speed = BareSpeed(encoder.name, encoder.fingerprint, arguments.scorer, *found)
    print(json.dumps(asdict(speed)) if arguments.json else _text(speed))
    return 0


def _text(speed: BareSpeed) -> str:
    lines = [f"{speed.encoder} ({speed.fingerprint}), scorer {speed.scorer}"]
    for batch, rate in speed.encode_score_fps.items():
        decoded = speed.decode_encode_score_fps[batch]
        lines.append(f"batch {batch}: {rate:.1f} frames/s, with decoding {decoded:.1f}")
    stages = ", ".join(f"{stage} {ms:.2f}" for stage, ms in speed.bare_ms.items())
    lines.append(f"one frame, median ms: {stages}")
    for frames, rate in speed.reencode_fps.items():
        lines.append(f"encoding {frames} frames again for each prediction: {rate:.1f} a second")
    return "\n".join(lines)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1 on")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
