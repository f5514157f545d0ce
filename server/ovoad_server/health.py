"""Readiness: a golden image and sentence must still score as they did at the start.

Knows the engine's worker, so one that stalls or is being started anew is not ready either.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel

from ovoad_server.engine.engine import Engine
from ovoad_server.engine.interface import WorkerLostError

TOLERANCE = 1e-3
CHECK_EVERY_S = 5.0
WORKER_TIMEOUT_S = 5.0
BATCH_TIMEOUT_S = 10.0
HEARTBEAT_TIMEOUT_S = 10.0


class Readiness(BaseModel):
    """Whether the server may get traffic, and why not."""

    ready: bool
    reason: str


@dataclass(frozen=True)
class _Answer:
    at_s: float
    readiness: Readiness


class Health:
    """Compares the model's answer to a golden image with the one it gave at the start."""

    def __init__(self, expected: Sequence[float]) -> None:
        """Take the golden similarities of the first worker's start."""
        self._expected = expected
        self._last: _Answer | None = None
        self._checking = asyncio.Lock()

    async def check(self, engine: Engine) -> Readiness:
        """Look at scheduler and worker; score the golden images at most every 5 s."""
        obstacle = _obstacle(engine)
        if obstacle is not None:
            self._last = None  # whatever comes back is asked anew
            return Readiness(ready=False, reason=obstacle)
        async with self._checking:
            if self._last is None or time.monotonic() - self._last.at_s > CHECK_EVERY_S:
                try:
                    readiness = await self._probe(engine)
                except WorkerLostError as error:
                    return Readiness(ready=False, reason=str(error))
                self._last = _Answer(time.monotonic(), readiness)
            return self._last.readiness

    async def _probe(self, engine: Engine) -> Readiness:
        """Score the golden images on the worker; raises WorkerLostError."""
        try:
            found = await asyncio.wait_for(engine.worker.probe(), WORKER_TIMEOUT_S)
        except TimeoutError:
            return Readiness(
                ready=False, reason=f"the worker did not answer within {WORKER_TIMEOUT_S:g} s"
            )
        except RuntimeError as error:
            return Readiness(ready=False, reason=f"the model failed ({error})")
        return compare(found, self._expected)


def _obstacle(engine: Engine) -> str | None:
    """Return what keeps the engine from answering, as far as is seen without asking it."""
    if not engine.running:
        return "the scheduler has stopped"
    if not engine.worker.ready:
        return "the worker was lost and is being started anew"
    if engine.batch_age_s > BATCH_TIMEOUT_S:
        return f"a batch has been running for {engine.batch_age_s:.0f} s"
    if engine.worker.heartbeat_age_s > HEARTBEAT_TIMEOUT_S:
        return f"the worker has shown no sign of life for {engine.worker.heartbeat_age_s:.0f} s"
    return None


def compare(found: Sequence[float], expected: Sequence[float]) -> Readiness:
    """Compare similarities of two images to two sentences with those of the start."""
    if np.ptp(np.reshape(found, (2, -1)), axis=0).max() < TOLERANCE:
        return Readiness(ready=False, reason="the encoder gives different images the same answer")
    worst = float(np.max(np.abs(np.subtract(found, expected))))
    if not worst <= TOLERANCE:
        return Readiness(
            ready=False,
            reason=f"golden similarities moved by {worst:.2g}, expected at most {TOLERANCE:g}",
        )
    return Readiness(ready=True, reason="golden images score as at the start")
