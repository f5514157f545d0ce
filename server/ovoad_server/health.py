"""Readiness: a golden image and sentence must still score as they did at the start.

Knows the engine's worker, so a stalled worker is not ready either.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from pydantic import BaseModel

from ovoad_server.engine.engine import Engine
from ovoad_server.engine.interface import Detector, Frame

log = logging.getLogger(__name__)

TOLERANCE = 1e-3
CHECK_EVERY_S = 5.0
WORKER_TIMEOUT_S = 5.0
BATCH_TIMEOUT_S = 10.0
GOLDEN_SENTENCES = ("a traffic light over a street", "a plate of food on a table")


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

    def __init__(self, detector: Detector) -> None:
        self._probe = _probe_of(detector)
        self._expected = self._probe()
        self._last: _Answer | None = None
        self._checking = asyncio.Lock()

    async def check(self, engine: Engine) -> Readiness:
        """Score the golden image on the worker, at most every 5 s."""
        async with self._checking:
            if self._last is None or time.monotonic() - self._last.at_s > CHECK_EVERY_S:
                self._last = _Answer(time.monotonic(), await self._check(engine))
            return self._last.readiness

    async def _check(self, engine: Engine) -> Readiness:
        if not engine.running:
            return Readiness(ready=False, reason="the scheduler has stopped")
        if engine.batch_age_s > BATCH_TIMEOUT_S:
            return Readiness(
                ready=False, reason=f"a batch has been running for {engine.batch_age_s:.0f} s"
            )
        try:
            found = await asyncio.wait_for(engine.on_worker(self._probe), WORKER_TIMEOUT_S)
        except TimeoutError:
            return Readiness(
                ready=False, reason=f"the worker did not answer within {WORKER_TIMEOUT_S:g} s"
            )
        except Exception as error:  # whatever a model raises, it is not ready
            log.exception("the golden images could not be scored")
            return Readiness(ready=False, reason=f"the model failed ({type(error).__name__})")
        return compare(found, self._expected)


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


def _probe_of(detector: Detector) -> Callable[[], list[float]]:
    vocabulary = detector.vocabulary(GOLDEN_SENTENCES, templates=["{}"])
    frames = [_traffic_light(), np.full((240, 320, 3), 200, np.uint8)]

    def probe() -> list[float]:
        views = []
        for feature in detector.encode(frames):
            window = detector.open_window()
            window.push(0, feature)
            views.append(window.view())
        scores = detector.score(views, [vocabulary] * len(views))
        return [float(value) for score in scores for value in score.similarities]

    return probe


def _traffic_light() -> Frame:
    """Draw the golden image: RGB [240, 320, 3]."""
    image = np.full((240, 320, 3), (135, 190, 235), np.uint8)
    cv2.rectangle(image, (110, 10), (210, 230), (25, 25, 25), -1)
    for y, colour in ((50, (230, 40, 30)), (120, (90, 70, 10)), (190, (10, 80, 30))):
        cv2.circle(image, (160, y), 30, colour, -1)
    return np.asarray(image, np.uint8)
