"""A replica killed under live cameras: who comes back, how soon, and what became of each frame."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from on_ray.cameras import Camera
from on_ray.processes import by_role, port_of
from on_ray.servers import TWO_OF_EACH, served
from ovoad_client.bench.progress import Progress
from ovoad_client.bench.statistics import percentiles

CAMERAS = 16
BEFORE_S = 6.0
AFTER_S = 12.0  # at least; then until the successor is there
MOST_AFTER_S = 60.0


@dataclass
class Broken:
    """What one kill did: times in seconds after it, latencies in milliseconds."""

    role: Literal["ingress", "encoder"]
    cameras: int
    reconnected: int
    resumed: int
    warming_up: int  # of those that came back, windows that said so
    fates: dict[str, int]
    recovery_s: list[float]  # of each camera that came back, to its first prediction
    replica_back_s: float | None
    worst_latency_ms: float  # of a frame answered after the kill
    p50_before_ms: float
    p50_after_ms: float
    complaints: list[str] = field(default_factory=list)


async def kill_replica(
    role: Literal["ingress", "encoder"],
    jpegs: Sequence[bytes],
    progress: Progress,
    *,
    runtime: str,
) -> Broken:
    """Kill one of two replicas under 16 cameras of 4 frames/s."""
    async with served(TWO_OF_EACH, runtime=runtime, say=progress.say) as url:
        cameras = [Camera() for _ in range(CAMERAS)]
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for number, camera in enumerate(cameras):
                phase = number / CAMERAS
                tasks.create_task(camera.run(url, jpegs, stop, phase))
            await asyncio.sleep(BEFORE_S)
            victims = by_role()[role]
            progress.say(f"killing {role} replica {victims[0]} of {victims}")
            killed_s = time.monotonic()
            os.kill(victims[0], signal.SIGKILL)
            back_s = await _until_back(role, set(victims), url, killed_s)
            stop.set()
        return _broken(role, cameras, killed_s, back_s)


async def _until_back(
    role: Literal["ingress", "encoder"], before: set[int], url: str, killed_s: float
) -> float | None:
    """Watch for a while; return when the successor was there: listening, if it is an ingress."""
    back_s = None
    first = int(url.rpartition(":")[2])
    while (passed_s := time.monotonic() - killed_s) < MOST_AFTER_S:
        if passed_s > AFTER_S and back_s is not None:
            break
        await asyncio.sleep(0.1)
        new = [pid for pid in by_role()[role] if pid not in before]
        if role == "ingress":
            new = [pid for pid in new if port_of(pid, range(first, first + 1)) is not None]
        if new and back_s is None:
            back_s = time.monotonic() - killed_s
    return back_s


def _broken(
    role: Literal["ingress", "encoder"],
    cameras: Sequence[Camera],
    killed_s: float,
    back_s: float | None,
) -> Broken:
    before = [ms for each in cameras for at_s, ms in each.latencies_ms if at_s < killed_s]
    after = [ms for each in cameras for at_s, ms in each.latencies_ms if at_s >= killed_s]
    came_back = [each for each in cameras if each.resumed]
    return Broken(
        role,
        len(cameras),
        len(came_back),
        sum(any(each.resumed) for each in came_back),
        sum(bool(each.warming_up_after) for each in came_back),
        dict(Counter(fate for each in cameras for fates in each.fates.values() for fate in fates)),
        sorted(each.back_s - killed_s for each in came_back if each.back_s is not None),
        back_s,
        max(after, default=0.0),
        percentiles(before).p50,
        percentiles(after).p50,
        [text for each in cameras for text in each.complaints],
    )


def broken_lines(found: Broken) -> list[str]:
    """Return what happened, in sentences."""
    fates = ", ".join(f"{name} {count}" for name, count in sorted(found.fates.items()))
    lines = [
        f"{found.role} replica killed under {found.cameras} cameras of 4 frames/s:",
        f"  {found.reconnected} cameras lost their connection and came back by themselves, "
        f"{found.resumed} with their window, {found.warming_up} were told that it warms up",
        f"  frames: {fates}; fate not told exactly once: {len(found.complaints)}",
        f"  latency: median {found.p50_before_ms:.0f} ms before, {found.p50_after_ms:.0f} after, "
        f"worst after the kill {found.worst_latency_ms:.0f} ms",
    ]
    if found.recovery_s:
        middle = found.recovery_s[len(found.recovery_s) // 2]
        lines.append(
            f"  from the kill to the first prediction: median {middle:.2f} s, "
            f"longest {found.recovery_s[-1]:.2f} s"
        )
    if found.replica_back_s is not None:
        lines.append(f"  the next replica was there after {found.replica_back_s:.1f} s")
    return lines + [f"  ! {text}" for text in found.complaints[:10]]
