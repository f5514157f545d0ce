"""Frames on their way through ingress and encoder replicas: a discrete-event simulation.

Each camera sends a frame every 250 ms to its ingress replica, whose event loop does one thing at
a time; it gives the frame to the encoder replica with the shorter queue of two drawn at random, as
Ray Serve does. An encoder replica takes what waits, up to 16 frames, as its next batch, which it
encodes and scores. The answer passes the ingress replica's loop again.
"""

import heapq
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Final

FPS: Final = 4.0
MOST: Final = 16  # frames in a batch
SEED: Final = 7


@dataclass(frozen=True)
class Costs:
    """Measured times in milliseconds, and bytes.

    frame_ms, ingress_ms: processor time of encoder and ingress replicas a frame, under load.
    call_ms: a call to another replica there and back.
    """

    frame_ms: float
    ingress_ms: float
    call_ms: float
    frame_bytes: float  # as the camera sends it
    view_bytes: float  # of its window, which goes along
    answer_bytes: float
    controller_cores: float  # of Serve's controller without replicas
    controller_cores_a_replica: float

    @property
    def encoder_fps(self) -> float:
        """Frames a second that one core encodes."""
        return 1000 / self.frame_ms

    @property
    def ingress_fps(self) -> float:
        """Frames a second that one event loop carries."""
        return 1000 / self.ingress_ms


@dataclass(frozen=True)
class Size:
    """How many cameras, ingress replicas, and encoder replicas of one core."""

    cameras: int
    ingress: int
    encoders: int


@dataclass
class Result:
    """What came of it: shares of the time that loops and encoders were busy, latencies."""

    size: Size
    seconds: float
    latencies_ms: list[float] = field(default_factory=list)
    ingress_busy: float = 0.0
    encoders_busy: float = 0.0
    batches: int = 0
    encoded: int = 0
    waiting_at_end: int = 0

    @property
    def mean_batch(self) -> float:
        """Frames in a batch."""
        return self.encoded / self.batches if self.batches else 0.0

    def latency_ms(self, share: float) -> float:
        """Return the latency that `share` of the frames stayed below."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Simulation:
    """One run; times in milliseconds."""

    def __init__(self, size: Size, costs: Costs, *, seconds: float) -> None:
        self._size, self._costs = size, costs
        self._until_ms = seconds * 1000
        self._chance = random.Random(SEED)
        self._free_ms = [0.0] * size.ingress  # when each loop has done what it was given
        self._queues: list[deque[tuple[float, int]]] = [deque() for _ in range(size.encoders)]
        self._working = [False] * size.encoders
        self._events: list[tuple[float, int, str, tuple[float, int], int]] = []
        self._number = 0
        self._result = Result(size, seconds)

    def run(self) -> Result:
        """Return what came of it; the first fifth of the time is left out."""
        interval_ms = 1000 / FPS
        for camera in range(self._size.cameras):
            at_ms = self._chance.random() * interval_ms
            self._push(at_ms, "sent", (at_ms, camera % self._size.ingress), 0)
        while self._events:
            now_ms, _, kind, frame, encoder = heapq.heappop(self._events)
            if now_ms > self._until_ms:
                break
            match kind:
                case "sent":
                    self._push(now_ms + interval_ms, "sent", (now_ms + interval_ms, frame[1]), 0)
                    self._through_loop(now_ms, frame, "leaves")
                case "leaves":
                    self._push(now_ms + self._costs.call_ms / 2, "arrives", frame, self._draw())
                case "arrives":
                    self._queues[encoder].append(frame)
                    self._begin(now_ms, encoder)
                case "encoded":
                    self._working[encoder] = False
                    self._begin(now_ms, encoder)
                case "back":
                    self._through_loop(now_ms, frame, "answered")
                case _:
                    self._count(now_ms, frame)
        return self._finished()

    def _through_loop(self, now_ms: float, frame: tuple[float, int], then: str) -> None:
        """Take half of a frame's time on its ingress replica's event loop."""
        ingress = frame[1]
        half_ms = self._costs.ingress_ms / 2
        self._free_ms[ingress] = max(now_ms, self._free_ms[ingress]) + half_ms
        self._result.ingress_busy += half_ms
        self._push(self._free_ms[ingress], then, frame, 0)

    def _draw(self) -> int:
        first, second = (self._chance.randrange(self._size.encoders) for _ in range(2))
        waiting = [len(self._queues[each]) + MOST * self._working[each] for each in (first, second)]
        return first if waiting[0] <= waiting[1] else second

    def _begin(self, now_ms: float, encoder: int) -> None:
        """Begin the next batch of an encoder replica that has nothing to do."""
        queue = self._queues[encoder]
        if self._working[encoder] or not queue:
            return
        batch = [queue.popleft() for _ in range(min(MOST, len(queue)))]
        took_ms = self._costs.frame_ms * len(batch)
        self._working[encoder] = True
        self._result.encoders_busy += took_ms
        self._result.batches += 1
        self._result.encoded += len(batch)
        self._push(now_ms + took_ms, "encoded", (0.0, 0), encoder)
        for frame in batch:
            self._push(now_ms + took_ms + self._costs.call_ms / 2, "back", frame, 0)

    def _count(self, now_ms: float, frame: tuple[float, int]) -> None:
        if now_ms > self._until_ms / 5:
            self._result.latencies_ms.append(now_ms - frame[0])

    def _push(self, at_ms: float, kind: str, frame: tuple[float, int], encoder: int) -> None:
        self._number += 1
        heapq.heappush(self._events, (at_ms, self._number, kind, frame, encoder))

    def _finished(self) -> Result:
        result, size = self._result, self._size
        result.ingress_busy /= self._until_ms * size.ingress
        result.encoders_busy /= self._until_ms * size.encoders
        result.waiting_at_end = sum(map(len, self._queues))
        return result
