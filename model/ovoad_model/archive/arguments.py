"""The arguments of `ovoad archive`, parsed once into what the rest is made from."""

import argparse
import os
from pathlib import Path
from typing import Final, get_args

from ovoad_model.archive.errors import ArchiveError
from ovoad_model.archive.events import EventRule
from ovoad_model.archive.settings import ArchiveSettings, PerFrame
from ovoad_model.scorers import ScorerName
from ovoad_model.window import FPS

LEAST_FPS: Final = 0.1
MOST_FPS: Final = 60.0


def build_parser() -> argparse.ArgumentParser:
    """Return the command's flags."""
    parser = argparse.ArgumentParser(
        prog="ovoad archive",
        description="Score whole archives of videos through Ray Data: one row a video, in Parquet "
        "files. A stopped run goes on where it was when the command is given again.",
        epilog='example: ovoad archive videos/ "s3://bucket/2026/*.mp4" '
        '--labels "riding a bicycle" --out results/',
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="file, folder, pattern with * or **, or address: s3://, gs://, abfs://, hdfs://",
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder of the results, or its address"
    )
    _add_question(parser.add_argument_group("what to look for"))
    _add_model(parser.add_argument_group("model"))
    _add_run(parser.add_argument_group("run"))
    return parser


def _add_question(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--labels",
        nargs="+",
        action="extend",
        required=True,
        metavar="LABEL",
        help="actions in plain words; may be given several times",
    )
    group.add_argument("--templates", nargs="+", action="extend", metavar='"… {} …"')
    group.add_argument("--background", nargs="+", action="extend", metavar="SENTENCE")
    group.add_argument("--fps", type=_fps, default=FPS, help=f"frames to score a second ({FPS:g})")
    group.add_argument(
        "--events",
        type=_events,
        default=EventRule(),
        metavar="ENTER,EXIT,MIN_MS",
        help="probabilities at which an event starts and ends, least duration in ms (0.5,0.3,500)",
    )
    group.add_argument(
        "--per-frame",
        choices=get_args(PerFrame),
        default="all",
        help="numbers of each frame to keep: probabilities and similarities, or fewer (all)",
    )


def _add_model(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--encoder", default="embedded", help="a name from `ovoad encoders`")
    group.add_argument("--scorer", choices=get_args(ScorerName))
    group.add_argument("--weights", type=Path, help="trained weights of scorer ovoad")
    group.add_argument("--runtime", default="auto", help="what runs the encoder (auto)")
    group.add_argument("--cache", type=Path, help="folder for exports and embedded words")


def _add_run(group: "argparse._ArgumentGroup") -> None:
    cores = os.cpu_count() or 1
    workers = max(1, cores // 2)
    group.add_argument(
        "--workers", type=_positive, default=workers, help=f"videos at once ({workers})"
    )
    group.add_argument(
        "--address", help="a running Ray: auto or HOST:PORT (one is started on this machine)"
    )
    group.add_argument("--cpus-per-worker", type=_amount, default=1.0, metavar="N", help="(1)")
    group.add_argument("--gpus-per-worker", type=_amount, default=0.0, metavar="N", help="(0)")
    group.add_argument(
        "--stall-timeout", type=_amount, default=60.0, metavar="SECONDS", help="for a frame (60)"
    )
    group.add_argument(
        "--time-limit", type=_amount, default=21_600.0, metavar="SECONDS", help="a video (21600)"
    )
    group.add_argument(
        "--part-videos", type=_positive, default=256, metavar="N", help="rows of a file (256)"
    )
    group.add_argument(
        "--part-seconds",
        type=_amount,
        default=30.0,
        metavar="SECONDS",
        help="how long finished rows wait at most to be written (30)",
    )
    group.add_argument("--retry-bad", action="store_true", help="score bad videos again")
    group.add_argument("--strict", action="store_true", help="end with 3 where videos are bad")
    group.add_argument("--quiet", action="store_true", help="say nothing but errors")


def settings_from(arguments: argparse.Namespace) -> ArchiveSettings:
    """Return what to score with; raises ArchiveError."""
    labels = tuple(arguments.labels)
    if len(set(labels)) != len(labels) or not all(label.strip() for label in labels):
        raise ArchiveError(f"found labels {list(labels)}, expected each once and none empty")
    for template in arguments.templates or ():
        if "{}" not in template:
            raise ArchiveError(f"found template {template!r}, expected one with {{}}")
    return ArchiveSettings(
        labels=labels,
        templates=tuple(arguments.templates) if arguments.templates else None,
        background=tuple(arguments.background) if arguments.background else None,
        scorer=arguments.scorer,
        encoder=arguments.encoder,
        weights=None if arguments.weights is None else arguments.weights.absolute(),
        runtime=arguments.runtime,
        fps=arguments.fps,
        events=arguments.events,
        per_frame=arguments.per_frame,
    )


def check_address(address: str | None) -> None:
    """Raise ArchiveError for an address of Ray that no rows can come from."""
    if address is not None and "://" in address:
        raise ArchiveError(
            f"found address {address!r}, expected auto or HOST:PORT: run the command on a machine "
            "of the cluster (ray job submit does so)"
        )


def _fps(text: str) -> float:
    fps = float(text)
    if not LEAST_FPS <= fps <= MOST_FPS:
        raise argparse.ArgumentTypeError(f"found {text}, expected {LEAST_FPS:g} to {MOST_FPS:g}")
    return fps


def _events(text: str) -> EventRule:
    try:
        enter, exit_, least_ms = text.split(",")
        rule = EventRule(float(enter), float(exit_), int(least_ms))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected ENTER,EXIT,MIN_MS such as 0.5,0.3,500"
        ) from None
    if not (0 <= rule.exit <= rule.enter < 1 and rule.enter > 0 and rule.min_duration_ms >= 0):
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected 0 <= EXIT <= ENTER < 1, ENTER above 0 and MIN_MS 0 or more"
        )
    return rule


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"found {number}, expected 1 or more")
    return number


def _amount(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text}, expected 0 or more")
    return number
