"""The flags of `ovoad bench`, checked. Knows no connection."""

import argparse
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from ovoad_client.bench.load import Load
from ovoad_client.demo import LABELS
from ovoad_client.errors import UsageError
from ovoad_client.protocol import Policy, ScorerName
from ovoad_client.sources import DEFAULT_MAX_SIDE

SESSIONS: Final = (1, 8, 32)
BATCHES: Final = (1, 2, 4, 8, 16, 32)
CAPACITY_FPS: Final = 4.0
MAX_SESSIONS: Final = 10_000


@dataclass(frozen=True)
class Options:
    """What to measure. loads are in order; url None starts a server of the bench's own."""

    url: str | None
    api_key: str | None
    encoder: str | None
    runtime: str | None
    scorer: ScorerName | None
    labels: tuple[str, ...]
    top_k: int | None
    video: str | None
    max_side: int
    loads: tuple[Load, ...]
    baseline: bool
    batches: tuple[int, ...]
    baseline_seconds: float
    find_capacity: bool
    budget_ms: float
    most_sessions: int
    json: Path | None
    plot: Path | None

    @property
    def sessions(self) -> int:
        """The most sessions that any load may open."""
        most = self.most_sessions if self.find_capacity else 0
        return max([most, *(load.sessions for load in self.loads)])


def parse(argv: list[str] | None) -> Options:
    """Return the flags as options; raises UsageError for combinations that cannot work."""
    arguments = build_parser().parse_args(argv)
    if arguments.url and not arguments.baseline and (arguments.encoder or arguments.runtime):
        raise UsageError("found --encoder or --runtime with --url: that server has its own")
    return Options(
        url=arguments.url,
        api_key=arguments.api_key or None,
        encoder=arguments.encoder,
        runtime=arguments.runtime,
        scorer=arguments.scorer,
        labels=tuple(arguments.labels),
        top_k=arguments.top_k,
        video=arguments.video,
        max_side=arguments.max_side,
        loads=_loads(arguments),
        baseline=arguments.baseline,
        batches=tuple(arguments.batches),
        baseline_seconds=arguments.baseline_seconds,
        find_capacity=arguments.find_capacity,
        budget_ms=arguments.budget_ms,
        most_sessions=arguments.max_sessions,
        json=arguments.json,
        plot=arguments.plot,
    )


def build_parser() -> argparse.ArgumentParser:
    """Return the command's flags."""
    parser = argparse.ArgumentParser(
        prog="ovoad bench",
        description="Load a server with real video, check that every frame is answered once, and "
        "tell frames/s, latency by stage and capacity. Without --url it starts a server itself.",
        epilog="examples: ovoad bench --baseline | ovoad bench --url HOST:8000 --fps 4 --sessions "
        "1 16 64 | ovoad bench --find-capacity --fps 4 --budget-ms 250",
    )
    _add_target(parser)
    load = parser.add_argument_group("the load; every combination is one row")
    load.add_argument("--sessions", type=_sessions, nargs="+", metavar="N", help="default: 1 8 32")
    load.add_argument(
        "--fps",
        type=_fps,
        nargs="+",
        metavar="FPS",
        help="frames/s of each session; 0: as fast as answers come (default; for a capacity 4)",
    )
    load.add_argument(
        "--policy",
        choices=get_args(Policy),
        nargs="+",
        help="default: lossless at 0 frames/s, else realtime",
    )
    load.add_argument("--inflight", type=_count, metavar="N", help="unanswered frames a session")
    load.add_argument("--seconds", type=_positive, default=10.0, help="measured time (10)")
    load.add_argument("--warmup", type=_seconds, default=2.0, help="time before it, seconds (2)")
    load.add_argument("--video", metavar="FILE", help="default: the video of ovoad demo")
    load.add_argument("--labels", nargs="+", default=LABELS, metavar="LABEL")
    load.add_argument("--top-k", type=_count, metavar="K", help="get only the K likeliest labels")
    load.add_argument("--scorer", choices=get_args(ScorerName))
    load.add_argument(
        "--max-side",
        type=int,
        default=DEFAULT_MAX_SIDE,
        metavar="PIXELS",
        help=f"shrink frames to this longer side ({DEFAULT_MAX_SIDE}); 0: never",
    )
    _add_questions(parser)
    return parser


def _add_target(parser: argparse.ArgumentParser) -> None:
    target = parser.add_argument_group("the server")
    target.add_argument("--url", help="ws://HOST:PORT/v1/stream, http://HOST:PORT or HOST:PORT")
    target.add_argument(
        "--api-key",
        default=os.environ.get("OVOAD_API_KEY"),
        help="the server's key (default: the environment's OVOAD_API_KEY)",
    )
    target.add_argument("--encoder", help="encoder of the bench's own server, and of --baseline")
    target.add_argument("--runtime", help="what runs that encoder")


def _add_questions(parser: argparse.ArgumentParser) -> None:
    more = parser.add_argument_group("what else to find, and where to put it")
    more.add_argument(
        "--baseline",
        action="store_true",
        help="measure the bare model between the loads, on this machine: efficiency, added latency",
    )
    more.add_argument(
        "--batches",
        type=_count,
        nargs="+",
        default=BATCHES,
        metavar="N",
        help="batch sizes that --baseline tries (1 2 4 8 16 32)",
    )
    more.add_argument(
        "--baseline-seconds", type=_positive, default=1.5, help="for each of its figures (1.5)"
    )
    more.add_argument(
        "--find-capacity",
        action="store_true",
        help="raise the sessions until p99 crosses the budget or frames are dropped",
    )
    more.add_argument("--budget-ms", type=_positive, default=250.0, help="of p99 end to end (250)")
    more.add_argument(
        "--max-sessions", type=_sessions, default=256, metavar="N", help="of that search (256)"
    )
    more.add_argument("--json", type=Path, metavar="FILE", help="write everything")
    more.add_argument("--plot", type=Path, metavar="FILE", help="draw rate and latency, e.g. b.png")


def _loads(arguments: argparse.Namespace) -> tuple[Load, ...]:
    """Return the rows to measure: for a capacity, one a pace and policy with the first number."""
    searching = arguments.find_capacity
    paces = arguments.fps or [CAPACITY_FPS if searching else 0.0]
    if searching and 0.0 in paces:
        raise UsageError("found --fps 0 with --find-capacity, expected more than 0 frames/s each")
    numbers = arguments.sessions or (SESSIONS[:1] if searching else SESSIONS)
    loads = [
        Load(sessions, fps, policy, arguments.seconds, arguments.warmup, arguments.inflight)
        for fps in paces
        for policy in arguments.policy or ["realtime" if fps else "lossless"]
        for sessions in (numbers[:1] if searching else numbers)
        if fps or policy == "lossless"
    ]
    if not loads:
        raise UsageError("found --fps 0 with --policy realtime alone, expected lossless or --fps")
    return tuple(loads)


def _number(text: str, expected: str, *, least: float, above: bool = False) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and (value > least if above else value >= least)):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected {expected}")
    return value


def _fps(text: str) -> float:
    return _number(text, "frames/s, or 0 for as fast as answers come", least=0)


def _seconds(text: str) -> float:
    return _number(text, "seconds, 0 or more", least=0)


def _positive(text: str) -> float:
    return _number(text, "a number above 0", least=0, above=True)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1 on")
    return int(text)


def _sessions(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_SESSIONS:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected 1 to {MAX_SESSIONS} sessions")
    return int(text)
