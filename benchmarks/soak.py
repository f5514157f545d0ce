"""Half an hour at a part of capacity, with sessions coming and going.

    python benchmarks/soak.py [--minutes 30] [--load 0.7] [--json soak.json] [--plot soak.png]

Finds the capacity of a server of its own first (realtime sessions of 4 frames/s whose p99 stays
within the budget, none dropped), then keeps so many sessions of 4 frames/s open, half of them
lossless, each for a random while (fixed seed). Counts by the client that every frame is answered
exactly once and that lossless sessions lose none; reads the memory of the server's processes that
no file backs every ten seconds and tells its slope over the last two thirds; tells latency and the
server's processor time a frame for every minute. Ends by itself; exit status 1 where a frame was
not answered once.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ovoad_client.bench.answers import Tally
from ovoad_client.bench.capacity import find_capacity
from ovoad_client.bench.frames import load_frames
from ovoad_client.bench.load import Load, run_load
from ovoad_client.bench.own_server import bench_server
from ovoad_client.bench.plot import save_figure
from ovoad_client.bench.progress import Progress
from ovoad_client.bench.resources import anonymous_kib, descendants, processor_s
from ovoad_client.bench.result import Row, describe_machine
from ovoad_client.bench.samples import Recorder, Samples
from ovoad_client.bench.session import LoadSession, SessionPlan
from ovoad_client.bench.statistics import percentiles, slope
from ovoad_client.bench.table import counts, markdown
from ovoad_client.demo import LABELS
from ovoad_client.interrupts import Interrupts
from ovoad_client.protocol import Policy

FPS = 4.0
BUDGET_MS = 250.0
SEED = 4
LIFETIME_S = (5.0, 60.0)
PAUSE_S = (0.0, 1.0)
READ_EVERY_S = 10.0
MOST_SESSIONS = 256


@dataclass(frozen=True)
class Minute:
    """What one minute cost."""

    minute: int
    frames: int
    frames_per_s: float
    server_cpu_ms: float  # processor time of the server a frame
    encode_p50_ms: float
    p50_ms: float
    p99_ms: float
    dropped: dict[str, int]
    memory_kib: int


@dataclass
class Soak:
    """All that the run found."""

    capacity_sessions: int
    sessions: int
    load: float
    minutes: list[Minute] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)  # (seconds, KiB)
    tally: Tally = field(default_factory=Tally)

    @property
    def slope_kib_per_minute(self) -> float:
        """Least squares over the last two thirds of the readings."""
        late = self.memory[len(self.memory) // 3 :]
        return slope([seconds / 60 for seconds, _ in late], [kib for _, kib in late])


class Run:
    """Slots that each hold one session after the other, until the time is up."""

    def __init__(self, soak: Soak, url: str, jpegs: Sequence[bytes], progress: Progress) -> None:
        self.stop = asyncio.Event()
        self._soak = soak
        self._url = url
        self._jpegs = jpegs
        self._progress = progress
        self._recorder = Recorder()
        self._start_s = time.perf_counter()

    async def run(self, minutes: float) -> None:
        """Keep the slots busy, read memory and time every minute, then let all sessions end."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._soak.sessions):
                tasks.create_task(self._keep_slot(number))
            await self._watch(minutes)
            self.stop.set()

    async def _keep_slot(self, number: int) -> None:
        chance = random.Random(SEED * 10_007 + number)
        policy: Policy = "lossless" if number % 2 else "realtime"
        plan = SessionPlan(self._url, LABELS, policy, fps=FPS, inflight=None)
        while not self.stop.is_set():
            session = await LoadSession.open(plan, self._recorder)
            leave = asyncio.Event()
            ending = asyncio.create_task(self._leave_after(chance.uniform(*LIFETIME_S), leave))
            await session.run(self._jpegs, leave, phase=chance.random())
            ending.cancel()
            session.add_to(self._soak.tally)
            await self._rest(chance.uniform(*PAUSE_S))

    async def _leave_after(self, seconds: float, leave: asyncio.Event) -> None:
        await self._rest(seconds)
        leave.set()

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop.wait()

    async def _watch(self, minutes: float) -> None:
        end_s = self._start_s + minutes * 60
        minute = 1
        minute_s, spent_s = self._start_s, processor_s(descendants(os.getpid()))
        while not self.stop.is_set() and (left_s := end_s - time.perf_counter()) > 0.01:
            due_s = self._start_s + minute * 60 - time.perf_counter()
            await self._rest(max(0.01, min(READ_EVERY_S, left_s, due_s)))
            now_s = time.perf_counter()
            servers = descendants(os.getpid())
            kib = anonymous_kib(servers)
            self._soak.memory.append((now_s - self._start_s, kib))
            self._progress.tell(f"{(now_s - self._start_s) / 60:.1f} of {minutes:g} minutes")
            if now_s >= self._start_s + minute * 60 or now_s >= end_s - 0.01:
                now_spent_s = processor_s(servers)
                found = make_minute(
                    minute, self._recorder.take(), now_s - minute_s, now_spent_s - spent_s, kib
                )
                self._soak.minutes.append(found)
                self._progress.say(minute_line(found))
                minute, minute_s, spent_s = minute + 1, now_s, now_spent_s


def make_minute(number: int, samples: Samples, seconds: float, server_s: float, kib: int) -> Minute:
    """Return what a minute's answers tell."""
    frames = samples.predictions
    times = percentiles(samples.times_ms["end to end"])
    return Minute(
        number,
        frames,
        frames / seconds,
        server_s * 1000 / max(1, frames),
        percentiles(samples.times_ms["encode"]).p50,
        times.p50,
        times.p99,
        dict(samples.dropped),
        kib,
    )


def minute_line(minute: Minute) -> str:
    """Return a minute in one line."""
    return (
        f"minute {minute.minute}: {minute.frames_per_s:.1f} frames/s, server "
        f"{minute.server_cpu_ms:.1f} ms CPU a frame, p50 {minute.p50_ms:.0f} ms, p99 "
        f"{minute.p99_ms:.0f} ms, dropped {counts(minute.dropped)}, "
        f"{minute.memory_kib / 1024:.0f} MiB"
    )


async def search_capacity(url: str, jpegs: Sequence[bytes], progress: Progress) -> int:
    """Return the most realtime sessions of 4 frames/s inside the budget."""
    target = SessionPlan(url, LABELS, "realtime", fps=FPS, inflight=None)

    async def measure(sessions: int) -> Row:
        row = await run_load(
            Load(sessions, FPS, "realtime", seconds=8.0, warmup_s=2.0),
            target,
            jpegs,
            stop=asyncio.Event(),
            tell=progress.tell,
            own_server=True,
        )
        progress.say(
            f"{sessions} sessions: {row.frames_per_s:.1f} frames/s, p99 "
            f"{row.end_to_end.p99:.0f} ms, dropped {counts(row.dropped)}"
        )
        return row

    found = await find_capacity(measure, first=4, most=MOST_SESSIONS, budget_ms=BUDGET_MS)
    progress.say(f"capacity: {found.sessions} sessions ({found.reason})")
    return found.sessions


async def run(arguments: argparse.Namespace) -> Soak:
    """Find the capacity, then soak."""
    jpegs = load_frames(arguments.video, max_side=640)
    progress = Progress()
    with Interrupts() as interrupts:
        async with bench_server([], sessions=MOST_SESSIONS + 64, say=progress.say) as url:
            capacity = arguments.capacity or await search_capacity(url, jpegs, progress)
            sessions = max(1, round(capacity * arguments.load))
            progress.say(f"{arguments.minutes:g} minutes with {sessions} sessions")
            soak = Soak(capacity, sessions, arguments.load)
            work = Run(soak, url, jpegs, progress)
            interrupts.stop = work.stop.set
            await work.run(arguments.minutes)
            interrupts.stop = None
    return soak


def report(soak: Soak) -> list[str]:
    """Return the tables and sentences, ready to print."""
    heads = ["minute", "frames/s", "server CPU ms/frame", "encode p50 ms", "p50 ms", "p99 ms"]
    heads += ["dropped", "MiB"]
    shown = [minute for minute in soak.minutes if minute.minute in (1, 2) or minute.minute % 5 == 0]
    body = [
        [
            str(each.minute),
            f"{each.frames_per_s:.1f}",
            f"{each.server_cpu_ms:.1f}",
            f"{each.encode_p50_ms:.1f}",
            f"{each.p50_ms:.1f}",
            f"{each.p99_ms:.1f}",
            counts(each.dropped),
            f"{each.memory_kib / 1024:.0f}",
        ]
        for each in shown or soak.minutes
    ]
    return [
        f"{soak.sessions} sessions x {FPS:g} frames/s, {soak.load:.0%} of a capacity of "
        f"{soak.capacity_sessions}; {soak.tally.sessions} sessions came and went",
        "",
        *markdown(heads, body),
        "",
        f"memory that no file backs: slope {soak.slope_kib_per_minute:+.1f} KiB/min over the last "
        f"two thirds of {len(soak.memory)} readings",
        soak.tally.sentence(),
    ]


def draw(soak: Soak, path: Path) -> None:
    """Draw memory, cost and latency over time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 8.0), layout="constrained")
    FigureCanvasAgg(figure)
    memory, cost, latency = figure.subplots(3, 1, sharex=True)
    memory.plot([s / 60 for s, _ in soak.memory], [kib / 1024 for _, kib in soak.memory])
    memory.set_ylabel("memory, MiB")
    ends = [minute.minute for minute in soak.minutes]
    cost.plot(ends, [minute.server_cpu_ms for minute in soak.minutes], marker="o")
    cost.set_ylabel("server CPU, ms a frame")
    latency.plot(ends, [minute.p50_ms for minute in soak.minutes], marker="o", label="p50")
    latency.plot(ends, [minute.p99_ms for minute in soak.minutes], marker="s", label="p99")
    latency.set_ylabel("end to end, ms")
    latency.set_xlabel("minutes")
    latency.legend(frameon=False)
    for axes in (memory, cost, latency):
        axes.set_ylim(0, 1.15 * axes.dataLim.ymax)
        axes.grid(alpha=0.25)
    figure.suptitle(
        f"{soak.sessions} sessions x {FPS:g} frames/s, {soak.load:.0%} of capacity; memory "
        f"{soak.slope_kib_per_minute:+.1f} KiB/min",
        fontsize=10,
    )
    save_figure(figure, path)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--load", type=float, default=0.7, help="part of the capacity (0.7)")
    parser.add_argument("--capacity", type=int, help="sessions; default: found first")
    parser.add_argument("--video", help="default: the video of ovoad demo")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    soak = asyncio.run(run(arguments))
    print(describe_machine())
    print("\n".join(report(soak)))
    if arguments.json:
        found = {**asdict(soak), "slope_kib_per_minute": soak.slope_kib_per_minute}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        draw(soak, arguments.plot)
    return 1 if soak.tally.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
