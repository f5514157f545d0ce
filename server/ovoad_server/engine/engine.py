"""The engine: one inference worker that batches whatever sessions have waiting.

Knows sessions and a detector; no transport. Three places of work: the event loop schedules and
answers, a small pool decodes, one worker thread encodes and scores. While a batch runs, frames
gather in the mailboxes, so batches grow with load and an idle engine dispatches at once.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from ovoad_server.engine.images import ImageError, decode_image
from ovoad_server.engine.interface import (
    Detector,
    Float32Array,
    Frame,
    Scores,
    Vocabulary,
    Window,
    WindowView,
)
from ovoad_server.engine.replies import Failed, Scored, Timing
from ovoad_server.engine.session import Session, WaitingFrame

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class BatchRecord:
    """What one batch took: its size and milliseconds by stage."""

    size: int
    decode_ms: float
    encode_ms: float
    score_ms: float


@dataclass
class _Job:
    """A frame on its way through a batch."""

    session: Session
    frame: WaitingFrame
    taken_s: float
    pixels: Frame | None = None
    decode_ms: float = 0.0
    error: Failed | None = None
    view: WindowView | None = None
    scores: Scores | None = None
    answered: bool = False


def _blame(part: str, job: _Job, error: Exception) -> None:
    """Log a fault while it is handled, and make it the frame's answer."""
    log.exception("frame %d of session %s failed", job.frame.seq, job.session.session_id)
    job.error = Failed(job.frame.seq, "internal", f"the {part} failed ({type(error).__name__})")


class Engine:
    """Scores the waiting frames of all sessions, in turn, batched.

    `max_batch` bounds a batch; each session gives one frame a round, so nobody waits longer than
    the batch under way plus one round. `observe` is told of every batch.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        max_batch: int = 16,
        decode_threads: int = 2,
        max_pixels: int = 16_777_216,
        observe: Callable[[BatchRecord], None] = lambda record: None,
    ) -> None:
        self._detector = detector
        self._max_batch = max_batch
        self._max_pixels = max_pixels
        self._observe = observe
        self._decoders = ThreadPoolExecutor(decode_threads, "ovoad-decode")
        self._worker = ThreadPoolExecutor(1, "ovoad-worker")
        self._text_worker = ThreadPoolExecutor(1, "ovoad-text")
        self._ready: deque[Session] = deque()
        self._sessions: set[Session] = set()
        self._wake = asyncio.Event()
        self._running = False
        self._busy_since_s: float | None = None

    # ---- what transports call -------------------------------------------------------------------

    def add(self, session: Session) -> None:
        """Let a session take part."""
        self._sessions.add(session)

    def remove(self, session: Session) -> None:
        """Forget a session; frames of it in a running batch are still answered."""
        self._sessions.discard(session)

    def open_window(self) -> Window:
        """Return an empty window for a new session."""
        return self._detector.open_window()

    @property
    def sessions(self) -> int:
        """Sessions that take part."""
        return len(self._sessions)

    @property
    def waiting(self) -> int:
        """Frames in all mailboxes."""
        return sum(session.backlog for session in self._sessions)

    def submit(self, session: Session, seq: int, timestamp_ms: int, image: bytes) -> None:
        """Take a frame for a session and wake the scheduler."""
        session.offer(seq, timestamp_ms, image, now_s=time.monotonic())
        self.notify(session)

    def notify(self, session: Session) -> None:
        """Look at a session again: a frame came, or its words are ready."""
        if session.backlog and session not in self._ready:
            self._ready.append(session)
        self._wake.set()

    async def embed_vocabulary(
        self,
        labels: Sequence[str],
        *,
        templates: Sequence[str] | None,
        background: Sequence[str] | None,
        scorer: str | None,
    ) -> Vocabulary:
        """Embed words on the text thread, so that nobody's frames wait for them."""
        return await asyncio.get_running_loop().run_in_executor(
            self._text_worker,
            lambda: self._detector.vocabulary(
                labels, templates=templates, background=background, scorer=scorer
            ),
        )

    @property
    def running(self) -> bool:
        """Whether the scheduler runs."""
        return self._running

    @property
    def batch_age_s(self) -> float:
        """Seconds since the batch under way began; 0 between batches."""
        return 0.0 if self._busy_since_s is None else time.monotonic() - self._busy_since_s

    async def on_worker(self, work: Callable[[], T]) -> T:
        """Run a function on the inference worker, between batches."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    async def run(self) -> None:
        """Score until cancelled."""
        self._running = True
        try:
            while True:
                jobs = self._collect(time.monotonic())
                if jobs:
                    await self._process_safely(jobs)
                else:
                    await self._sleep_until_due()
        finally:
            self._running = False
            for pool in (self._decoders, self._worker, self._text_worker):
                pool.shutdown(wait=False, cancel_futures=True)

    # ---- one batch ------------------------------------------------------------------------------

    def _collect(self, now_s: float) -> list[_Job]:
        """Take one frame a session and round until the batch is full or nothing is due."""
        jobs: list[_Job] = []
        not_due: list[Session] = []
        while self._ready and len(jobs) < self._max_batch:
            session = self._ready.popleft()
            if session not in self._sessions:
                continue
            frame = session.take(now_s)
            if frame is not None:
                jobs.append(_Job(session, frame, now_s))
                if session.backlog:
                    self._ready.append(session)
            elif session.backlog:
                not_due.append(session)
        self._ready.extend(not_due)
        return jobs

    async def _sleep_until_due(self) -> None:
        """Wait for news, or until the rate limit of some session allows its next frame."""
        due = [at for session in self._ready if (at := session.due_s()) is not None]
        timeout_s = max(0.0, min(due) - time.monotonic()) if due else None
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout_s)

    async def _process_safely(self, jobs: list[_Job]) -> None:
        """Answer every job of a batch, also where something fails that nobody foresaw."""
        self._busy_since_s = time.monotonic()
        try:
            await self._process(jobs)
        except Exception:
            log.exception("a batch of %d failed", len(jobs))
            for job in jobs:
                if not job.answered:
                    job.error = Failed(job.frame.seq, "internal", "the engine failed")
                    self._answer(job, 0.0, 0.0)
        finally:
            self._busy_since_s = None

    async def _process(self, jobs: list[_Job]) -> None:
        loop = asyncio.get_running_loop()
        started_s = time.monotonic()
        decoding: list[Awaitable[None]] = [
            loop.run_in_executor(self._decoders, self._decode, job) for job in jobs
        ]
        await asyncio.gather(*decoding)
        decode_ms = (time.monotonic() - started_s) * 1000
        encode_ms, score_ms = await loop.run_in_executor(self._worker, self._infer, jobs)
        for job in jobs:
            self._answer(job, encode_ms, score_ms)
        self._observe(BatchRecord(len(jobs), decode_ms, encode_ms, score_ms))

    def _decode(self, job: _Job) -> None:
        started_s = time.monotonic()
        try:
            job.pixels = decode_image(job.frame.image, max_pixels=self._max_pixels)
        except ImageError as error:
            job.error = Failed(job.frame.seq, error.code, str(error))
        except Exception as error:  # whatever a decoder raises is that frame's answer, no more
            _blame("decoder", job, error)
        job.decode_ms = (time.monotonic() - started_s) * 1000

    def _infer(self, jobs: list[_Job]) -> tuple[float, float]:
        """Encode and score on the worker; returns the milliseconds of both."""
        started_s = time.monotonic()
        good = [job for job in jobs if job.error is None]
        encoded = self._each_or_all(good, self._encode)
        encoded_s = time.monotonic()
        for job, feature in encoded:
            session, frame = job.session, job.frame
            if session.window_generation != frame.generation:
                session.window.clear()
                session.window_generation = frame.generation
            session.window.push(frame.timestamp_ms, feature)
            job.view = session.window.view()
        for job, scores in self._each_or_all([job for job, _ in encoded], self._score):
            job.scores = scores
        return (encoded_s - started_s) * 1000, (time.monotonic() - encoded_s) * 1000

    def _encode(self, jobs: Sequence[_Job]) -> Sequence[Float32Array]:
        return list(self._detector.encode([job.pixels for job in jobs if job.pixels is not None]))

    def _score(self, jobs: Sequence[_Job]) -> Sequence[Scores]:
        return self._detector.score(
            [job.view for job in jobs], [job.frame.words.vocabulary for job in jobs]
        )

    def _each_or_all(
        self, jobs: Sequence[_Job], work: Callable[[Sequence[_Job]], Sequence[T]]
    ) -> list[tuple[_Job, T]]:
        """Do a batch at once; where it fails, one by one, so that a bad item fails alone.

        Catches everything: whatever a model raises becomes that frame's answer.
        """
        if not jobs:
            return []
        try:
            return list(zip(jobs, work(jobs), strict=True))
        except Exception as error:
            if len(jobs) == 1:
                _blame("model", jobs[0], error)
                return []
            log.warning("a batch of %d failed, trying its frames one by one", len(jobs))
            return [pair for job in jobs for pair in self._each_or_all([job], work)]

    def _answer(self, job: _Job, encode_ms: float, score_ms: float) -> None:
        """Send a frame's one answer; a session that fails to take it harms no other."""
        job.answered = True
        try:
            if job.error is not None:
                job.session.answer(job.error)
                return
            scored = self._scored(job, encode_ms, score_ms)
            job.session.answer(scored)
            job.session.follow_events(job.frame, scored)
        except Exception:
            log.exception(
                "frame %d of session %s was not answered", job.frame.seq, job.session.session_id
            )

    def _scored(self, job: _Job, encode_ms: float, score_ms: float) -> Scored:
        frame = job.frame
        assert job.scores is not None
        assert job.view is not None
        assert frame.words.vocabulary is not None
        return Scored(
            frame.seq,
            frame.timestamp_ms,
            frame.words.version,
            frame.words.vocabulary,
            job.scores,
            job.view.state,
            Timing(
                queue=(job.taken_s - frame.received_s) * 1000,
                decode=job.decode_ms,
                encode=encode_ms,
                score=score_ms,
                total=(time.monotonic() - frame.received_s) * 1000,
            ),
            job.session.backlog,
        )
