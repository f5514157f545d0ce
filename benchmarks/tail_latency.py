"""p99 against the median at a share of capacity, on a machine whose speed wanders.

    python benchmarks/tail_latency.py [--load 0.7] [--sessions 16] [--rounds 10] [--json FILE]

In every round the server is saturated for a few seconds, then loaded with so many frames a second
as are the share of what it just made, then saturated again. Sessions are spread evenly over the
time between two frames. One server for all rounds.

All rounds are shown, those in which the machine held its speed are counted: both saturations agree
to 5 %, and in no half second of the load a fixed piece of work beside it (speed_probe.py) took more
than 1.2 times its usual processor time. In others nobody knows what the load was a share of.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from speed_probe import SpeedProbe, speed_probe

from ovoad_client.bench.frames import load_frames
from ovoad_client.bench.load import Load, run_load
from ovoad_client.bench.own_server import bench_server
from ovoad_client.bench.progress import Progress
from ovoad_client.bench.result import Row, describe_machine
from ovoad_client.bench.session import SessionPlan
from ovoad_client.bench.table import counts, markdown
from ovoad_client.demo import LABELS

STEADY = 0.05
SLOW_SPELL = 1.2
SATURATING_SESSIONS = 8


@dataclass(frozen=True)
class Round:
    """Frames/s of the saturated server before and after, and the load between them.

    slowest: what the slowest half second of the load made of the probe's work, 1 as usual.
    """

    before_fps: float
    after_fps: float
    offered_fps: float
    p50_ms: float
    p99_ms: float
    dropped: dict[str, int]
    slowest: float

    @property
    def steady(self) -> bool:
        """Whether the machine held its speed."""
        return abs(self.after_fps / self.before_fps - 1) <= STEADY and self.slowest <= SLOW_SPELL

    @property
    def load(self) -> float:
        """Frames/s offered over the mean of what the server made before and after."""
        return 2 * self.offered_fps / (self.before_fps + self.after_fps)

    @property
    def tail(self) -> float:
        """p99 over the median."""
        return self.p99_ms / self.p50_ms


async def measure(options: argparse.Namespace) -> list[Round]:
    """Run the rounds against one server."""
    progress = Progress()
    most = max(options.sessions, SATURATING_SESSIONS) + 8
    server = bench_server([], sessions=most, say=progress.say)
    with speed_probe() as probe:
        async with server as url:
            return await _rounds(url, probe, progress, options)


async def _rounds(
    url: str, probe: SpeedProbe, progress: Progress, options: argparse.Namespace
) -> list[Round]:
    frames = load_frames(None, max_side=640)
    target = SessionPlan(url, LABELS, "lossless", fps=0, inflight=None)

    async def run(load: Load) -> Row:
        stop = asyncio.Event()
        return await run_load(load, target, frames, stop=stop, tell=progress.tell, own_server=True)

    saturating = Load(SATURATING_SESSIONS, 0, "lossless", options.saturated_seconds, 1.0)
    rounds: list[Round] = []
    before = (await run(saturating)).frames_per_s
    for number in range(1, options.rounds + 1):
        progress.prefix = f"{number}/{options.rounds} "
        pace = options.load * before / options.sessions
        start_s = time.monotonic()
        row = await run(Load(options.sessions, pace, "realtime", options.seconds, 1.0))
        slowest = probe.slowest_spell(start_s, time.monotonic())
        after = (await run(saturating)).frames_per_s
        p50_ms, p99_ms = row.end_to_end.p50, row.end_to_end.p99
        offered = pace * options.sessions
        rounds.append(Round(before, after, offered, p50_ms, p99_ms, row.dropped, slowest))
        progress.say(table(rounds[-1:])[-1])
        before = after
    return rounds


def table(rounds: Sequence[Round]) -> list[str]:
    """One line a round."""
    heads = ["saturated before", "after", "offered", "load", "p50 ms", "p99 ms", "p99 / p50"]
    return markdown(
        [*heads, "dropped", "slowest spell", "counted"],
        [
            [
                *(f"{value:.1f}" for value in (each.before_fps, each.after_fps, each.offered_fps)),
                f"{each.load:.2f}",
                f"{each.p50_ms:.1f}",
                f"{each.p99_ms:.1f}",
                f"{each.tail:.2f}",
                counts(each.dropped),
                f"{each.slowest:.2f}",
                "yes" if each.steady else "no",
            ]
            for each in rounds
        ],
    )


def main(arguments: Sequence[str]) -> int:
    """Print the rounds and the median ratio of the steady ones; 1 where there are none."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--load", type=float, default=0.7, help="share of capacity (0.7)")
    parser.add_argument("--sessions", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=6.0, help="of load, each round (6)")
    parser.add_argument("--saturated-seconds", type=float, default=3.0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    rounds = asyncio.run(measure(options))
    print("\n".join(["", describe_machine(), "", *table(rounds)]))
    if options.json:
        content = json.dumps([asdict(each) for each in rounds], indent=1)
        options.json.write_text(content + "\n", encoding="utf-8")
    steady = [each.tail for each in rounds if each.steady]
    if not steady:
        print("the machine was steady in no round")
        return 1
    met = sum(tail <= 2 for tail in steady)
    print(
        f"p99 / p50: median {median(steady):.2f}, {min(steady):.2f} to {max(steady):.2f}, at most "
        f"2 in {met} of {len(steady)} steady rounds ({len(rounds)} in all)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
