"""`ovoad clip FILE|URL…`: score whole videos on a server; JSON or JSON lines out."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import ValidationError

from ovoad_client.address import DEFAULT_URL
from ovoad_client.clip_output import (
    STANDARD_OUTPUT,
    Format,
    choose_format,
    open_output,
    output_paths,
    parse_line,
)
from ovoad_client.clip_progress import Progress, Summary
from ovoad_client.clip_sending import ClipError, ClipQuestion, clips_address, send_clip
from ovoad_client.clip_sources import check_source, clip_name, open_clip
from ovoad_client.errors import ClientError, UsageError
from ovoad_client.exits import exit_status
from ovoad_client.interrupts import EXIT_INTERRUPTED
from ovoad_client.overwriting import check_not_sources
from ovoad_client.protocol import describe
from ovoad_client.watch import add_question_flags

WAIT_S: Final = 60.0  # for a place on a busy server


@dataclass(frozen=True)
class ClipOptions:
    """What holds for all clips of one command; request is the JSON that goes with each."""

    url: str
    request: str
    api_key: str | None
    kind: Format
    wait_s: float


def main(argv: list[str] | None = None) -> int:
    """Score clips one after the other; 0 if all were, 1 if one was not, 2 after wrong usage."""
    arguments = build_parser().parse_args(argv)
    try:
        return exit_status("ovoad clip", lambda: _run(arguments))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def build_parser() -> argparse.ArgumentParser:
    """Return the command's flags."""
    parser = argparse.ArgumentParser(
        prog="ovoad clip",
        description="Score whole videos on an ovoad server: every sampled frame, and all events.",
        epilog='example: ovoad clip street.mp4 --labels "riding a bicycle" --output street.json',
    )
    parser.add_argument("sources", nargs="+", metavar="FILE|URL", help="file or http(s) address")
    add_question_flags(parser)
    parser.add_argument(
        "--fps", type=float, metavar="FPS", help="frames to score a second (the server's grid)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE|FOLDER|-",
        help="write the answers: .json, or .ndjson for lines; a folder for several clips; "
        "- for standard output",
    )
    parser.add_argument("--format", choices=get_args(Format), help="whatever the file's ending")
    parser.add_argument("--url", default=DEFAULT_URL, help="the server: http://HOST:PORT")
    parser.add_argument(
        "--api-key",
        default=os.environ.get("OVOAD_API_KEY"),
        help="the server's key (default: the environment's OVOAD_API_KEY)",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=WAIT_S,
        metavar="SECONDS",
        help=f"how long to wait for a place on a busy server ({WAIT_S:g})",
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    for source in arguments.sources:
        check_source(source)
    clips_address(arguments.url)
    kind = choose_format(arguments.output, arguments.format)
    paths = output_paths(arguments.sources, arguments.output, kind)
    files = [path for path in paths if path is not None and path != STANDARD_OUTPUT]
    check_not_sources(files, arguments.sources)
    options = ClipOptions(
        arguments.url, _question(arguments), arguments.api_key or None, kind, arguments.wait
    )
    failed = 0
    for source, path in zip(arguments.sources, paths, strict=True):
        progress = Progress(clip_name(source), quiet=arguments.quiet)
        try:
            summary = _score(source, path, options, progress)
        except ClientError as error:
            progress.clear()
            print(f"ovoad clip: {clip_name(source)}: {error}", file=sys.stderr)
            failed += 1
            continue
        finally:
            progress.clear()
        if not arguments.quiet:
            _say(summary, path)
    return 1 if failed else 0


def _question(arguments: argparse.Namespace) -> str:
    question = ClipQuestion(
        labels=arguments.labels,
        templates=arguments.templates,
        background=arguments.background,
        scorer=arguments.scorer,
        fps=arguments.fps,
        top_k=arguments.top_k,
        events=arguments.events,
    )
    try:
        return question.to_json()
    except ValidationError as error:
        raise UsageError(describe(error)) from error


def _score(source: str, path: Path | None, options: ClipOptions, progress: Progress) -> Summary:
    """Score one clip; while the server is busy, again and again until the time is up."""
    give_up_s = time.monotonic() + options.wait_s
    while True:
        try:
            return _score_once(source, path, options, progress)
        except ClipError as error:
            if error.retry_after_ms is None or error.status == 200:
                raise
            wait_s = error.retry_after_ms / 1000
            if time.monotonic() + wait_s > give_up_s:
                raise
            progress.say(f"the server is busy, trying again in {wait_s:.0f} s")
            time.sleep(wait_s)


def _score_once(
    source: str, path: Path | None, options: ClipOptions, progress: Progress
) -> Summary:
    summary = Summary(clip_name(source))
    with open_clip(source) as clip, open_output(path, options.kind) as writer:
        answer = send_clip(
            clip,
            options.request,
            url=options.url,
            api_key=options.api_key,
            tell=progress.tell_sent,
        )
        for line in answer:
            message: dict[str, Any] = parse_line(line)
            summary.take(message)
            progress.tell_scored(summary)
            if writer is not None:
                writer.write(line, message)
    return summary


def _say(summary: Summary, path: Path | None) -> None:
    """Print what was found, beside an output on standard output to standard error."""
    on_output = path is not None and str(path) == "-"
    out = sys.stderr if on_output else sys.stdout
    lines: Sequence[str] = summary.lines(events=path is None)
    for line in lines:
        print(line, file=out)
    if path is not None and not on_output:
        print(f"wrote {path}", file=out)


if __name__ == "__main__":
    sys.exit(main())
