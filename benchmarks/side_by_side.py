"""ovoad beside what one would write today: same video, same encoder, one run.

    python benchmarks/side_by_side.py [--clients 1 8 32] [--seconds 5] [--rounds 3] [--json FILE]

Six ways, one after the other in every round, in turned order in every second one: a loop that
encodes the last 8, or 32, frames again for each prediction; a FastAPI endpoint per image (one at a
time, and as many as cores); LitServe with its own batching; ovoad. Clients send one frame and wait
for its answer; ovoad is also measured with a session's frames streamed. Needs litserve:
pip install 'ovoad[bench]'. About 3 minutes a round with the defaults.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from serving_http import http_server, load_http, post

from ovoad_client.bench.frames import load_frames, write_frames
from ovoad_client.bench.load import Load, run_load
from ovoad_client.bench.own_server import bench_server
from ovoad_client.bench.result import describe_machine
from ovoad_client.bench.session import SessionPlan
from ovoad_client.bench.table import markdown, number
from ovoad_client.demo import LABELS

PEERS = Path(__file__).parent / "peers"
LITSERVE_BATCH = 8
FRAMES = 64


@dataclass(frozen=True)
class Figure:
    """One way with so many clients."""

    way: str
    clients: int
    frames_per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Setting:
    """What all ways have in common."""

    jpegs: tuple[bytes, ...]
    folder: Path
    clients: tuple[int, ...]
    seconds: float
    warmup_s: float


async def window_loop(setting: Setting, window: int) -> list[Figure]:
    """(a) the loop, in a process of its own."""
    command = [sys.executable, str(PEERS / "window_loop.py"), "--frames", str(setting.folder)]
    command += ["--window", str(window), "--seconds", str(setting.seconds)]
    command += ["--streams", *map(str, setting.clients), "--labels", *LABELS]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"window_loop.py ended ({process.returncode})")
    way = f"loop, last {window} frames encoded again"
    return [
        Figure(way, each["streams"], each["frames_per_s"], each["p50_ms"], each["p99_ms"])
        for each in json.loads(output)
    ]


async def fastapi(setting: Setting, at_once: int) -> list[Figure]:
    """(b) an endpoint per image."""
    requests = [post("/predict", jpeg, "image/jpeg") for jpeg in setting.jpegs]
    way = f"FastAPI per image, {at_once} at once"
    return await _http("fastapi_per_image.py", str(at_once), way, setting, requests)


async def litserve(setting: Setting) -> list[Figure]:
    """(c) LitServe."""
    requests = [
        post("/predict", json.dumps({"image": text}).encode(), "application/json")
        for text in (base64.b64encode(jpeg).decode() for jpeg in setting.jpegs)
    ]
    way = f"LitServe per image, batches up to {LITSERVE_BATCH}"
    return await _http("litserve_per_image.py", str(LITSERVE_BATCH), way, setting, requests)


async def _http(
    script: str, argument: str, way: str, setting: Setting, requests: Sequence[bytes]
) -> list[Figure]:
    port = free_port()
    command = [sys.executable, str(PEERS / script), str(port), argument, *LABELS]
    found = []
    async with http_server(command, port):
        for clients in setting.clients:
            rate, times = await load_http(
                port,
                requests,
                clients=clients,
                seconds=setting.seconds,
                warmup_s=setting.warmup_s,
            )
            found.append(Figure(way, clients, rate, times.p50, times.p99))
    return found


async def ovoad(setting: Setting) -> list[Figure]:
    """ovoad: one frame at a time as the others, then streamed."""
    found = []
    async with ovoad_server(max(setting.clients)) as url:
        target = SessionPlan(url, LABELS, "lossless", fps=0, inflight=None)
        for way, inflight in (("ovoad, one frame at a time", 1), ("ovoad, streamed", None)):
            for clients in setting.clients:
                load = Load(clients, 0, "lossless", setting.seconds, setting.warmup_s, inflight)
                row = await run_load(
                    load,
                    target,
                    setting.jpegs,
                    stop=asyncio.Event(),
                    tell=lambda text: None,
                    own_server=False,
                )
                if row.tally.complaints:
                    raise RuntimeError(row.tally.sentence())
                times = row.end_to_end
                found.append(Figure(way, clients, row.frames_per_s, times.p50, times.p99))
    return found


@contextlib.asynccontextmanager
async def ovoad_server(sessions: int) -> AsyncIterator[str]:
    """Run `ovoad serve` for these sessions."""
    async with bench_server([], sessions=sessions + 8, say=lambda text: None) as url:
        yield url


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def run_round(setting: Setting, *, turned: bool) -> list[Figure]:
    """Measure every way once."""
    cores = os.cpu_count() or 1
    found: list[Figure] = []
    ways: list[tuple[str, Callable[[], Awaitable[list[Figure]]]]] = [
        ("loop, 8 frames", lambda: window_loop(setting, 8)),
        ("loop, 32 frames", lambda: window_loop(setting, 32)),
        ("FastAPI, 1 at once", lambda: fastapi(setting, 1)),
        (f"FastAPI, {cores} at once", lambda: fastapi(setting, cores)),
        ("LitServe", lambda: litserve(setting)),
        ("ovoad", lambda: ovoad(setting)),
    ]
    for name, work in reversed(ways) if turned else ways:
        print(f"  {name} …", file=sys.stderr, flush=True)
        found += await work()
    return found


def table(figures: Sequence[Figure], clients: Sequence[int]) -> list[str]:
    """Return the Markdown table: medians over the rounds."""
    ways = list(dict.fromkeys(figure.way for figure in figures))
    heads = ["way"]
    for count in clients:
        heads += [f"{count} clients: frames/s", "p50 ms", "p99 ms"]
    body = []
    for way in ways:
        cells = [way]
        for count in clients:
            mine = [each for each in figures if (each.way, each.clients) == (way, count)]
            cells.append(number(median(each.frames_per_s for each in mine)))
            cells.append(number(median(each.p50_ms for each in mine), 0))
            cells.append(number(median(each.p99_ms for each in mine), 0))
        body.append(cells)
    return markdown(heads, body)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure")
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--video", help="default: the video of ovoad demo")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if find_spec("litserve") is None:
        raise SystemExit("found no module litserve: pip install 'ovoad[bench]'")
    jpegs = load_frames(arguments.video, max_side=640, max_frames=FRAMES)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as name:
        write_frames(jpegs, Path(name))
        clients = tuple(arguments.clients)
        setting = Setting(jpegs, Path(name), clients, arguments.seconds, arguments.warmup)
        for number_ in range(1, arguments.rounds + 1):
            print(f"round {number_} of {arguments.rounds}", file=sys.stderr, flush=True)
            figures += asyncio.run(run_round(setting, turned=number_ % 2 == 0))
    packages = ("fastapi", "uvicorn", "litserve", "onnxruntime", "websockets")
    print(describe_machine())
    print(", ".join(f"{name} {version(name)}" for name in packages))
    print(f"medians of {arguments.rounds} rounds of {arguments.seconds:g} s a figure\n")
    print("\n".join(table(figures, arguments.clients)))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(each) for each in figures], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
