"""Throughput, latency and processor time of each way to serve, in turn, in one run."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from on_ray.processes import Role, processor_by_role, resident_mib_by_role
from on_ray.servers import ONE_OF_EACH, SINGLE, TWO_OF_EACH, Way, served
from ovoad_client.bench.load import Load, run_load
from ovoad_client.bench.progress import Progress
from ovoad_client.bench.result import Row
from ovoad_client.bench.session import SessionPlan
from ovoad_client.bench.table import counts, markdown, number, triple
from ovoad_client.demo import LABELS

WAYS: tuple[Way, ...] = (SINGLE, ONE_OF_EACH, TWO_OF_EACH)
REST_S = 8.0


@dataclass(frozen=True)
class Measurement:
    """One load on one server: the client's row, and processor time a frame by role, ms."""

    way: str
    row: Row
    cpu_ms: dict[Role, float]


@dataclass
class Comparison:
    """All loads on all servers; cores that each takes at rest, and its memory."""

    measurements: list[Measurement] = field(default_factory=list)
    rest_cores: dict[str, dict[Role, float]] = field(default_factory=dict)
    resident_mib: dict[str, dict[Role, float]] = field(default_factory=dict)

    def best(self, way: str, load: tuple[int, float]) -> Row | None:
        """Return the row of a load with the median rate over the rounds."""
        rows = [
            each.row
            for each in self.measurements
            if each.way == way and (each.row.sessions, each.row.fps) == load
        ]
        return sorted(rows, key=lambda row: row.frames_per_s)[len(rows) // 2] if rows else None


async def compare(
    loads: Sequence[Load],
    jpegs: Sequence[bytes],
    progress: Progress,
    *,
    rounds: int,
    runtime: str,
    ways: Sequence[Way] = WAYS,
) -> Comparison:
    """Serve in each way in turn, in turned order in every second round, and put the loads on."""
    found = Comparison()
    for number_ in range(rounds):
        for way in ways if number_ % 2 == 0 else ways[::-1]:
            async with served(way, runtime=runtime, say=progress.say) as url:
                await _measure(found, way, url, loads, jpegs, progress)
    return found


async def _measure(
    found: Comparison,
    way: Way,
    url: str,
    loads: Sequence[Load],
    jpegs: Sequence[bytes],
    progress: Progress,
) -> None:
    target = SessionPlan(url, LABELS, "lossless", fps=0, inflight=None)
    stop = asyncio.Event()
    warm = replace(loads[0], seconds=1.0, warmup_s=2.0)
    await run_load(warm, target, jpegs, stop=stop, tell=progress.tell, own_server=True)
    before = processor_by_role()
    await asyncio.sleep(REST_S)
    after = processor_by_role()
    found.rest_cores[way.name] = {role: (after[role] - before[role]) / REST_S for role in after}
    for load in loads:
        before = processor_by_role()
        row = await run_load(load, target, jpegs, stop=stop, tell=progress.tell, own_server=True)
        after = processor_by_role()
        frames = max(1, row.tally.answered)
        cpu_ms = {role: (after[role] - before[role]) * 1000 / frames for role in after}
        found.measurements.append(Measurement(way.name, row, cpu_ms))
        progress.say(
            f"{way.name}: {row.asked}: {row.frames_per_s:.1f} frames/s, "
            f"p50 {row.end_to_end.p50:.1f}, p99 {row.end_to_end.p99:.1f} ms"
        )
    found.resident_mib[way.name] = resident_mib_by_role()


def comparison_lines(found: Comparison) -> list[str]:
    """Return the tables."""
    single = {
        (each.row.sessions, each.row.fps): found.best(
            SINGLE.name, (each.row.sessions, each.row.fps)
        )
        for each in found.measurements
    }
    heads = ["server", "sessions", "fps each", "frames/s", "of the single", "p50 / p95 / p99 ms"]
    heads += ["dropped", "errors", "ingress", "encoders", "controller", "Ray itself", "server"]
    body = []
    for each in found.measurements:
        row = each.row
        base = single[(row.sessions, row.fps)]
        ratio = row.frames_per_s / base.frames_per_s if base is not None else float("nan")
        body.append(
            [
                each.way,
                str(row.sessions),
                f"{row.fps:g}" if row.fps else "max",
                number(row.frames_per_s),
                number(ratio, 2),
                triple(row.end_to_end),
                counts(row.dropped),
                counts(row.errors),
                *(number(each.cpu_ms[role]) for role in each.cpu_ms),
            ]
        )
    rest = [
        [way, *(number(cores[role], 3) for role in cores), number(sum(memory.values()), 0)]
        for (way, cores), memory in zip(
            found.rest_cores.items(), found.resident_mib.values(), strict=True
        )
    ]
    rest_heads = [
        "server",
        "ingress",
        "encoders",
        "controller",
        "Ray itself",
        "server",
        "MiB in all",
    ]
    return [
        "the last five columns: processor time a frame, ms",
        "",
        *markdown(heads, body),
        "",
        "cores taken at rest, and memory (Pss) after the loads:",
        "",
        *markdown(rest_heads, rest),
    ]
