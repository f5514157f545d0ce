"""Memory over a clip of hours: the server's processes while `POST /v1/clips` scores it.

    python benchmarks/clip_memory.py [--minutes 120] [--video FILE] [--json FILE]

The clip is made by looping a video (that of `ovoad demo`, unless told otherwise) without encoding
it anew. Memory is what the server, its worker and the decoder hold for themselves (RssAnon: no
files, no libraries, which they share with whatever else runs on the machine); the slope is a
least-squares line over the readings after the first tenth. Two hours of video are 28,800 scored
frames, about 6 minutes at 80 frames/s; PyAV (extra `dev`) makes the clip.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np

from ovoad_client.bench.own_server import bench_server
from ovoad_client.bench.resources import descendants
from ovoad_client.bench.result import describe_machine
from ovoad_client.bench.table import markdown
from ovoad_client.clip_sending import score_clip
from ovoad_client.demo import LABELS, find_demo_video

READINGS = 200


@dataclass(frozen=True)
class Reading:
    """Memory when this much of the clip was scored."""

    position_s: float
    kib: int


@dataclass(frozen=True)
class Result:
    """One run."""

    machine: str
    minutes: float
    file_mib: float
    frames: int
    predicted: int
    wall_s: float
    frames_per_s: float
    first_mib: float
    last_mib: float
    highest_mib: float
    slope_mib_per_hour: float  # of video
    spool_bytes_after: float
    readings: list[Reading]


def write_loop(source: Path, target: Path, *, minutes: float) -> None:
    """Write a video over and over, packet by packet, until it is long enough."""
    shift = 0
    with av.open(str(target), "w") as output:
        made: av.VideoStream | None = None
        while True:
            with av.open(str(source)) as video:
                stream = video.streams.video[0]
                made = made or output.add_stream_from_template(stream)
                assert stream.time_base is not None
                end = shift
                for packet in video.demux(stream):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    end = max(end, packet.pts + (packet.duration or 1))
                    packet.stream = made
                    output.mux(packet)
                if end * stream.time_base >= minutes * 60:
                    return
                shift = end


def own_kib(pid: int) -> int:
    """Return the anonymous memory of a process, 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def score(path: Path, url: str, *, minutes: float) -> tuple[list[Reading], dict[str, int]]:
    """Score the clip; read the memory at even steps of it."""
    readings: list[Reading] = []
    step_ms, due_ms = minutes * 60_000 / READINGS, 0.0
    closed: dict[str, int] = {}
    for message in score_clip(str(path), LABELS, url=url):
        if message["type"] == "prediction" and message["timestamp_ms"] >= due_ms:
            due_ms += step_ms
            kib = sum(own_kib(pid) for pid in descendants(os.getpid()))
            readings.append(Reading(message["timestamp_ms"] / 1000, kib))
        closed = message
    return readings, closed


async def run(video: Path, minutes: float) -> Result:
    """Measure."""
    with tempfile.TemporaryDirectory(prefix="ovoad-clip-memory-") as folder:
        path = Path(folder) / "long.mp4"
        write_loop(video, path, minutes=minutes)
        settings = {"OVOAD_MAX_CLIP_S": "864000", "OVOAD_MAX_CLIP_FRAMES": "100000000"}
        async with bench_server([], sessions=8, say=print, settings=settings) as url:
            began_s = time.monotonic()
            readings, closed = await asyncio.to_thread(score, path, url, minutes=minutes)
            wall_s = time.monotonic() - began_s
            left = await asyncio.to_thread(spool_bytes, url)
        size = path.stat().st_size
    return summarise(readings, closed, minutes=minutes, size=size, wall_s=wall_s, left=left)


def spool_bytes(url: str) -> float:
    """Return what clips hold on the server's disk."""
    import urllib.request

    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        f"{url}/metrics", timeout=10
    ) as answer:
        lines = answer.read().decode().splitlines()
    return float(
        next(each for each in lines if each.startswith("ovoad_clip_spool_bytes ")).split()[1]
    )


def summarise(
    readings: list[Reading],
    closed: dict[str, int],
    *,
    minutes: float,
    size: int,
    wall_s: float,
    left: float,
) -> Result:
    """Return a run's figures."""
    settled = readings[len(readings) // 10 :]
    hours = np.array([each.position_s / 3600 for each in settled])
    mib = np.array([each.kib / 1024 for each in settled])
    return Result(
        machine=describe_machine(),
        minutes=minutes,
        file_mib=size / 2**20,
        frames=closed["frames"],
        predicted=closed["predicted"],
        wall_s=wall_s,
        frames_per_s=closed["frames"] / wall_s,
        first_mib=float(mib[0]),
        last_mib=float(mib[-1]),
        highest_mib=float(mib.max()),
        slope_mib_per_hour=float(np.polyfit(hours, mib, 1)[0]),
        spool_bytes_after=left,
        readings=readings,
    )


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    video = arguments.video or Path(find_demo_video())
    result = asyncio.run(run(video, arguments.minutes))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(asdict(result), indent=1))
    print(result.machine)
    names = ("video", "file", "frames scored", "frames/s", "first", "last", "highest", "slope")
    row = (
        f"{result.minutes:g} min",
        f"{result.file_mib:.0f} MiB",
        f"{result.predicted} of {result.frames}",
        f"{result.frames_per_s:.1f}",
        f"{result.first_mib:.0f} MiB",
        f"{result.last_mib:.0f} MiB",
        f"{result.highest_mib:.0f} MiB",
        f"{result.slope_mib_per_hour:+.1f} MiB per hour of video",
    )
    print("\n".join(markdown(names, [row])))
    print(f"bytes of clips on disk afterwards: {result.spool_bytes_after:.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
