"""The words that `ovoad evaluate` takes; runs nothing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final, get_args

from ovoad_model.evaluation.field import DATASETS
from ovoad_model.evaluation.protocols import PROTOCOLS
from ovoad_model.evaluation.splits import SHARES
from ovoad_model.scorers import ScorerName

SCORERS: Final = get_args(ScorerName)
ALL_TRAINING_FREE: Final = "frame,average,cluster"


def argument_parser() -> argparse.ArgumentParser:
    """Describe every command and flag; `evaluation` names the command."""
    parser = argparse.ArgumentParser(
        prog="ovoad evaluate", description="Judge scorers on real video."
    )
    commands = parser.add_subparsers(dest="evaluation", required=True, metavar="WHAT")
    for dataset in DATASETS.values():
        command = commands.add_parser(dataset.name, help=f"{dataset.title}, from feature files")
        _add_dataset(command)
        _add_shared(command, scorer="average")
        _add_split(command)
    _add_clips(commands.add_parser("clips", help="labelled clips, stitched into streams"))
    _add_segments(commands.add_parser("segments", help="raw videos and a CSV of segments"))
    split = commands.add_parser("split", help="cut classes into base and novel, for training")
    _add_split_tool(split)
    return parser


def _add_dataset(command: argparse.ArgumentParser) -> None:
    command.add_argument("--root", type=Path, required=True, help="folder with data_info.json")
    command.add_argument("--feature", required=True, help="ROOT/FEATURE/VIDEO.npy, [L, F]")
    command.add_argument(
        "--targets", default="target_perframe", help="ROOT/TARGETS/VIDEO.npy, [L, columns]"
    )


def _add_split(command: argparse.ArgumentParser) -> None:
    which = command.add_mutually_exclusive_group()
    which.add_argument("--split", choices=tuple(SHARES), help="judge one part of a seeded split")
    which.add_argument("--classes", type=Path, help="judge these classes, one a line")
    command.add_argument("--part", choices=("novel", "base"), default="novel")
    command.add_argument("--seed", type=int, default=0, help="of the first split")
    command.add_argument(
        "--repeats", type=_positive, default=1, help="judge this many splits, seeds counting up"
    )


def _add_clips(command: argparse.ArgumentParser) -> None:
    command.add_argument("directory", type=Path, help="folder with clips and labels.json")
    words = command.add_mutually_exclusive_group()
    words.add_argument("--labels", nargs="+", help="the whole vocabulary")
    words.add_argument("--distractors", type=Path, help="further labels, one a line")
    command.add_argument("--seed", type=int, default=0, help="of the clips' order")
    how = command.add_mutually_exclusive_group()
    how.add_argument("--streams", type=_positive, default=4, help="orders to stitch")
    how.add_argument("--apart", action="store_true", help="each clip by itself, no cuts")
    _add_shared(command, scorer=ALL_TRAINING_FREE)


def _add_segments(command: argparse.ArgumentParser) -> None:
    command.add_argument("directory", type=Path, help="folder with the videos")
    command.add_argument(
        "--segments", type=Path, required=True, help="CSV: video,start_s,end_s,label"
    )
    command.add_argument("--labels", nargs="+", help="the vocabulary, if not the CSV's labels")
    command.add_argument("--metric", choices=("mAP", "mcAP"), default="mAP")
    _add_shared(command, scorer=ALL_TRAINING_FREE)


def _add_split_tool(command: argparse.ArgumentParser) -> None:
    command.add_argument("dataset", choices=tuple(DATASETS))
    _add_dataset(command)
    command.add_argument("--split", choices=tuple(SHARES), default="75/25")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--out", type=Path, required=True, help="folder for the lists")


def _add_shared(command: argparse.ArgumentParser, *, scorer: str) -> None:
    command.add_argument("--encoder", default="embedded", help="a name from `ovoad encoders`")
    command.add_argument("--runtime", default="auto", help="what runs the encoder; default auto")
    command.add_argument(
        "--scorer",
        type=_scorers,
        default=_scorers(scorer),
        help=f"{', '.join(SCORERS)}, commas between several; default {scorer}",
    )
    command.add_argument("--weights", type=Path, help="trained weights, for scorer ovoad")
    command.add_argument("--protocol", choices=tuple(PROTOCOLS), default="standard")
    command.add_argument(
        "--score",
        choices=("probability", "similarity"),
        help="what average precision ranks; default: as the protocol says",
    )
    command.add_argument("--json", type=Path, help="write the report here too")
    command.add_argument("--plots", type=Path, help="draw pictures into this folder")
    command.add_argument("--timeline", help="the video whose timeline is drawn")


def _scorers(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in SCORERS:
            raise argparse.ArgumentTypeError(
                f"found {name!r}, expected {', '.join(SCORERS)}, commas between several"
            )
    return names


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1")
    return int(text)
