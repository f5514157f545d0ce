"""`ovoad watch SOURCE …`: stream video to a server and show its answers as they come."""

import argparse
import asyncio
import contextlib
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast, get_args

from pydantic import ValidationError

from ovoad_client.address import DEFAULT_URL
from ovoad_client.captures import RECONNECT
from ovoad_client.errors import ClientError, UsageError
from ovoad_client.exits import exit_status
from ovoad_client.interrupts import EXIT_INTERRUPTED, Interrupts
from ovoad_client.lines import LineView, NamedLines
from ovoad_client.outputs import check_outputs
from ovoad_client.overwriting import check_not_sources
from ovoad_client.plot import check_plotting
from ovoad_client.protocol import EventSettings, Policy, ScorerName
from ovoad_client.reading import Pace
from ovoad_client.reconnecting import Reconnect
from ovoad_client.several import numbered, total_line, watch_several
from ovoad_client.sources import (
    DEFAULT_MAX_SIDE,
    STANDARD_INPUT,
    VideoSource,
    open_source,
)
from ovoad_client.watching import View, WatchOptions, summary_lines, watch

if TYPE_CHECKING:
    from ovoad_client.several_table import SharedScreen

MOST_FPS: Final = 1000


def main(argv: list[str] | None = None) -> int:
    """Watch one source or several; 0 when it ended well, 1 after a problem, 130 after Ctrl-C."""
    arguments = build_parser().parse_args(argv)
    options = options_from(arguments)

    def work() -> int:
        if options.plot is not None:
            check_plotting(options.plot)
        check_outputs(options.save)
        check_files(arguments.source, options)
        sources = open_sources(arguments.source, fps=arguments.fps, again=options.reconnect)
        table = not arguments.no_table
        if len(sources) == 1:
            return asyncio.run(_run(sources[0], options, table=table))
        return asyncio.run(_run_several(sources, options, table=table))

    return exit_status("ovoad watch", work)


def check_files(sources: Sequence[str], options: WatchOptions) -> None:
    """Raise UsageError where a file that would be written is one of the sources."""
    several = len(sources) > 1
    all_options = [numbered(options, number) for number in range(1, len(sources) + 1)]
    for each in all_options if several else [options]:
        check_not_sources([*each.save, *([] if each.plot is None else [each.plot])], sources)


def build_parser() -> argparse.ArgumentParser:
    """Return the command's flags."""
    parser = argparse.ArgumentParser(
        prog="ovoad watch",
        description="Stream a video to an ovoad server and show the probability of each action.",
        epilog='example: ovoad watch street.mp4 --labels "riding a bicycle" "crossing the street"',
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="+",
        help="file, folder of pictures, camera number, rtsp/http address, - (JPEG pictures on "
        "standard input), screen, screen:1, screen:X,Y,WIDTHxHEIGHT; several are watched at once",
    )
    add_session_flags(parser)
    _add_connection_flags(parser)
    _add_file_flags(parser)
    parser.add_argument("--no-table", action="store_true", help="print lines, not a live table")
    return parser


def _add_connection_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say whom to ask, and how frames are sent."""
    parser.add_argument(
        "--url", default=DEFAULT_URL, help="ws://HOST:PORT/v1/stream, http://HOST:PORT or HOST:PORT"
    )
    parser.add_argument(
        "--api-key",
        default=os.environ.get("OVOAD_API_KEY"),
        help="the server's key (default: the environment's OVOAD_API_KEY)",
    )
    parser.add_argument(
        "--pace",
        choices=get_args(Pace),
        default="source",
        help="send a file's frames at their own times, or as fast as answers come",
    )
    parser.add_argument(
        "--fps",
        type=_rate,
        metavar="RATE",
        help="frames/s of a folder (25), of the screen (10), of standard input (as they come)",
    )
    parser.add_argument("--policy", choices=get_args(Policy), default="realtime")
    parser.add_argument("--duration", type=_positive, metavar="SECONDS", help="stop after that")
    parser.add_argument(
        "--no-reconnect",
        action="store_true",
        help="end at the first break of the connection to the server or to a network source",
    )


def _add_file_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what to keep."""
    parser.add_argument(
        "--save",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="write .jsonl (every message), .csv (probabilities of each frame), .events.csv, .srt "
        "(events) or .mp4 (the video with bars, events and time drawn in); may be several",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the timeline, e.g. out.png")


def add_session_flags(parser: argparse.ArgumentParser, *, labels_required: bool = True) -> None:
    """Add the flags that say what to look for, and in frames of what size."""
    add_question_flags(parser, labels_required=labels_required)
    parser.add_argument(
        "--max-side",
        type=int,
        default=DEFAULT_MAX_SIDE,
        metavar="PIXELS",
        help=f"shrink frames to this longer side before sending ({DEFAULT_MAX_SIDE}); 0: never",
    )


def add_question_flags(parser: argparse.ArgumentParser, *, labels_required: bool = True) -> None:
    """Add the flags that say what to look for, in a stream or a clip."""
    parser.add_argument(
        "--labels",
        nargs="+",
        action="extend",
        metavar="LABEL",
        required=labels_required,
        help="actions in plain words; may be given several times",
    )
    parser.add_argument("--templates", nargs="+", action="extend", metavar='"… {} …"')
    parser.add_argument("--background", nargs="+", action="extend", metavar="SENTENCE")
    parser.add_argument("--scorer", choices=get_args(ScorerName))
    parser.add_argument("--top-k", type=int, metavar="K", help="get only the K likeliest labels")
    parser.add_argument(
        "--events",
        type=parse_events,
        metavar="ENTER,EXIT,MIN_MS",
        help="probabilities at which an event starts and ends, least duration in ms",
    )


def options_from(arguments: argparse.Namespace) -> WatchOptions:
    """Return the parsed flags as options."""
    return WatchOptions(
        url=arguments.url,
        labels=cast(Sequence[str], arguments.labels),
        templates=arguments.templates,
        background=arguments.background,
        policy=arguments.policy,
        scorer=arguments.scorer,
        top_k=arguments.top_k,
        events=arguments.events,
        api_key=arguments.api_key or None,
        pace=arguments.pace,
        max_side=arguments.max_side,
        duration_s=arguments.duration,
        save=arguments.save,
        plot=arguments.plot,
        reconnect=None if arguments.no_reconnect else Reconnect(),
    )


def parse_events(text: str) -> EventSettings:
    """Parse "0.5,0.3,500"; raises ArgumentTypeError."""
    parts = text.split(",")
    try:
        enter, exit_, least = float(parts[0]), float(parts[1]), int(parts[2])
        if len(parts) != 3:
            raise ValueError
    except (ValueError, IndexError):
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected ENTER,EXIT,MIN_MS such as 0.5,0.3,500"
        ) from None
    try:
        return EventSettings(enter=enter, exit=exit_, min_duration_ms=least)
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise argparse.ArgumentTypeError(f"found {text!r}: {reason}") from error


def open_sources(
    names: Sequence[str], *, fps: float | None, again: Reconnect | None
) -> list[VideoSource]:
    """Open all sources, or none; raises what `open_source` raises."""
    if names.count(STANDARD_INPUT) > 1:
        raise UsageError("found standard input (-) twice, expected it once")
    sources: list[VideoSource] = []
    try:
        for name in names:
            reconnect = None if again is None else RECONNECT
            sources.append(open_source(name, fps=fps, reconnect=reconnect))
    except ClientError:
        for source in sources:
            source.close()
        raise
    return sources


def choose_view(source: VideoSource, *, table: bool) -> View:
    """Return the live table on a terminal, else lines."""
    if _may_draw(table):
        try:
            from ovoad_client.table import TableView
        except ModuleNotFoundError as error:
            print(f"no live table: found no module {error.name}: pip install 'ovoad[watch]'")
        else:
            return TableView(duration_ms=source.duration_ms)
    return LineView(duration_ms=source.duration_ms)


def _may_draw(table: bool) -> bool:
    return table and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


async def _run(source: VideoSource, options: WatchOptions, *, table: bool) -> int:
    view = choose_view(source, table=table)
    with Interrupts() as interrupts:
        summary = await watch(source, options, view, interrupts)
        for line in summary_lines(summary):
            view.say(line)
        for line in written_lines(options):
            view.say(line)
        if summary.failure is not None:
            raise summary.failure
        return EXIT_INTERRUPTED if interrupts.interrupted else 0


async def _run_several(
    sources: Sequence[VideoSource], options: WatchOptions, *, table: bool
) -> int:
    names = unique_names(sources)
    screen = _shared_screen() if _may_draw(table) else None
    with Interrupts() as interrupts, screen or contextlib.nullcontext():
        views: list[View] = [
            NamedLines(name, duration_ms=source.duration_ms)
            if screen is None
            else screen.view(name, duration_ms=source.duration_ms)
            for name, source in zip(names, sources, strict=True)
        ]
        watched = await watch_several(sources, options, views, interrupts)
    for name, one in zip(names, watched, strict=True):
        lines = [] if one.summary is None else summary_lines(one.summary)
        lines += [] if one.failure is None else [f"failed: {one.failure}"]
        for line in [*lines, *written_lines(one.options)]:
            print(f"[{name}] {line}")
    print(total_line(watched), flush=True)
    if any(one.failure is not None for one in watched):
        return 1
    return EXIT_INTERRUPTED if interrupts.interrupted else 0


def _shared_screen() -> "SharedScreen | None":
    try:
        from ovoad_client.several_table import SharedScreen
    except ModuleNotFoundError as error:
        print(f"no live table: found no module {error.name}: pip install 'ovoad[watch]'")
        return None
    return SharedScreen()


def unique_names(sources: Sequence[VideoSource]) -> list[str]:
    """Return the sources' names, numbered where two are alike."""
    names = [source.name for source in sources]
    return [
        name if names.count(name) == 1 else f"{number}: {name}"
        for number, name in enumerate(names, start=1)
    ]


def written_lines(options: WatchOptions) -> list[str]:
    """Return "wrote FILE" for each file that there is."""
    paths = [*options.save, *([] if options.plot is None else [options.plot])]
    return [f"wrote {path}" for path in paths if path.exists()]


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected more than 0")
    return value


def _rate(text: str) -> float:
    """Parse frames/s: times are whole milliseconds, so there are at most 1000."""
    value = _positive(text)
    if value > MOST_FPS:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected at most {MOST_FPS}")
    return value


if __name__ == "__main__":
    sys.exit(main())
