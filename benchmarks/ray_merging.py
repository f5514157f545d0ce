"""Ray Serve's own batching beside the queue of the encoder replicas: the same calls, the same work.

    python benchmarks/ray_merging.py [--seconds 3]

Callers send a frame, wait for its answer, and send the next. The work sleeps for as long as a batch
takes on an encoder (2 ms and 8 ms a frame), so that the figures tell of the batching alone. Needs
pip install 'ovoad[scale]'.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

from on_ray.service import QUIET, own_serve
from ray import serve

from ovoad_client.bench.statistics import percentiles
from ovoad_client.bench.table import markdown, triple
from ovoad_server.on_ray.merging import Merger

FIXED_S, FRAME_S = 0.002, 0.008
MOST = 16
CALLERS = (1, 4, 32)
Call = Callable[[int], Awaitable[object]]


def work(frames: Sequence[int]) -> list[int]:
    """Take as long as an encoder does."""
    time.sleep(FIXED_S + FRAME_S * len(frames))
    return list(frames)


def merged() -> Call:
    """Return a call to the queue of the encoder replicas."""
    merger = Merger[int, list[int]](
        work, lambda batch, rows: batch[rows], most=MOST, lanes=1, name="bench"
    )
    return lambda frame: merger.do([frame])


def batched(wait_s: float) -> Call:
    """Return a call that Ray Serve batches, waiting `wait_s` for more."""

    @serve.batch(max_batch_size=MOST, batch_wait_timeout_s=wait_s)
    async def encode(frames: list[int]) -> list[int]:
        return await asyncio.get_running_loop().run_in_executor(None, work, frames)

    call: Call = encode
    return call


async def measure(call: Call, callers: int, seconds: float) -> tuple[float, list[float]]:
    """Return frames/s and latencies, ms."""
    times_ms: list[float] = []
    end_s = time.perf_counter() + seconds

    async def repeat(number: int) -> None:
        while (start_s := time.perf_counter()) < end_s:
            await call(number)
            times_ms.append((time.perf_counter() - start_s) * 1000)

    await asyncio.gather(*(repeat(number) for number in range(callers)))
    return len(times_ms) / seconds, times_ms


class Bench:
    """Measures inside a replica, where alone `serve.batch` works."""

    async def run(self, seconds: float) -> list[list[str]]:
        """Return the rows of the table."""
        ways = {
            "own queue": merged(),
            "serve.batch, no wait": batched(0.0),
            "serve.batch, 10 ms": batched(0.01),
        }
        body = []
        for callers in CALLERS:
            for name, call in ways.items():
                rate, times_ms = await measure(call, callers, seconds)
                body.append([name, str(callers), f"{rate:.0f}", triple(percentiles(times_ms))])
        return body


def main() -> int:
    """Measure all, and tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each (3)")
    seconds = parser.parse_args().seconds
    with own_serve() as there:
        deployment = there.deployment(Bench, max_ongoing_requests=64, logging_config=QUIET)
        handle = there.run(deployment.bind(), route_prefix=None)
        body = handle.run.remote(seconds).result()
    heads = ["batching", "callers", "frames/s", "p50 / p95 / p99 ms"]
    print("\n".join(markdown(heads, body)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
