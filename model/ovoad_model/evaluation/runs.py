"""Run an evaluation: stream every video, judge every scorer, make one report.

Knows neither arguments nor printing. One scorer is judged at a time, so the scores of one are
all that memory holds; features are loaded per video where they lie in files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ovoad_model.arrays import Float32Array
from ovoad_model.detector import Detector
from ovoad_model.evaluation.clips import Clip, keep_apart, labels_of, stitch, without_doubles
from ovoad_model.evaluation.encoded import EncodedVideo, encode_video
from ovoad_model.evaluation.field import FieldData, load_features, load_truth
from ovoad_model.evaluation.judge import ScorerResult, judge
from ovoad_model.evaluation.progress import with_progress
from ovoad_model.evaluation.protocols import Protocol, check_labels, embed_words
from ovoad_model.evaluation.report import Report
from ovoad_model.evaluation.scored import ScoredVideo, Truth, keep_labels, score_video
from ovoad_model.evaluation.segments import Segments, truth_of
from ovoad_model.evaluation.splits import Part, Split, columns_of
from ovoad_model.metrics import EvaluationError

Source = Callable[[], tuple[Truth, Float32Array]]
"""Gives one video's truth and its features [L, F] when asked."""

Look = Callable[[ScorerResult, Sequence[ScoredVideo]], None]
"""Is shown each scorer's result and scores before they are let go, to draw them."""


@dataclass(frozen=True)
class Options:
    """What every evaluation needs to know."""

    scorers: tuple[str, ...]
    protocol: Protocol
    calibrated: bool = False  # headline metric
    look: Look | None = None


def evaluate_field(
    detector: Detector,
    data: FieldData,
    options: Options,
    *,
    split: Split | None = None,
    part: Part = "novel",
    classes: Sequence[str] | None = None,
) -> Report:
    """Judge scorers on a dataset's feature files, on all classes, one part of a split or a list.

    Classes left out are not in the vocabulary; their frames stay and have no label.
    """
    chosen = classes
    if split is not None:
        chosen = split.novel if part == "novel" else split.base
    kept = columns_of(data.class_names, data.class_names if chosen is None else chosen)
    report = judge_all(
        detector,
        [data.labels[column] for column in kept],
        [partial(_field_video, data, video, kept) for video in data.videos],
        options,
        evaluation=data.dataset.title,
    )
    if split is None:
        return report
    return replace(report, split=split.share, part=part, seed=split.seed)


def _field_video(data: FieldData, video: str, kept: Sequence[int]) -> tuple[Truth, Float32Array]:
    return keep_labels(load_truth(data, video), kept), load_features(data, video)


def evaluate_clips(
    detector: Detector,
    clips: Sequence[Clip],
    options: Options,
    *,
    distractors: Sequence[str],
    labels: Sequence[str] | None = None,
    seed: int = 0,
    streams: int | None = 4,
    encoded: Sequence[EncodedVideo] | None = None,
) -> Report:
    """Judge scorers on clips stitched into streams, or on each clip apart where that is None.

    The vocabulary is the clips' own labels and distractors, or `labels` in place of both.
    `encoded` is what encode_clips gave, to judge the same clips more than once.
    """
    own = labels_of(clips)
    kept = without_doubles(distractors, own)
    words = tuple(labels) if labels is not None else (*own, *kept)
    check_labels(words)
    encoded = encode_clips(detector, clips) if encoded is None else encoded
    features = np.concatenate([video.features for video in encoded])
    if streams is None:
        shown = keep_apart(clips, encoded, words)
    else:
        shown = stitch(clips, encoded, words, seed=seed, streams=streams)
    report = judge_all(
        detector,
        words,
        [partial(lambda stream: (stream.truth, features[stream.rows]), s) for s in shown],
        options,
        evaluation="clips",
    )
    left_out = tuple(word for word in distractors if word not in kept)
    return replace(
        report,
        videos=len(clips),
        streams=streams,
        seed=None if streams is None else seed,
        left_out=left_out if labels is None else (),
    )


def evaluate_segments(
    detector: Detector,
    directory: Path,
    segments: Segments,
    options: Options,
    *,
    labels: Sequence[str] | None = None,
) -> Report:
    """Judge scorers on raw videos; segments of labels outside `labels` become background."""
    words = tuple(labels) if labels is not None else segments.labels
    if not set(words) & set(segments.labels):
        raise EvaluationError(
            f"found the labels {', '.join(words)}, expected at least one of the CSV's: "
            f"{', '.join(segments.labels)}"
        )
    encoded = _encode_all(detector, [directory / video for video in segments.videos])
    known = [segment for segment in segments.segments if segment.label in words]
    truths = [
        truth_of(video, known, words, seen.timestamps_ms)
        for video, seen in zip(segments.videos, encoded, strict=True)
    ]
    sources: list[Source] = [
        partial(lambda truth, seen: (truth, seen.features), truth, seen)
        for truth, seen in zip(truths, encoded, strict=True)
    ]
    return judge_all(detector, words, sources, options, evaluation="segments")


def encode_clips(detector: Detector, clips: Sequence[Clip]) -> list[EncodedVideo]:
    """Decode the clips at 4 fps and encode every frame once."""
    return _encode_all(detector, [clip.path for clip in clips])


def _encode_all(detector: Detector, paths: Sequence[Path]) -> list[EncodedVideo]:
    shown = with_progress(paths, total=len(paths), what="encoding videos")
    return [encode_video(detector, path) for path in shown]


def judge_all(
    detector: Detector,
    labels: Sequence[str],
    sources: Sequence[Source],
    options: Options,
    *,
    evaluation: str,
) -> Report:
    """Score every video with every scorer and put the results into one report."""
    protocol = options.protocol
    results = []
    for scorer in options.scorers:
        words = embed_words(detector, labels, protocol, scorer=scorer)
        videos = [
            score_video(detector, words, *source(), kind=protocol.score)
            for source in with_progress(sources, total=len(sources), what=f"scoring ({scorer})")
        ]
        result = judge(scorer, labels, videos, calibrated=options.calibrated)
        if options.look is not None:
            options.look(result, videos)
        results.append(result)
    encoder = detector.encoder
    return Report(
        evaluation=evaluation,
        protocol=protocol.name,
        metric="mcAP" if options.calibrated else "mAP",
        score=protocol.score,
        encoder=encoder.name,
        fingerprint=encoder.fingerprint,
        templates=protocol.templates or encoder.templates,
        background=protocol.background or (),
        labels=tuple(labels),
        videos=len(sources),
        results=tuple(results),
    )
