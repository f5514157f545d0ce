"""Read a video source in a thread, paced, into a bounded queue for the event loop.

Knows no server. The queue's policy: `keep="newest"` replaces the oldest waiting frame by the
newest and counts it as skipped; `keep="all"` makes the source wait.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Literal

from ovoad_client.errors import ClientError, SourceError
from ovoad_client.sources import DEFAULT_MAX_SIDE, SourceFrame, VideoSource, encode_jpeg

Pace = Literal["source", "fast"]
Keep = Literal["newest", "all"]
QUEUED_FRAMES: Final = 4
LATE_S: Final = 0.25  # a frame this late is skipped before it costs any encoding
_JOIN_S: Final = 2.0  # a network read may hold the (daemon) thread for longer
_WHOLE: Final = 0.9  # a file that ends before this part of its length was cut short


class SourceReader:
    """Asynchronous iterator over the frames of a source, which it closes when left.

    pace "source" gives the frames of a file at their own times; "fast" as soon as there is room,
    and all of them. Live sources always come at their own rate and always keep the newest. What the
    source tells meanwhile is handed to `say` on the event loop.
    """

    def __init__(
        self,
        source: VideoSource,
        *,
        pace: Pace = "source",
        keep: Keep = "newest",
        max_side: int = DEFAULT_MAX_SIDE,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.source = source
        self.skipped = 0  # frames read but not handed on, as newer ones had come
        self.position_ms = 0
        self.note: str | None = None  # what a person should know about how the source ended
        self._paced = pace == "source" and not source.live
        self._keep: Keep = "newest" if source.live or (self._paced and keep == "newest") else "all"
        self._max_side = max_side
        self._waiting: deque[SourceFrame] = deque()
        self._room = threading.Condition()
        self._stopped = threading.Event()
        self._failure: Exception | None = None
        self._finished = False
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if say is not None:
            source.tell = lambda text: self._call(lambda: say(text))
        self._thread = threading.Thread(target=self._run, name="ovoad source", daemon=True)

    async def __aenter__(self) -> "SourceReader":
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        await asyncio.to_thread(self._thread.join, _JOIN_S)

    def __aiter__(self) -> "SourceReader":
        return self

    async def __anext__(self) -> SourceFrame:
        while True:
            with self._room:
                if self._waiting and not self._stopped.is_set():
                    self._room.notify()
                    return self._waiting.popleft()
                self._wake.clear()
                finished = self._finished
            if self._stopped.is_set():
                raise StopAsyncIteration
            if finished:
                if self._failure is not None:
                    raise self._failure
                raise StopAsyncIteration
            await self._wake.wait()

    def stop(self) -> None:
        """End the iteration now; frames still waiting are left."""
        self._stopped.set()
        self.source.stop()
        with self._room:
            self._room.notify_all()
        self._wake.set()

    # ---- in the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._read()
            self.source.close()
        except ClientError as error:  # raised again by __anext__, on the event loop
            self._failure = error
        except Exception as error:  # of a library; people get it on one line, too
            text = f"cannot read {self.source.name}: {type(error).__name__}: {error}"
            self._failure = SourceError(" ".join(text.split()))
            self._failure.__cause__ = error
        finally:
            if self._failure is not None:
                with contextlib.suppress(Exception):  # the first failure is the one that is told
                    self.source.close()
            with self._room:
                self._finished = True
            self._signal()

    def _read(self) -> None:
        start_s: float | None = None
        grabbed = decoded = 0
        for timestamp_ms in self.source.grab():
            grabbed += 1
            if start_s is None:
                start_s = time.monotonic()
            if self._paced and not self._wait_for(start_s + timestamp_ms / 1000):
                continue
            if self._stopped.is_set():
                return
            image = self.source.retrieve()
            if image is None:
                continue
            decoded += 1
            self.position_ms = timestamp_ms
            self._hand_on(SourceFrame(timestamp_ms, encode_jpeg(image, max_side=self._max_side)))
            if self._stopped.is_set():
                return
        if not self._stopped.is_set():
            self._judge_end(grabbed, decoded)

    def _wait_for(self, due_s: float) -> bool:
        """Wait until a frame is due; False where it is so late that it is skipped."""
        wait_s = due_s - time.monotonic()
        if wait_s > 0:
            self._stopped.wait(wait_s)
        elif wait_s < -LATE_S and self._keep == "newest":
            self.skipped += 1
            return False
        return True

    def _hand_on(self, frame: SourceFrame) -> None:
        with self._room:
            if self._keep == "all":
                self._room.wait_for(
                    lambda: len(self._waiting) < QUEUED_FRAMES or self._stopped.is_set()
                )
            elif len(self._waiting) >= QUEUED_FRAMES:
                self._waiting.popleft()
                self.skipped += 1
            self._waiting.append(frame)
        self._signal()

    def _signal(self) -> None:
        self._call(self._wake.set)

    def _call(self, work: Callable[[], object]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(work)

    def _judge_end(self, grabbed: int, decoded: int) -> None:
        source = self.source
        if decoded == 0 and self.skipped == 0:
            found = f"none of {grabbed} frames decodes" if grabbed else "it ends at its start"
            raise SourceError(f"cannot read video '{source.name}': no video frames found: {found}")
        if not source.may_end:
            raise SourceError(f"{source.name} stopped giving frames after {grabbed} frames")
        expected = source.frame_count
        if expected is not None and grabbed < _WHOLE * expected:
            self.note = (
                f"'{source.name}' ends after {grabbed} of {expected} frames: "
                "the rest cannot be read"
            )
