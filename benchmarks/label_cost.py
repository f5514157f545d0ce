"""Measure what a vocabulary's labels cost a frame: milliseconds by part, from window to text.

    python benchmarks/label_cost.py [--rounds 60]

Each row is one vocabulary, an answer of the best 5 labels or of all, a space of D dimensions, and
one or eight windows scored at once. `score` is from window to scores, of which `product` are the
similarities and `softmax` the probabilities; `events` follows starts and ends; `text` is the wire
message. `added` is what a frame's labels cost over those of a vocabulary of one. One thread, as the
server has it. Between two runs the processor's cache is filled with other things, as the encoder
fills it between two frames. Medians; the ways take turns.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ovoad_model.arrays import Float32Array, Frame, unit
from ovoad_model.detector import Detector
from ovoad_model.probabilities import label_probabilities
from ovoad_model.scorers import average_scorer
from ovoad_model.vocabulary import Vocabulary
from ovoad_model.window import WindowView
from ovoad_server.engine.events import EventDetector, EventRule
from ovoad_server.engine.replies import Scored, Timing
from ovoad_server.wire import to_json

LABELS: Final = (1, 100, 1_000, 10_000)
WIDTHS: Final = (387, 512)  # those of `embedded` and of ViT-B/16
BATCHES: Final = (1, 8)
TOP: Final = 5
CACHE_FLOATS: Final = 2**24  # 64 MiB


@dataclass(frozen=True)
class PlainEncoder:
    """An encoder whose frames and sentences are random directions, all in the joint space."""

    feature_width: int
    name: str = "random"
    fingerprint: str = "random"
    input_size: int = 1
    temperature: float = 0.02
    languages: tuple[str, ...] = ("en",)
    templates: tuple[str, ...] = ("{}",)
    background: tuple[str, ...] = tuple(f"background {number}" for number in range(17))
    background_floor: float = 0.1
    lanes: int = 1

    @property
    def embedding_width(self) -> int:
        """D = F."""
        return self.feature_width

    def encode_frames(self, frames: Sequence[Frame]) -> Float32Array:
        """Give each frame a direction."""
        return self._directions(len(frames))

    def project(self, features: Float32Array) -> Float32Array:
        """Scale to unit norm."""
        return unit(features)

    def encode_text(self, texts: Sequence[str]) -> Float32Array:
        """Give each sentence a direction."""
        return self._directions(len(texts))

    def warnings_for(self, text: str) -> str | None:
        """Speak every language."""
        return None

    def _directions(self, count: int) -> Float32Array:
        generator = np.random.default_rng(count)
        return unit(generator.standard_normal((count, self.feature_width), np.float32))


@dataclass(frozen=True)
class Case:
    """One row: B windows of one vocabulary."""

    detector: Detector
    words: Vocabulary
    views: list[WindowView]
    top_k: int | None

    def parts(self) -> dict[str, Callable[[], Any]]:
        """The work by name."""
        words, count, batch = self.words, len(self.words.labels), len(self.views)
        embedding = self.detector.encode([np.zeros((1, 1, 3), np.uint8)] * batch)
        similarities = embedding @ words.embeddings.T
        events = EventDetector(EventRule(0.5, 0.3, 500), words.labels)
        replies = [self._reply(scores) for scores in self.detector.score(self.views, self._same)]
        clock = iter(range(10**9))

        def softmax() -> None:
            for row in similarities:
                label_probabilities(row[:count], row[count:], temperature=0.02, floor=0.1)

        def follow() -> None:
            for reply in replies:
                events.update(next(clock), reply.scores.probabilities)

        return {
            "score": lambda: self.detector.score(self.views, self._same),
            "product": lambda: embedding @ words.embeddings.T,
            "softmax": softmax,
            "events": follow,
            "text": lambda: [to_json(reply, top_k=self.top_k) for reply in replies],
        }

    @property
    def _same(self) -> list[Vocabulary]:
        return [self.words] * len(self.views)

    def _reply(self, scores: Any) -> Scored:
        timing = Timing(queue=0.1, decode=1.5, encode=12.25, score=1.0, total=14.85)
        return Scored(1, 250, 1, self.words, scores, self.views[0].state, timing, backlog=0)


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args(arguments).rounds
    print(f"ms a frame, one thread, median of {rounds} rounds")
    print("    D  batch  answer  labels   score (product softmax)  events    text   added")
    for width in WIDTHS:
        for batch in BATCHES:
            for top_k in (TOP, None):
                compare(width, batch, top_k, rounds)
    return 0


def compare(width: int, batch: int, top_k: int | None, rounds: int) -> None:
    """Print the rows of all sizes of vocabulary."""
    encoder = PlainEncoder(width)
    detector = Detector(encoder, [average_scorer(encoder)])
    window = detector.open_window()
    for time_ms, feature in enumerate(detector.encode([np.zeros((1, 1, 3), np.uint8)] * 32)):
        window.push(250 * time_ms, feature)
    work: dict[tuple[int, str], Callable[[], Any]] = {}
    for count in LABELS:
        words = detector.vocabulary([f"label {number}" for number in range(count)])
        case = Case(detector, words, [window.view()] * batch, top_k)
        work |= {(count, part): run for part, run in case.parts().items()}
    times = cold_medians_ms(work, rounds)
    least = sum(times[LABELS[0], part] for part in ("score", "events", "text"))
    for count in LABELS:
        score, product, softmax, events, text = (
            times[count, part] / batch for part in ("score", "product", "softmax", "events", "text")
        )
        print(
            f"{width:5d}  {batch:5d}  {f'top {top_k}' if top_k else 'all':>6s}  {count:6d}"
            f"  {score:6.3f} ({product:7.3f} {softmax:7.3f})  {events:6.3f}  {text:6.3f}"
            f"  {score + events + text - least / batch:6.3f}"
        )


def cold_medians_ms(
    work: dict[tuple[int, str], Callable[[], Any]], rounds: int
) -> dict[tuple[int, str], float]:
    """Median milliseconds of each part, with the words' embeddings out of the cache."""
    other = np.ones(CACHE_FLOATS, np.float32)
    taken: dict[tuple[int, str], list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            other *= np.float32(-1)
            start = time.perf_counter()
            run()
            taken[name].append((time.perf_counter() - start) * 1000)
    return {name: float(np.median(times)) for name, times in taken.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
