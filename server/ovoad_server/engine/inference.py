"""The work of a worker: images to features, windows and words to scores. Knows no process.

Synchronous; several threads may call it at once, as they may a detector.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import cv2
import numpy as np

from ovoad_server.engine.images import ImageError, decode_image
from ovoad_server.engine.interface import (
    Detector,
    EncodedBatch,
    Failure,
    Float32Array,
    Frame,
    ScoredBatch,
    Scores,
    ScoreStep,
    Vocabulary,
    WindowView,
    WordsRequest,
)

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")
GOLDEN_SENTENCES: Final = ("a traffic light over a street", "a plate of food on a table")
TRIAL_SIZES: Final = (1, 1, 4)  # of batches at the start; the first only warms up
_MEMORY_WORDS: Final = (
    "out of memory",
    "failed to allocate",
    "can't allocate memory",
    "cannot allocate memory",
    "bad allocation",
    "bad_alloc",
    "alloc_failed",
)


class Inference:
    """A detector behind calls that never raise for what one item of a batch does."""

    def __init__(self, detector: Detector, *, decode_threads: int, max_pixels: int) -> None:
        self._detector = detector
        self._max_pixels = max_pixels
        self._least_side = detector.facts.least_side
        self._limit: int | None = None
        self._decoders = ThreadPoolExecutor(decode_threads, "ovoad-decode")

    def close(self) -> None:
        """Let the decoding threads go."""
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def encode(
        self, images: Sequence[bytes], steps: Sequence[ScoreStep | None] = ()
    ) -> EncodedBatch:
        """Decode B images side by side, encode the good ones in one batch, score those with a step.

        A frame whose window holds all frames before it is scored here, without another call.
        """
        alone = len(images) == 1  # needs no thread beside this one
        decoded = list((map if alone else self._decoders.map)(self._decode, images))
        started_s = time.monotonic()
        frames = [frame for frame, _ in decoded if not isinstance(frame, Failure)]
        encoded = iter(self._in_pieces(frames, self._encode_frames))
        features = [frame if isinstance(frame, Failure) else next(encoded) for frame, _ in decoded]
        encode_ms = (time.monotonic() - started_s) * 1000
        scores, score_ms = self._score_steps(steps or [None] * len(images), features)
        decode_ms = [ms for _, ms in decoded]
        return EncodedBatch(features, decode_ms, encode_ms, scores, score_ms, self._limit)

    def score(self, views: Sequence[WindowView], vocabularies: Sequence[Vocabulary]) -> ScoredBatch:
        """Score B windows against their words."""
        started_s = time.monotonic()
        scores = _in_halves(list(zip(views, vocabularies, strict=True)), self._score_pairs)
        return ScoredBatch(scores, (time.monotonic() - started_s) * 1000)

    def embed(self, words: WordsRequest) -> Vocabulary:
        """Embed a user's words; raises what the model raises."""
        return self._detector.vocabulary(
            words.labels,
            templates=words.templates,
            background=words.background,
            scorer=words.scorer,
        )

    def probe(self) -> list[float]:
        """Score the golden images against the golden sentences, as if each began a session.

        Both sides are encoded anew, so that a fault in either is seen.
        """
        words = self._detector.vocabulary(
            GOLDEN_SENTENCES, templates=["{}"], background=GOLDEN_SENTENCES[:1], anew=True
        )
        views = []
        for feature in self._detector.encode(golden_images()):
            window = self._detector.open_window()
            window.push(0, feature)
            views.append(window.view())
        scores = self._detector.score(views, [words] * len(views))
        return [float(value) for score in scores for value in score.similarities]

    def measure(self) -> list[tuple[int, float]]:
        """Time a few batches of a golden image: sizes and milliseconds."""
        image: bytes = cv2.imencode(".jpg", golden_images()[0][..., ::-1])[1].tobytes()
        costs = []
        for size in TRIAL_SIZES:
            started_s = time.monotonic()
            self.encode([image] * size)
            costs.append((size, (time.monotonic() - started_s) * 1000))
        return costs[1:]

    # ---- pieces of a batch ----------------------------------------------------------------------

    def _decode(self, image: bytes) -> tuple[Frame | Failure, float]:
        started_s = time.monotonic()
        frame: Frame | Failure
        try:
            frame = decode_image(image, max_pixels=self._max_pixels, least_side=self._least_side)
        except ImageError as error:
            frame = Failure(error.code, str(error))
        except Exception as error:  # whatever a decoder raises is that frame's answer, no more
            frame = _failure("decoder", error)
        return frame, (time.monotonic() - started_s) * 1000

    def _in_pieces(
        self, items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Result]]
    ) -> list[Result | Failure]:
        """Do a batch in as few pieces as the device has room for."""
        done: list[Result | Failure] = []
        while len(done) < len(items):
            piece = items[len(done) :][: self._limit]
            done += _in_halves(piece, work, on_out_of_memory=self._lower_limit)
        return done

    def _lower_limit(self, size: int) -> None:
        """Remember that a batch of this size found no room."""
        self._limit = max(1, size // 2)
        log.warning("no memory for %d frames at once, going on with %d", size, self._limit)

    def _encode_frames(self, frames: Sequence[Frame]) -> Sequence[Float32Array]:
        features = self._detector.encode(frames)
        if not np.isfinite(features).all():
            raise ValueError("the encoder gave numbers that are not finite")
        return list(features)

    def _score_steps(
        self, steps: Sequence[ScoreStep | None], features: Sequence[Float32Array | Failure]
    ) -> tuple[list[Scores | Failure | None], float]:
        """Score the frames that have a step and a feature; tell the milliseconds."""
        scores: list[Scores | Failure | None] = [None] * len(steps)
        rows, views, words = [], [], []
        for row, (step, feature) in enumerate(zip(steps, features, strict=True)):
            if step is None or isinstance(feature, Failure):
                continue
            try:
                views.append(step.window.view_after(step.timestamp_ms, feature))
            except Exception as error:  # a fault in one window is that frame's answer, no more
                scores[row] = _failure("window", error)
                continue
            rows.append(row)
            words.append(step.vocabulary)
        batch = self.score(views, words)
        for row, score in zip(rows, batch.scores, strict=True):
            scores[row] = score
        return scores, batch.score_ms

    def _score_pairs(self, pairs: Sequence[tuple[WindowView, Vocabulary]]) -> Sequence[Scores]:
        scores = self._detector.score([view for view, _ in pairs], [words for _, words in pairs])
        if not all(np.isfinite(score.background) for score in scores):  # shares the labels' softmax
            raise ValueError("the scorer gave numbers that are not finite")
        return scores


def _in_halves(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Sequence[Result]],
    *,
    on_out_of_memory: Callable[[int], None] = lambda size: None,
) -> list[Result | Failure]:
    """Do a batch at once; where it fails, its halves, so that a bad item fails alone.

    Catches everything: whatever a model raises becomes that item's answer.
    """
    if not items:
        return []
    try:
        results = list(work(items))
        assert len(results) == len(items), "a model gives one result an item"
        return list(results)
    except Exception as error:
        if len(items) == 1:
            return [_failure("model", error)]
        if _is_out_of_memory(error):
            on_out_of_memory(len(items))
        reason = str(error) or type(error).__name__
        log.warning("a batch of %d failed (%s), trying its halves", len(items), reason)
    # From here on the error is gone, and with it what its frames of the stack held in memory.
    middle = len(items) // 2
    return [
        result
        for half in (items[:middle], items[middle:])
        for result in _in_halves(half, work, on_out_of_memory=on_out_of_memory)
    ]


def _failure(part: str, error: Exception) -> Failure:
    """Log a fault while it is handled, and make it one item's answer."""
    log.exception("the %s failed on one frame", part)
    return Failure("internal", f"the {part} failed ({type(error).__name__})")


def _is_out_of_memory(error: Exception) -> bool:
    """Tell numpy's, torch's and ONNX Runtime's ways to say so, without importing them."""
    text = str(error).lower()
    named = isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__
    return named or any(words in text for words in _MEMORY_WORDS)


def golden_images() -> list[Frame]:
    """Draw a traffic light and an empty grey picture: RGB [240, 320, 3]."""
    image = np.full((240, 320, 3), (135, 190, 235), np.uint8)
    cv2.rectangle(image, (110, 10), (210, 230), (25, 25, 25), -1)
    for y, colour in ((50, (230, 40, 30)), (120, (90, 70, 10)), (190, (10, 80, 30))):
        cv2.circle(image, (160, y), 30, colour, -1)
    return [np.asarray(image, np.uint8), np.full((240, 320, 3), 200, np.uint8)]
