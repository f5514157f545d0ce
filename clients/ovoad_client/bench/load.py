"""Run many sessions against a server for a while. Knows sessions; starts no server."""

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ovoad_client.bench.answers import Tally
from ovoad_client.bench.resources import descendants, processor_s
from ovoad_client.bench.result import Row
from ovoad_client.bench.samples import STAGES, Recorder, Samples
from ovoad_client.bench.session import FRAMES_IN_FLIGHT, LoadSession, SessionPlan
from ovoad_client.bench.statistics import percentile, percentiles
from ovoad_client.errors import ClientError, RefusedError
from ovoad_client.protocol import Policy

OPENING_AT_ONCE: Final = 16
TELL_EVERY_S: Final = 0.5
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Load:
    """So many sessions at fps frames/s each; inflight None chooses for the best throughput."""

    sessions: int
    fps: float
    policy: Policy
    seconds: float
    warmup_s: float
    inflight: int | None = None

    @property
    def frames_in_flight(self) -> int | None:
        """Unanswered frames of a session at most; None: the server's own bound, never exceeded."""
        if self.inflight is not None or self.fps > 0:
            return self.inflight
        return max(2, FRAMES_IN_FLIGHT // self.sessions)


@dataclass(frozen=True)
class _Stretch:
    """What one stretch of time took."""

    samples: Samples
    seconds: float
    own_cpu_s: float
    server_cpu_s: float


async def run_load(
    load: Load,
    target: SessionPlan,
    frames: Sequence[bytes],
    *,
    stop: asyncio.Event,
    tell: Tell,
    own_server: bool,
) -> Row:
    """Open the sessions, let them warm up, measure, end them in order, and count.

    `target` says where and with which words; the load's own pace and policy replace its. Raises
    ClientError where no session can be opened for another reason than capacity.
    """
    plan = SessionPlan(
        target.url,
        target.labels,
        load.policy,
        load.fps,
        load.frames_in_flight,
        api_key=target.api_key,
        scorer=target.scorer,
        top_k=target.top_k,
    )
    recorder = Recorder()
    refused: Counter[str] = Counter()
    sessions = await open_sessions(plan, load.sessions, recorder, refused, stop, tell)
    leave = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for number, session in enumerate(sessions):
            phase = number / len(sessions)
            tasks.create_task(session.run(frames, leave, phase=phase))
        if sessions:
            await _pass_time(load.warmup_s, recorder, stop, tell, "warming up")
        stretch = await _measure(load.seconds if sessions else 0, recorder, stop, tell, own_server)
        leave.set()
        tell("waiting for the last answers")
    tally = Tally()
    for session in sessions:
        session.add_to(tally)
    return _row(load, stretch, refused, tally, own_server=own_server)


async def open_sessions(
    plan: SessionPlan,
    count: int,
    recorder: Recorder,
    refused: Counter[str],
    stop: asyncio.Event,
    tell: Tell,
) -> list[LoadSession]:
    """Open sessions, a few at once; those refused for want of room are counted in `refused`."""
    sessions: list[LoadSession] = []
    gate = asyncio.Semaphore(OPENING_AT_ONCE)

    async def open_one() -> None:
        async with gate:
            if stop.is_set():
                return
            try:
                sessions.append(await LoadSession.open(plan, recorder))
            except RefusedError as refusal:
                if refusal.code != "capacity":
                    raise
                refused[refusal.code] += 1
            tell(f"opening sessions: {len(sessions)} of {count}")

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(open_one())
    except BaseExceptionGroup as errors:
        if (told := errors.subgroup(ClientError)) is not None:
            raise told.exceptions[0] from None  # one is enough to tell a person
        raise
    return sessions


async def _measure(
    seconds: float, recorder: Recorder, stop: asyncio.Event, tell: Tell, own_server: bool
) -> _Stretch:
    servers = descendants(os.getpid()) if own_server else []
    recorder.take()  # the warm-up's
    start_s, own_s, server_s = time.perf_counter(), time.process_time(), processor_s(servers)
    await _pass_time(seconds, recorder, stop, tell, "measuring")
    samples = recorder.take()
    return _Stretch(
        samples,
        time.perf_counter() - start_s,
        time.process_time() - own_s,
        processor_s(servers) - server_s,
    )


async def _pass_time(
    seconds: float, recorder: Recorder, stop: asyncio.Event, tell: Tell, what: str
) -> None:
    start_s = time.perf_counter()
    while not stop.is_set() and (left_s := start_s + seconds - time.perf_counter()) > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(TELL_EVERY_S, left_s)):
                await stop.wait()
        samples = recorder.samples
        passed_s = time.perf_counter() - start_s
        dropped = samples.dropped.total()
        tell(
            f"{what} {passed_s:.1f}/{seconds:g} s: {samples.predictions / passed_s:.1f} frames/s"
            + (f", {dropped} dropped" if dropped else "")
        )


def _row(
    load: Load, stretch: _Stretch, refused: Counter[str], tally: Tally, *, own_server: bool
) -> Row:
    samples, seconds = stretch.samples, stretch.seconds
    count = samples.predictions
    return Row(
        sessions=load.sessions,
        fps=load.fps,
        policy=load.policy,
        inflight=load.frames_in_flight,
        seconds=seconds,
        opened=tally.sessions,
        refused=dict(refused),
        predictions=count,
        frames_per_s=count / seconds if seconds > 0 else 0.0,
        stages_ms={stage: percentiles(samples.times_ms[stage]) for stage in STAGES},
        dropped=dict(samples.dropped),
        errors=dict(samples.errors),
        generator_cpu=stretch.own_cpu_s / seconds if seconds > 0 else 0.0,
        late_ms_p99=percentile(sorted(samples.late_ms), 0.99),
        server_cpu_ms=stretch.server_cpu_s * 1000 / count if own_server and count else None,
        tally=tally,
    )
