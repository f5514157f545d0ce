"""Memory of sessions at rest: a server's processes before, with, and after many sessions.

    python benchmarks/idle_sessions.py [--sessions 1000] [--frames 32] [--json FILE]

Every session sends enough frames to fill its window, so nothing is left that is not yet allocated,
then rests; all close, and as many open once more: what is kept after the first time is used again
by the second. A first load on the same server, ended before the first reading, warms it up. Memory
is that of all the server's processes, shared pages shared out (Pss). 1,000 sessions x 32 frames
take about 10 minutes at 60 frames/s.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from ovoad_client.bench.answers import Tally
from ovoad_client.bench.frames import load_frames
from ovoad_client.bench.load import Load, open_sessions, run_load
from ovoad_client.bench.own_server import bench_server
from ovoad_client.bench.progress import Progress
from ovoad_client.bench.resources import allow_files, descendants, resident_kib
from ovoad_client.bench.result import describe_machine
from ovoad_client.bench.samples import Recorder
from ovoad_client.bench.session import LoadSession, SessionPlan
from ovoad_client.bench.table import markdown
from ovoad_client.demo import LABELS

SMALL_SIDE = 128
WARM_SESSIONS = 64
REST_S = 10.0
SENDING_AT_ONCE = 64
SETTINGS = {"OVOAD_IDLE_TIMEOUT_S": "7200"}


@dataclass(frozen=True)
class Reading:
    """Memory of the server's processes at one time, and the sessions that it is told over."""

    when: str
    kib: int
    sessions: int = 0


async def run(sessions: int, frames: int) -> list[Reading]:
    """Measure: just started, warmed up, then twice with the sessions and without them."""
    jpegs = load_frames(None, max_side=SMALL_SIDE, max_frames=frames)
    progress = Progress()
    allow_files(2 * sessions)
    async with bench_server([], sessions=sessions + 64, say=progress.say, settings=SETTINGS) as url:
        target = SessionPlan(url, LABELS, "lossless", fps=4, inflight=8)
        readings = [Reading("just started", resident_kib(descendants(os.getpid())))]
        await warm(target, jpegs, progress)
        readings.append(Reading("warmed up, no session", await resident_at_rest()))
        for times, each in (("", frames), (" again", 1)):
            kib, count = await rest(target, sessions, jpegs, each, progress)
            readings.append(
                Reading(f"{count} sessions at rest{times}, {each} frames each", kib, count)
            )
            readings.append(Reading(f"all closed{times}", await resident_at_rest(), count))
    return readings


async def rest(
    target: SessionPlan, sessions: int, jpegs: Sequence[bytes], frames: int, progress: Progress
) -> tuple[int, int]:
    """Open sessions, send each its frames, let them rest, close them; returns KiB and how many."""
    recorder = Recorder()
    opened = await open_sessions(
        target, sessions, recorder, Counter(), asyncio.Event(), progress.tell
    )
    async with AsyncExitStack() as stack:
        for session in opened:
            await stack.enter_async_context(session.listening())
        await fill(opened, jpegs, frames, recorder, progress)
        progress.say(f"{len(opened)} sessions rest")
        kib = await resident_at_rest()
    tally = Tally()
    for session in opened:
        session.add_to(tally)
    progress.say(tally.sentence())
    return kib, len(opened)


async def warm(target: SessionPlan, jpegs: Sequence[bytes], progress: Progress) -> None:
    """Let the server see its largest batches once."""
    load = Load(WARM_SESSIONS, 0, "lossless", seconds=20.0, warmup_s=0.0)
    await run_load(load, target, jpegs, stop=asyncio.Event(), tell=progress.tell, own_server=False)


async def fill(
    sessions: Sequence[LoadSession],
    jpegs: Sequence[bytes],
    frames: int,
    recorder: Recorder,
    progress: Progress,
) -> None:
    """Send every session its frames, some sessions at once, each waiting for its answers."""
    gate = asyncio.Semaphore(SENDING_AT_ONCE)
    start_s = time.perf_counter()

    async def fill_one(session: LoadSession) -> None:
        async with gate:
            for number in range(frames):
                await session.exchange(jpegs[number % len(jpegs)])
        done = recorder.samples.predictions
        rate = done / (time.perf_counter() - start_s)
        progress.tell(f"{done} of {len(sessions) * frames} frames, {rate:.1f} frames/s")

    async with asyncio.TaskGroup() as tasks:
        for session in sessions:
            tasks.create_task(fill_one(session))


async def resident_at_rest() -> int:
    """Return the server's memory in KiB after a rest."""
    await asyncio.sleep(REST_S)
    return resident_kib(descendants(os.getpid()))


def table(readings: Sequence[Reading]) -> list[str]:
    """Return the Markdown table; KiB a session is over the warm server without sessions."""
    warm_kib = readings[1].kib
    body = []
    for reading in readings:
        over = (reading.kib - warm_kib) / reading.sessions if reading.sessions else None
        share = "" if over is None else f"{over:.1f}"
        body.append([reading.when, f"{reading.kib / 1024:.0f}", share])
    return markdown(["memory of the server's processes", "MiB", "KiB a session"], body)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument(
        "--frames", type=int, default=32, help="for each session (32 fill a window)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    readings = asyncio.run(run(arguments.sessions, arguments.frames))
    print(describe_machine())
    print("\n" + "\n".join(table(readings)))
    if arguments.json:
        text = json.dumps([asdict(reading) for reading in readings], indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
