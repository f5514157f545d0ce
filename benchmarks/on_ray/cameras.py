"""Cameras that stay: clients that reconnect by themselves, with every frame's fate noted."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ovoad_client.client import connect
from ovoad_client.demo import LABELS
from ovoad_client.errors import ClientError
from ovoad_client.notices import FramesLost, Reconnected, Reconnecting
from ovoad_client.protocol import Error, FrameDropped, Policy, Prediction
from ovoad_client.reconnecting import Reconnect


@dataclass
class Camera:
    """One camera: what it sent, and how each frame ended, by seq. Times by time.monotonic."""

    fps: float = 4.0
    policy: Policy = "realtime"
    sent_s: dict[int, float] = field(default_factory=dict)
    fates: dict[int, list[str]] = field(default_factory=dict)
    latencies_ms: list[tuple[float, float]] = field(default_factory=list)  # (when, how long)
    broke_s: float | None = None
    back_s: float | None = None  # the first prediction after the last break
    resumed: list[bool] = field(default_factory=list)
    warming_up_after: bool | None = None  # what the first window after the break says of itself
    failure: str | None = None

    async def run(
        self, url: str, jpegs: Sequence[bytes], stop: asyncio.Event, phase: float
    ) -> None:
        """Send until stopped; come back after breaks."""
        try:
            async with connect(
                url, LABELS, policy=self.policy, reconnect=Reconnect(first_s=0.1)
            ) as stream:
                reading = asyncio.create_task(self._read(stream))
                await asyncio.sleep(phase / self.fps)
                started_s, number = time.monotonic(), 0
                while not stop.is_set():
                    due_s = started_s + number / self.fps
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(max(0.0, due_s - time.monotonic())):
                            await stop.wait()
                    if stop.is_set():
                        break
                    image = jpegs[number % len(jpegs)]
                    seq = await stream.send(image, timestamp_ms=round(number * 1000 / self.fps))
                    self.sent_s[seq] = time.monotonic()
                    number += 1
                await stream.close()
                await reading
        except ClientError as error:
            self.failure = str(error)

    async def _read(self, stream: object) -> None:
        async for message in stream:  # type: ignore[attr-defined]
            now_s = time.monotonic()
            match message:
                case Prediction():
                    self._end(message.seq, "prediction")
                    sent_s = self.sent_s.get(message.seq, now_s)
                    self.latencies_ms.append((now_s, (now_s - sent_s) * 1000))
                    if self.broke_s is not None and self.back_s is None and self.resumed:
                        self.back_s = now_s
                        self.warming_up_after = message.window.warming_up
                case FrameDropped():
                    self._end(message.seq, f"dropped {message.reason}")
                case Error() if message.seq is not None:
                    self._end(message.seq, f"error {message.code}")
                case FramesLost():
                    for seq in message.seqs:
                        self._end(seq, "lost")
                case Reconnecting():
                    self.broke_s = self.broke_s or now_s
                case Reconnected():
                    self.resumed.append(message.resumed)

    def _end(self, seq: int, fate: str) -> None:
        self.fates.setdefault(seq, []).append(fate)

    @property
    def complaints(self) -> list[str]:
        """Frames whose fate is not told exactly once."""
        found = [f"frame {seq}: no fate" for seq in self.sent_s if seq not in self.fates]
        found += [f"frame {seq}: {fates}" for seq, fates in self.fates.items() if len(fates) > 1]
        return found if self.failure is None else [*found, self.failure]
