"""`ovoad features`, `ovoad train` and `ovoad captions`: arguments in, reports out."""

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Final, get_args

import torch
from torch import distributed

from ovoad_model.build import build_encoder
from ovoad_model.errors import ModelError
from ovoad_model.network.config import NetworkConfig
from ovoad_model.training.captions import write_captions
from ovoad_model.training.converters import (
    TAG_TEMPLATE,
    Conversion,
    convert_activitynet,
    convert_activitynet_captions,
    convert_internvid,
)
from ovoad_model.training.features import ExtractionReport, extract_features, find_videos
from ovoad_model.training.run import SMALL, PhrasesUse, RunOptions, is_first_process, prepare
from ovoad_model.training.settings import (
    Precision,
    RepeatedTexts,
    TrainingError,
    TrainingSettings,
)

FAILED: Final = 1
SOME_DAMAGED: Final = 3
INTERRUPTED: Final = 130

DEFAULTS: Final = TrainingSettings()


def features_main(argv: list[str]) -> int:
    """Run `ovoad features ARGV`: 0 all done, 3 some videos damaged, 1 nothing could be done."""
    parser = argparse.ArgumentParser(
        prog="ovoad features",
        description="Write VIDEO.npy, the features of a video's frames at 4 fps, for every video "
        "of a folder. Finished videos are skipped, so a stopped run goes on where it was.",
    )
    parser.add_argument("videos", type=Path, metavar="DIR", help="folder of videos")
    parser.add_argument(
        "--encoder", default="embedded", help="a name from `ovoad encoders` (embedded)"
    )
    parser.add_argument("--runtime", default="auto", help="what runs the encoder (auto)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the features")
    parser.add_argument("--batch-size", type=_positive, default=32, help="frames at once (32)")
    parser.add_argument("--workers", type=_positive, default=2, help="videos decoded at once (2)")
    arguments = parser.parse_args(argv)
    return _guarded("features", lambda: _extract(arguments))


def _extract(arguments: argparse.Namespace) -> int:
    videos = find_videos(arguments.videos)
    if not videos:
        raise ModelError(f"{arguments.videos}: found no video files")
    report = _extract_with_progress(arguments, videos)
    for damaged in report.damaged:
        print(f"damaged: {damaged.path}: {damaged.reason}", file=sys.stderr)
    print(
        f"{len(report.written)} videos written ({report.frames} frames), "
        f"{len(report.skipped)} finished before, {len(report.damaged)} damaged"
    )
    return SOME_DAMAGED if report.damaged else 0


def _extract_with_progress(arguments: argparse.Namespace, videos: list[Path]) -> ExtractionReport:
    from rich.progress import Progress

    encoder = build_encoder(arguments.encoder, runtime=arguments.runtime)
    with Progress() as progress:
        bar = progress.add_task("videos", total=len(videos))
        return extract_features(
            videos,
            encoder,
            arguments.out,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            on_video=lambda video: progress.advance(bar),
        )


def captions_main(argv: list[str]) -> int:
    """Run `ovoad captions ARGV`: 0 when captions were written."""
    parser = argparse.ArgumentParser(
        prog="ovoad captions",
        description="Turn annotations into timed captions: JSON lines of video, start_ms, end_ms, "
        "text.",
    )
    parser.add_argument("format", choices=("activitynet", "activitynet-captions", "internvid"))
    parser.add_argument("annotations", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl")
    tags = parser.add_argument_group("activitynet alone")
    tags.add_argument(
        "--subset", default="training", help='which subset, "all" for every (training)'
    )
    tags.add_argument(
        "--template", default=TAG_TEMPLATE, help=f"sentence of a tag ({TAG_TEMPLATE})"
    )
    tags.add_argument("--video-prefix", default="v_", help="put before the id to name a video (v_)")
    arguments = parser.parse_args(argv)
    return _guarded("captions", lambda: _convert(arguments))


def _convert(arguments: argparse.Namespace) -> int:
    conversion = _conversion(arguments)
    for problem in conversion.problems:
        print(f"left out: {problem}", file=sys.stderr)
    write_captions(arguments.out, conversion.captions)
    videos = len({caption.video for caption in conversion.captions})
    print(
        f"{len(conversion.captions)} captions of {videos} videos, "
        f"{len(conversion.problems)} entries left out: {arguments.out}"
    )
    return 0


def _conversion(arguments: argparse.Namespace) -> Conversion:
    path = arguments.annotations
    if arguments.format == "activitynet-captions":
        return convert_activitynet_captions(path)
    if arguments.format == "internvid":
        return convert_internvid(path)
    if "{}" not in arguments.template:
        raise ModelError(f"found template {arguments.template!r}, expected one with {{}}")
    return convert_activitynet(
        path,
        subset=None if arguments.subset == "all" else arguments.subset,
        template=arguments.template,
        video_prefix=arguments.video_prefix,
    )


def train_main(argv: list[str]) -> int:
    """Run `ovoad train ARGV`: 0 when trained to the end, 130 when stopped with a checkpoint."""
    arguments = _train_parser().parse_args(argv)
    return _guarded("train", lambda: _train(arguments))


def _train_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ovoad train",
        description="Train the scorer ovoad on timed captions over extracted features. Defaults "
        "are the paper's. Several processes: torchrun -m ovoad_model.training train ...",
    )
    data = parser.add_argument_group("data")
    data.add_argument("--captions", type=Path, required=True, metavar="FILE.jsonl")
    data.add_argument("--features", type=Path, required=True, metavar="DIR")
    data.add_argument("--encoder", default="embedded", help="the one of the features (embedded)")
    data.add_argument("--out", type=Path, required=True, metavar="DIR")
    data.add_argument("--background-share", type=float, default=0.2, help="of all windows (0.2)")
    data.add_argument("--extra-texts", type=int, default=2, help="M, further captions (2)")
    data.add_argument("--windows-per-epoch", type=_positive, help="default: one for 8 frames")
    data.add_argument(
        "--phrases",
        choices=get_args(PhrasesUse),
        default="auto",
        help="verb–object phrases: auto where the parser is installed (auto)",
    )
    data.add_argument("--skip-bad-lines", action="store_true", help="name them and go on")
    network = parser.add_argument_group("network")
    network.add_argument("--size", choices=("paper", "small"), default="paper")
    network.add_argument("--network", type=Path, metavar="FILE.json", help="members to replace")
    network.add_argument(
        "--text-adapters",
        action="store_true",
        help="train them too: for open_clip encoders",
    )
    run = parser.add_argument_group("run")
    run.add_argument("--resume", action="store_true", help="go on from the checkpoint, if any")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (auto)")
    run.add_argument("--precision", choices=("auto", *get_args(Precision)), default="auto")
    run.add_argument("--threads", type=_positive, help="of the CPU; default: torch's choice")
    run.add_argument("--no-tensorboard", action="store_true", help="log.csv alone")
    _add_settings(parser.add_argument_group("settings"))
    return parser


def _add_settings(group: "argparse._ArgumentGroup") -> None:
    """One option for each training setting that is a number, and the forks."""
    for setting in fields(TrainingSettings):
        if setting.name in ("precision", "repeated_texts"):
            continue
        default = getattr(DEFAULTS, setting.name)
        kind = int if setting.name == "chunk" else type(default)
        option = "--" + setting.name.replace("_", "-")
        group.add_argument(option, type=kind, default=default, help=f"({default})")
    group.add_argument(
        "--repeated-texts", choices=get_args(RepeatedTexts), default=DEFAULTS.repeated_texts
    )


def _train(arguments: argparse.Namespace) -> int:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = _open_processes(arguments.device)
    try:
        say: Callable[[str], None] = print if is_first_process() else lambda text: None
        run = prepare(_options(arguments, device), build_encoder(arguments.encoder), say)
        _stop_on_signals(run.trainer.ask_to_stop)
        if not run.trainer.run():
            say(
                f"stopped at step {run.trainer.step}: {run.trainer.checkpoint_path}; "
                "go on with --resume"
            )
            return INTERRUPTED
        if is_first_process():
            say(f"weights: {run.finish()}")
        return 0
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _options(arguments: argparse.Namespace, device: str) -> RunOptions:
    chosen = {f.name: getattr(arguments, f.name) for f in fields(TrainingSettings)}
    chosen["precision"] = _precision(arguments.precision, device)
    return RunOptions(
        captions=arguments.captions,
        features=arguments.features,
        out=arguments.out,
        settings=TrainingSettings(**chosen),
        network=_network(arguments.size, arguments.network),
        background_share=arguments.background_share,
        extra_texts=arguments.extra_texts,
        windows_per_epoch=arguments.windows_per_epoch,
        phrases=arguments.phrases,
        skip_bad_lines=arguments.skip_bad_lines,
        text_adapters=arguments.text_adapters,
        resume=arguments.resume,
        device=device,
        tensorboard=not arguments.no_tensorboard,
    )


def _network(size: str, path: Path | None) -> NetworkConfig:
    """The config of this size, with the members of a JSON file in place of its own."""
    config = SMALL if size == "small" else NetworkConfig()
    if path is None:
        return config
    try:
        text = path.read_text()
        NetworkConfig.from_json(text)  # names unknown members
        return replace(config, **json.loads(text))
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{path}: found no network settings ({error})") from error


def _precision(asked: str, device: str) -> str:
    """Half precision where the device is fast at it, else float32."""
    if asked != "auto":
        return asked
    if not device.startswith("cuda"):
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def _open_processes(device: str) -> str:
    """Join the processes that torchrun started, if it did; returns this one's device."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and "RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    _check_device(device)
    if "RANK" not in os.environ:
        return device
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return device


def _check_device(device: str) -> None:
    """Refuse a device that is not there."""
    if device == "cpu":
        return
    match = re.fullmatch(r"cuda(?::(\d{1,4}))?", device)
    if match is None:
        raise TrainingError(f"found device {device!r}, expected auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(match[1] or 0) >= count:
        raise TrainingError(
            f"found device {device!r} and {count} GPUs, expected one that torch can use"
        )


def _stop_on_signals(stop: Callable[[], None]) -> None:
    """End the run after the step at hand, with a checkpoint; a second signal ends it at once."""

    def handle(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def _guarded(command: str, run: Callable[[], int]) -> int:
    """Turn the package's errors into one line on stderr and an exit status."""
    try:
        return run()
    except (ModelError, OSError) as error:
        print(f"ovoad {command}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"\novoad {command}: interrupted", file=sys.stderr)
        return INTERRUPTED


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"found {number}, expected 1 or more")
    return number
