"""`ovoad evaluate`: read the arguments, build the detector, print and write the report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ovoad_model.build import build_detector
from ovoad_model.detector import Detector
from ovoad_model.errors import ModelError
from ovoad_model.evaluation import plots
from ovoad_model.evaluation.arguments import argument_parser
from ovoad_model.evaluation.clips import default_distractors, read_clips, read_words
from ovoad_model.evaluation.field import DATASETS, open_field
from ovoad_model.evaluation.judge import ScorerResult
from ovoad_model.evaluation.protocols import PROTOCOLS
from ovoad_model.evaluation.report import Report, scorer_table, table, to_text, write_json
from ovoad_model.evaluation.runs import (
    Options,
    encode_clips,
    evaluate_clips,
    evaluate_field,
    evaluate_segments,
)
from ovoad_model.evaluation.scored import ScoredVideo
from ovoad_model.evaluation.segments import read_segments
from ovoad_model.evaluation.splits import (
    base_captions,
    split_classes,
    write_captions,
    write_split,
)
from ovoad_model.metrics import EvaluationError


def main(argv: list[str]) -> int:
    """Run `ovoad evaluate ARGV`; 0 when a report was made, 1 with the reason on stderr."""
    arguments = argument_parser().parse_args(argv)
    try:
        reports = _run(arguments)
        if reports:
            _show(reports, arguments.json)
    except (ModelError, OSError) as error:
        print(f"ovoad evaluate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\novoad evaluate: interrupted", file=sys.stderr)
        return 130
    return 0


def _run(arguments: argparse.Namespace) -> list[Report]:
    match arguments.evaluation:
        case "clips":
            return _run_clips(arguments)
        case "segments":
            return _run_segments(arguments)
        case "split":
            return _run_split(arguments)
        case _:
            return _run_field(arguments)


def _show(reports: Sequence[Report], path: Path | None) -> None:
    """Print the reports, with their mean where they are of several splits, and write the JSON."""
    print("\n\n".join(to_text(report) for report in reports))
    if len(reports) > 1:
        print("\n" + _mean_over_splits(reports))
    if path is not None:
        write_json(reports, path)


def _run_field(arguments: argparse.Namespace) -> list[Report]:
    dataset = DATASETS[arguments.evaluation]
    detector = _detector(arguments)
    data = open_field(
        dataset,
        arguments.root,
        arguments.feature,
        targets=arguments.targets,
        feature_width=detector.encoder.feature_width,
    )
    options = _options(arguments, data.labels, calibrated=dataset.calibrated)
    if arguments.split is None:
        classes = _words_file(arguments.classes)
        return [evaluate_field(detector, data, options, classes=classes)]
    seeds = range(arguments.seed, arguments.seed + arguments.repeats)
    splits = [split_classes(data.class_names, arguments.split, seed=seed) for seed in seeds]
    # Pictures of one split are asked for seldom; of many they would overwrite each other.
    options = options if len(splits) == 1 else replace(options, look=None)
    return [
        evaluate_field(detector, data, options, split=split, part=arguments.part)
        for split in splits
    ]


def _run_clips(arguments: argparse.Namespace) -> list[Report]:
    """Judge stitched clips; beside them, in words alone, the same clips each by itself."""
    clips = read_clips(arguments.directory)
    given = _words_file(arguments.distractors)
    detector, options = _detector(arguments), _options(arguments)
    judge = partial(
        evaluate_clips,
        detector,
        clips,
        distractors=default_distractors() if given is None else given,
        labels=arguments.labels,
        seed=arguments.seed,
        encoded=encode_clips(detector, clips),
    )
    report = judge(options, streams=None if arguments.apart else arguments.streams)
    if report.left_out:
        print(f"left out, the clips show them: {', '.join(report.left_out)}", file=sys.stderr)
    if not arguments.apart:
        apart = judge(replace(options, look=None), streams=None)
        print(f"each clip by itself, no cuts (--apart)\n{scorer_table(apart)}\n")
    return [report]


def _run_segments(arguments: argparse.Namespace) -> list[Report]:
    segments = read_segments(arguments.segments)
    report = evaluate_segments(
        _detector(arguments),
        arguments.directory,
        segments,
        _options(arguments, calibrated=arguments.metric == "mcAP"),
        labels=arguments.labels,
    )
    return [report]


def _run_split(arguments: argparse.Namespace) -> list[Report]:
    """Write a split's class lists, and timed captions of the training videos' base classes."""
    dataset = DATASETS[arguments.dataset]
    data = open_field(
        dataset, arguments.root, arguments.feature, session="train", targets=arguments.targets
    )
    split = split_classes(data.class_names, arguments.split, seed=arguments.seed)
    captions, left_out = base_captions(data, split)
    for path in write_split(split, arguments.out):
        print(path)
    path = arguments.out / "base_captions.jsonl"
    write_captions(captions, path)
    print(
        f"{path}: {len(captions)} captions of {len(split.base)} base classes from "
        f"{len(data.videos) - left_out} videos; {left_out} videos that show one of the "
        f"{len(split.novel)} novel classes are left out"
    )
    return []


def _detector(arguments: argparse.Namespace) -> Detector:
    """Build the detector; weights are read, and torch with them, for scorer ovoad alone."""
    trained = "ovoad" in arguments.scorer
    return build_detector(
        encoder=arguments.encoder,
        scorer="ovoad" if trained else None,
        weights=arguments.weights if trained else None,
        runtime=arguments.runtime,
        frames=arguments.evaluation in ("clips", "segments"),
    )


def _options(
    arguments: argparse.Namespace,
    labels: Sequence[str] | None = None,
    *,
    calibrated: bool = False,
) -> Options:
    protocol = PROTOCOLS[arguments.protocol]
    if arguments.score is not None:
        protocol = replace(protocol, score=arguments.score)

    def draw(result: ScorerResult, videos: Sequence[ScoredVideo]) -> None:
        names = [label.label for label in result.labels]
        paths = plots.draw_all(
            arguments.plots,
            names,
            result,
            videos,
            calibrated=calibrated,
            timeline=arguments.timeline,
        )
        print(f"drew {', '.join(map(str, paths))}", file=sys.stderr)

    look = draw if arguments.plots is not None else None
    return Options(tuple(arguments.scorer), protocol, calibrated, look)


def _mean_over_splits(reports: Sequence[Report]) -> str:
    """Average the headline metric over splits: mean and standard deviation per scorer."""
    metric = reports[0].metric
    rows = []
    for index, first in enumerate(reports[0].results):
        found = [report.results[index] for report in reports]
        values = [
            r.mean_calibrated_average_precision if metric == "mcAP" else r.mean_average_precision
            for r in found
        ]
        present = [value for value in values if value is not None]
        if present:
            rows.append([first.scorer, f"{np.mean(present):.3f}", f"{np.std(present):.3f}"])
    return table([f"over {len(reports)} splits", f"mean {metric}", "deviation"], rows)


def _words_file(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        return read_words(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise EvaluationError(f"{path}: found no readable text ({cause})") from cause
