"""A loop that encodes the last frames of its streams again for every prediction.

    python benchmarks/peers/window_loop.py --frames FOLDER --window 8 --streams 1 8 32 --seconds 8

What is written first: keep the last frames, give them all to the model whenever a new one comes.
One process with the encoder's own threads; streams take turns, each has its next frame ready when
its last one is answered. Prints a JSON list of {streams, frames_per_s, p50_ms, p99_ms}.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ovoad_client.bench.statistics import percentiles
from ovoad_model.build import build_detector
from ovoad_model.detector import Detector, Scores
from ovoad_model.vocabulary import Vocabulary
from ovoad_model.window import GRID_MS


class WindowLoop:
    """One stream: its last frames, all encoded for each prediction."""

    def __init__(self, detector: Detector, words: Vocabulary, window: int) -> None:
        self._detector = detector
        self._words = words
        self._frames: deque[Any] = deque(maxlen=window)

    def predict(self, jpeg: bytes) -> Scores:
        """Decode a frame, encode it and those before it, and score their mean."""
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
        self._frames.append(image)
        while len(self._frames) < (self._frames.maxlen or 1):
            self._frames.append(image)  # a full window from the first frame on
        window = self._detector.open_window()
        for index, feature in enumerate(self._detector.encode(list(self._frames))):
            window.push(index * GRID_MS, feature)
        return self._detector.score([window.view()], [self._words])[0]


def run(loops: Sequence[WindowLoop], jpegs: Sequence[bytes], seconds: float) -> dict[str, float]:
    """Serve the streams in turn for about `seconds`, each at least twice; the first turn warms."""
    loops[0].predict(jpegs[0])
    times_ms: list[float] = []
    start_s = time.perf_counter()
    answered_s = [start_s] * len(loops)
    turn = 0
    while turn < 2 or time.perf_counter() - start_s < seconds:
        for stream, loop in enumerate(loops):
            loop.predict(jpegs[turn % len(jpegs)])
            now_s = time.perf_counter()
            times_ms.append((now_s - answered_s[stream]) * 1000)
            answered_s[stream] = now_s
        turn += 1
    spent_s = time.perf_counter() - start_s
    found = percentiles(times_ms[len(loops) :])
    rate = len(times_ms) / spent_s
    return {
        "streams": len(loops),
        "frames_per_s": rate,
        "p50_ms": found.p50,
        "p99_ms": found.p99,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--window", type=int, default=8)
    parser.add_argument("--streams", type=int, nargs="+", default=[1])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--labels", nargs="+", default=["riding a bicycle"])
    arguments = parser.parse_args()
    jpegs = [path.read_bytes() for path in sorted(arguments.frames.glob("*.jpg"))]
    detector = build_detector()
    words = detector.vocabulary(arguments.labels)
    found = []
    for streams in arguments.streams:
        loops = [WindowLoop(detector, words, arguments.window) for _ in range(streams)]
        found.append(run(loops, jpegs, arguments.seconds))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
