"""Measure JPEG decoding at reduced scale: milliseconds saved, and what it does to accuracy.

    python benchmarks/decode_speed.py [../shared/clips] [--rounds 40]

The first table times one frame through decoding and through the encoder's scaling to its square,
whole and reduced taking turns; the second judges the clips on frames stored as JPEG of quality 85,
at their own size and enlarged, each clip by itself with scorer `average`. `changed` compares the
features of whole and reduced decoding, beside what JPEG itself changes: whole decoding against the
frames before they were stored.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from embedded_speed import medians_ms

from ovoad_model.arrays import Float32Array, Frame
from ovoad_model.build import build_detector
from ovoad_model.detector import Detector
from ovoad_model.embedded.preprocess import square_batch
from ovoad_model.evaluation.clips import Clip, default_distractors, read_clips
from ovoad_model.evaluation.encoded import EncodedVideo
from ovoad_model.evaluation.protocols import STANDARD
from ovoad_model.evaluation.runs import Options, evaluate_clips
from ovoad_model.video import read_grid_frames
from ovoad_server.clips.sampling import shrink
from ovoad_server.engine.images import decode_image

SIZES: Final = {"640x480": 480, "1280x720": 720, "1920x1080": 1080, "3840x2160": 2160}
SHORT_SIDES: Final = (0, 720, 1080)  # 0: the clip's own size
QUALITY: Final = 85
MAX_PIXELS: Final = 2**24
Change = Callable[[Frame], Frame]


@dataclass(frozen=True)
class Outcome:
    """The clips' features and what they are judged to be worth."""

    encoded: list[EncodedVideo]
    mean_average_precision: float
    top1: float

    @property
    def features(self) -> Float32Array:
        """All clips' features, end to end: [N, F]."""
        return np.concatenate([video.features for video in self.encoded])


def main(arguments: Sequence[str]) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    shared = Path(__file__).parents[2] / "shared" / "clips"
    parser.add_argument("clips", type=Path, nargs="?", default=shared)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    detector = build_detector()
    side = detector.encoder.input_size
    found = (options.clips / "labels.json").is_file()
    clips = read_clips(options.clips) if found else ()
    frame = sharpest_frame(clips) if clips else made_up_frame()
    print(f"least side {side}, one thread, median of {options.rounds} rounds")
    for name, short_side in SIZES.items():
        compare_speed(name, wide(enlarged(frame, short_side)), side, options.rounds)
    if not clips:
        print(f"accuracy skipped: no clips in {options.clips}")
        return 0
    for short_side in SHORT_SIDES:
        compare_accuracy(detector, clips, short_side)
    return 0


def compare_speed(name: str, frame: Frame, side: int, rounds: int) -> None:
    """Print milliseconds of one frame, decoded alone and decoded and scaled to the square."""
    data = to_jpeg(frame)

    def square(least_side: int) -> object:
        pixels = decode_image(data, max_pixels=MAX_PIXELS, least_side=least_side)
        return square_batch([pixels], size=side)

    times = medians_ms(
        {
            "whole": lambda: decode_image(data, max_pixels=MAX_PIXELS),
            "reduced": lambda: decode_image(data, max_pixels=MAX_PIXELS, least_side=side),
            "whole square": lambda: square(0),
            "reduced square": lambda: square(side),
        },
        rounds,
    )
    print(
        f"{name}, {len(data) / 1024:.0f} KiB: decode {times['whole']:.2f} -> "
        f"{times['reduced']:.2f} ms; with scaling {times['whole square']:.2f} -> "
        f"{times['reduced square']:.2f} ms, {times['whole square'] / times['reduced square']:.1f}x"
    )


def compare_accuracy(detector: Detector, clips: Sequence[Clip], short_side: int) -> None:
    """Print what whole and reduced decoding are worth, and how far their features differ."""
    side = detector.encoder.input_size

    def stored(least_side: int) -> Change:
        return lambda frame: decode_image(
            to_jpeg(enlarged(frame, short_side)), max_pixels=MAX_PIXELS, least_side=least_side
        )

    raw = judged(detector, clips, lambda frame: enlarged(frame, short_side))
    whole = judged(detector, clips, stored(0))
    reduced = judged(detector, clips, stored(side))
    shrunk = judged(
        detector, clips, lambda frame: shrink(enlarged(frame, short_side), least_side=side)
    )
    size = f"short side {short_side}" if short_side else "own size"
    print(
        f"{size}: mAP {whole.mean_average_precision:.4f} -> {reduced.mean_average_precision:.4f}, "
        f"top-1 {whole.top1:.4f} -> {reduced.top1:.4f}; cosine changed: "
        f"{cosines(whole, reduced)}; by JPEG itself: {cosines(raw, whole)}; frames of clips: mAP "
        f"{raw.mean_average_precision:.4f} -> {shrunk.mean_average_precision:.4f}, cosine changed: "
        f"{cosines(raw, shrunk)}"
    )


def judged(detector: Detector, clips: Sequence[Clip], change: Change) -> Outcome:
    """Encode the clips' changed frames and judge each clip by itself."""
    encoded = [encode(detector, clip.path, change) for clip in clips]
    report = evaluate_clips(
        detector,
        clips,
        Options(("average",), STANDARD),
        distractors=default_distractors(),
        streams=None,
        encoded=encoded,
    )
    result = report.results[0]
    assert result.mean_average_precision is not None
    assert result.top1 is not None
    return Outcome(encoded, result.mean_average_precision, result.top1)


def encode(detector: Detector, path: Path, change: Change) -> EncodedVideo:
    """Encode one clip's frames at 4 fps, each changed first, one at a time."""
    timestamps_ms: list[int] = []
    features: list[Float32Array] = []
    for timestamp_ms, frame in read_grid_frames(path):
        timestamps_ms.append(timestamp_ms)
        features.append(detector.encode([change(frame)]))
    return EncodedVideo(np.array(timestamps_ms, np.int64), np.concatenate(features))


def cosines(one: Outcome, other: Outcome) -> str:
    """Say how alike two outcomes' features are, frame by frame."""
    cosine = (one.features * other.features).sum(axis=1)
    return f"mean {cosine.mean():.5f}, 1st percentile {np.percentile(cosine, 1):.4f}"


def to_jpeg(frame: Frame) -> bytes:
    """Store an RGB frame."""
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def enlarged(frame: Frame, short_side: int) -> Frame:
    """Scale a frame so that its shorter side is this long; 0 leaves it as it is."""
    by = short_side / min(frame.shape[:2])
    if short_side == 0:
        return frame
    scaled = cv2.resize(frame, None, fx=by, fy=by, interpolation=cv2.INTER_CUBIC)
    return np.asarray(scaled, np.uint8)


def wide(frame: Frame) -> Frame:
    """Crop or repeat a frame's columns to 16:9, 4:3 for one of 480 rows."""
    height = frame.shape[0]
    width = height * 4 // 3 if height == SIZES["640x480"] else height * 16 // 9
    return np.ascontiguousarray(np.take(frame, range(width), axis=1, mode="wrap"))


def sharpest_frame(clips: Sequence[Clip]) -> Frame:
    """Take the first frame of the clip with the most pixels in its shorter side."""
    firsts = [next(read_grid_frames(clip.path))[1] for clip in clips]
    return max(firsts, key=lambda frame: min(frame.shape[:2]))


def made_up_frame() -> Frame:
    """Make a frame of smooth blobs, for where there are no clips."""
    noise = np.random.default_rng(0).integers(0, 256, (72, 128, 3), dtype=np.uint8)
    return enlarged(noise, 720)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
