"""Replicas that come and go with the load, second by second."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from on_ray.cameras import Camera
from on_ray.processes import by_role
from on_ray.servers import Way, served
from ovoad_client.bench.progress import Progress
from ovoad_client.bench.table import markdown

STEPS = ((20.0, 2), (60.0, 14), (80.0, 2))  # seconds, cameras
FPS = 4.0
GROWING = Way(
    "Ray, 1 to 3 ingress, 1 to 3 encoders",
    more=(
        ("OVOAD_RAY_MOST_INGRESS", "3"),
        ("OVOAD_RAY_MOST_ENCODERS", "3"),
        ("OVOAD_RAY_SESSIONS", "5"),
        ("OVOAD_RAY_CALLS", "1"),
        ("OVOAD_RAY_UPSCALE_DELAY_S", "4"),
        ("OVOAD_RAY_DOWNSCALE_DELAY_S", "15"),
    ),
)


@dataclass(frozen=True)
class Second:
    """How things stood: cameras that send, replicas of each kind, predictions in this second."""

    at_s: float
    cameras: int
    ingress: int
    encoders: int
    predictions: int


@dataclass
class Growth:
    """The whole run."""

    seconds: list[Second] = field(default_factory=list)
    reconnects: int = 0
    frames: int = 0
    lost: int = 0
    complaints: list[str] = field(default_factory=list)


async def grow(jpegs: Sequence[bytes], progress: Progress, *, runtime: str) -> Growth:
    """Put few, many and few cameras on a server that scales by itself."""
    found = Growth()
    async with served(GROWING, runtime=runtime, say=progress.say) as url:
        running: list[tuple[Camera, asyncio.Event]] = []
        everybody: list[Camera] = []
        start_s = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            end_s = 0.0
            for seconds, count in STEPS:
                end_s += seconds
                while len(running) > count:
                    running.pop()[1].set()
                while len(running) < count:
                    camera, stop = Camera(fps=FPS), asyncio.Event()
                    running.append((camera, stop))
                    everybody.append(camera)
                    phase = (len(everybody) * 0.37) % 1.0
                    tasks.create_task(camera.run(url, jpegs, stop, phase))
                while time.monotonic() - start_s < end_s:
                    await asyncio.sleep(1.0)
                    found.seconds.append(_second(start_s, len(running), everybody))
                    progress.tell(str(found.seconds[-1]))
            for _, stop in running:
                stop.set()
    found.reconnects = sum(len(camera.resumed) for camera in everybody)
    found.frames = sum(len(camera.sent_s) for camera in everybody)
    found.lost = sum(fates == ["lost"] for each in everybody for fates in each.fates.values())
    found.complaints = [text for camera in everybody for text in camera.complaints]
    return found


def _second(start_s: float, cameras: int, everybody: Sequence[Camera]) -> Second:
    now_s = time.monotonic()
    processes = by_role()
    count = 0
    for camera in everybody:
        for at_s, _ in reversed(camera.latencies_ms):
            if at_s < now_s - 1.0:
                break
            count += 1
    return Second(
        now_s - start_s, cameras, len(processes["ingress"]), len(processes["encoder"]), count
    )


def growth_lines(found: Growth) -> list[str]:
    """Return a line for each time that a number changed, and the account of the frames."""
    body, last = [], None
    for second in found.seconds:
        stand = (second.cameras, second.ingress, second.encoders)
        if stand != last:
            body.append(
                [
                    f"{second.at_s:.0f}",
                    str(second.cameras),
                    str(second.ingress),
                    str(second.encoders),
                    str(second.predictions),
                ]
            )
        last = stand
    heads = ["second", "cameras", "ingress replicas", "encoder replicas", "predictions/s"]
    return [
        *markdown(heads, body),
        "",
        f"{found.frames} frames sent, {found.lost} lost over {found.reconnects} reconnects, "
        f"fate not told exactly once: {len(found.complaints)}",
        *(f"  ! {text}" for text in found.complaints[:10]),
    ]
