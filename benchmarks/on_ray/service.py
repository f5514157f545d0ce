"""What a call of Ray Serve's takes, from replica to replica, and how large a window is."""

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

RAY_OFF: Final = (
    "RAY_USAGE_STATS_ENABLED",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
    "RAY_worker_niceness",
)
QUIET: Final = {"log_level": "WARNING", "enable_access_log": False}
CALLS: Final = 300
AT_ONCE: Final = 8


@dataclass(frozen=True)
class CallCost:
    """Calls from one replica to another that does nothing.

    way_ms: median of one call at a time. calls_per_s: with AT_ONCE under way. caller_ms and
    callee_ms: processor time of the two processes a call.
    """

    payload: str
    size: int
    way_ms: float
    calls_per_s: float
    caller_ms: float
    callee_ms: float


def view_bytes() -> int:
    """Return the size of one window as it goes to an encoder replica with its frame."""
    import numpy as np

    from ovoad_model.window import Window
    from ovoad_server.engine.worker_link import SentStep
    from ovoad_server.on_ray.messages import pack

    width = 384
    window = Window(width)
    window.push(0, np.ones(width, np.float32))
    return len(pack([SentStep(window, 250, "k")]))


@contextlib.contextmanager
def own_serve() -> Iterator[Any]:
    """Start Ray and Serve for measuring, without a proxy; yield Serve, and end both."""
    os.environ |= {name: "0" for name in RAY_OFF} | {"RAY_SERVE_USE_GRPC_BY_DEFAULT": "1"}
    import ray
    from ray import serve

    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    try:
        serve.start(proxy_location="Disabled")
        yield serve
    finally:
        serve.shutdown()
        ray.shutdown()


def call_costs(payloads: dict[str, int]) -> list[CallCost]:
    """Measure calls on a Ray of its own, which ends afterwards."""
    options = {"ray_actor_options": {"num_cpus": 1}, "logging_config": QUIET}
    with own_serve() as serve:
        callee = serve.deployment(Callee, max_ongoing_requests=64, **options).bind()
        caller = serve.deployment(Caller, **options).bind(callee)
        handle = serve.run(caller, route_prefix=None)
        return [
            CallCost(name, size, *handle.measure.remote(size).result())
            for name, size in payloads.items()
        ]


class Callee:
    """Takes bytes and does nothing with them."""

    async def take(self, data: bytes) -> bytes:
        """Answer with what a feature takes."""
        return bytes(2048)

    async def processor_s(self) -> float:
        """Return the processor time of this process so far."""
        return time.process_time()


class Caller:
    """Calls the other one."""

    def __init__(self, callee: Any) -> None:
        self._callee = callee

    async def measure(self, size: int) -> tuple[float, float, float, float]:
        """Return way_ms, calls_per_s, caller_ms and callee_ms."""
        data = bytes(size)
        ways_ms = []
        for _ in range(CALLS):
            start_s = time.perf_counter()
            await self._callee.take.remote(data)
            ways_ms.append((time.perf_counter() - start_s) * 1000)
        callee_s = await self._callee.processor_s.remote()
        start_s, own_s = time.perf_counter(), time.process_time()

        async def some() -> None:
            for _ in range(CALLS // AT_ONCE):
                await self._callee.take.remote(data)

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))
        took_s, own_s = time.perf_counter() - start_s, time.process_time() - own_s
        callee_s = await self._callee.processor_s.remote() - callee_s
        count = CALLS // AT_ONCE * AT_ONCE
        return (
            statistics.median(ways_ms),
            count / took_s,
            own_s * 1000 / count,
            callee_s * 1000 / count,
        )


def service_lines(calls: Sequence[CallCost]) -> list[str]:
    """Return the table."""
    from ovoad_client.bench.table import markdown

    rows = [
        [
            call.payload,
            f"{call.size:,}",
            f"{call.way_ms:.2f}",
            f"{call.calls_per_s:.0f}",
            f"{call.caller_ms:.2f}",
            f"{call.callee_ms:.2f}",
        ]
        for call in calls
    ]
    heads = ["a call with", "bytes", "there and back ms", f"calls/s, {AT_ONCE} at once"]
    return markdown([*heads, "caller CPU ms", "callee CPU ms"], rows)
