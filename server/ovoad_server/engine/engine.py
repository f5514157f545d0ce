"""The engine: batches whatever sessions have waiting and gives each frame its one answer.

Knows sessions and a worker; no transport, no model. The event loop schedules and answers, the
worker computes. While a batch runs, frames gather in the mailboxes: batches grow with load, and an
idle engine dispatches at once. The next batch leaves a little before a large one is expected to be
encoded, so that no core of the worker waits for the last frame of a batch. Where the worker encodes
frames side by side, in lanes, small batches leave for each lane, and one more for each so that none
is idle for the way to the worker and back.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from ovoad_server.engine.batches import (
    Batch,
    BatchRecord,
    Job,
    fail_all,
    push_feature,
    record_of,
    scored_reply,
)
from ovoad_server.engine.capacity import CostModel
from ovoad_server.engine.interface import (
    EncodedBatch,
    Failure,
    ScoreStep,
    Vocabulary,
    Window,
    WordsRequest,
    Worker,
    WorkerLostError,
)
from ovoad_server.engine.session import Session

log = logging.getLogger(__name__)
T = TypeVar("T")
RESTART_WAIT_S: Final = 15.0  # for the next worker, before frames that wait for it have failed
LARGE_BATCH: Final = 4  # frames; below, two batches at once would only slow each other down
TAIL_FRAMES: Final = 2  # the next batch leaves when this many frames are expected to be left


class Engine:
    """Scores the waiting frames of all sessions, in turn, batched.

    Each session gives one frame a round, so nobody waits longer than the batch under way plus one
    round. A batch holds at most `max_batch` frames, and no more than are expected to be done in
    half of `latency_budget_ms`: a frame waits for one batch and is part of the next. `lanes` is how
    many frames, each in a call of its own, the worker encodes side by side at full speed. `observe`
    is told of every batch.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        open_window: Callable[[], Window],
        cost: CostModel | None = None,
        max_batch: int = 16,
        lanes: int = 1,
        latency_budget_ms: float = 500.0,
        observe: Callable[[BatchRecord], None] = lambda record: None,
    ) -> None:
        self.worker = worker
        self.open_window = open_window
        self.cost = cost or CostModel()
        self._most = max_batch
        self._lanes = lanes
        self._latency_budget_ms = latency_budget_ms
        self._observe = observe
        self._ready: deque[Session] = deque()
        self._sessions: set[Session] = set()
        self._news = asyncio.Event()  # a frame or its words came, or some batch is encoded
        self._running = False
        self._under_way: list[Batch] = []  # oldest first
        self._encoded_s = 0.0  # when the last batch was
        self._one_by_one = asyncio.Lock()  # held while frames of a lost batch are tried again

    # ---- what transports call -------------------------------------------------------------------

    def add(self, session: Session) -> None:
        """Let a session take part."""
        self._sessions.add(session)

    def remove(self, session: Session) -> None:
        """Forget a session; frames of it in a running batch are still answered."""
        self._sessions.discard(session)

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
        self._news.set()

    async def embed(self, words: WordsRequest) -> Vocabulary:
        """Embed words beside the frames; once more where the worker is lost meanwhile."""
        try:
            return await self.worker.embed(words)
        except WorkerLostError:
            async with asyncio.timeout(RESTART_WAIT_S):
                await self.worker.until_ready()
            return await self.worker.embed(words)

    @property
    def running(self) -> bool:
        """Whether the scheduler runs."""
        return self._running

    @property
    def batch_age_s(self) -> float:
        """Seconds since the oldest batch under way began; 0 between batches."""
        return time.monotonic() - self._under_way[0].started_s if self._under_way else 0.0

    @property
    def largest_batch(self) -> int:
        """The most frames that a batch holds now, by what batches were seen to cost."""
        return self.cost.largest_batch(within_ms=self._latency_budget_ms / 2, at_most=self._most)

    @property
    def capacity_fps(self) -> float:
        """Frames a second that largest batches make, by what batches were seen to cost."""
        return self.cost.frames_per_s(self.largest_batch)

    async def run(self) -> None:
        """Score until cancelled."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    most = await self._until_next_may_leave()
                    jobs = self._collect(time.monotonic(), most)
                    if jobs:
                        before = self._before(jobs)
                        tasks.create_task(self._process(self._begin(jobs), before))
                        await asyncio.sleep(0)  # its images leave before anything else is decided
                    else:
                        await self._sleep_until_due()
        finally:
            self._running = False

    # ---- one batch ------------------------------------------------------------------------------

    def _collect(self, now_s: float, most: int) -> list[Job]:
        """Take one frame a session and round until there are `most` or nothing is due."""
        jobs: list[Job] = []
        not_due: list[Session] = []
        while self._ready and len(jobs) < most:
            session = self._ready.popleft()
            if session not in self._sessions:
                continue
            frame = session.take(now_s)
            if frame is not None:
                jobs.append(Job(session, frame, now_s))
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
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), timeout_s)

    def _before(self, jobs: list[Job]) -> list[Batch]:
        """Return the batches under way that hold frames of the same sessions.

        Tells each job whether it is the first of its session that is still to be encoded.
        """
        sessions = {job.session for job in jobs}
        before = [
            batch
            for batch in self._under_way
            if not sessions.isdisjoint(job.session for job in batch.jobs)
        ]
        ahead = {
            job.session for batch in before if not batch.encoded.is_set() for job in batch.jobs
        }
        for job in jobs:
            job.first = job.session not in ahead
            ahead.add(job.session)
        return before

    def _begin(self, jobs: list[Job]) -> Batch:
        """Put a batch under way."""
        now_s, size = time.monotonic(), len(jobs)
        tail_ms = self.cost.batch_ms(TAIL_FRAMES) if size >= LARGE_BATCH else 0.0
        expected_s = now_s + max(0.0, self.cost.batch_ms(size) - tail_ms) / 1000
        among = size + sum(len(batch.jobs) for batch in self._at_the_worker)
        batch = Batch(jobs, now_s, expected_s, among)
        self._under_way.append(batch)
        return batch

    @property
    def _at_the_worker(self) -> list[Batch]:
        return [batch for batch in self._under_way if not batch.returned]

    async def _until_next_may_leave(self) -> int:
        """Wait until the worker has room; return for how many frames."""
        while True:
            async with self._one_by_one:
                pass
            room = self._room(self._at_the_worker)
            if room > 0:
                return room
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._left_s(self._at_the_worker)):
                    await self._news.wait()

    def _room(self, encoding: Sequence[Batch]) -> int:
        """Return how many frames may leave now, while these batches are being encoded.

        A worker without lanes gets all that wait, once nothing is encoded or a large batch nearly
        is. One with lanes gets two batches for each, one to encode and one to go on with, of even
        size: single frames while few wait. A free lane takes what there is; a batch to go on with
        leaves once it is whole. All that is under way together is no more than one largest batch,
        or one frame for each of these, so that what comes next waits no longer than for that.
        """
        if self._lanes == 1:
            return self.largest_batch if not encoding or self._left_s(encoding) == 0.0 else 0
        batches = 2 * self._lanes
        now_s = time.monotonic()
        waiting = sum(session.due(now_s) for session in self._ready)
        under_way = sum(len(batch.jobs) for batch in encoding)
        most = max(batches, self.largest_batch)
        size = max(1, -(-min(waiting + under_way, most) // batches))
        free = len(encoding) < self._lanes
        if len(encoding) >= batches or (waiting < size and not free):
            return 0
        return min(most - under_way, size)

    def _left_s(self, encoding: Sequence[Batch]) -> float | None:
        """Return the seconds until a single large batch is nearly encoded, None for others."""
        one = len(encoding) == 1 and len(encoding[0].jobs) >= LARGE_BATCH
        if self._lanes == 1 and one and self.cost.known:
            return max(0.0, encoding[0].expected_s - time.monotonic())
        return None

    async def _process(self, batch: Batch, before: Sequence[Batch]) -> None:
        """See a batch through; its answers leave after those of the batches before it."""
        try:
            await self._encode_safely(batch, before)
            await self._score_safely(batch.jobs)
            for other in before:
                await other.answered.wait()
            self._answer_all(batch.jobs)
        finally:
            self._under_way.remove(batch)
            batch.answered.set()

    async def _encode_safely(self, batch: Batch, before: Sequence[Batch]) -> None:
        """Encode a batch and put its features into the sessions' windows, in their order."""
        try:
            at_once = await self._each_or_all(batch.jobs, self._encode)
            if at_once:
                self._learn(batch)
        except Exception:
            fail_all("a batch of %d was not encoded", batch.jobs)
        finally:
            batch.returned = True
            self._news.set()
        for other in before:
            await other.encoded.wait()
        for job in batch.jobs:
            push_feature(job)
        batch.encoded.set()

    def _learn(self, batch: Batch) -> None:
        """Count the time since the worker last answered, or since the batch began."""
        now_s = time.monotonic()
        started_s, self._encoded_s = max(batch.started_s, self._encoded_s), now_s
        self.cost.learn(len(batch.jobs), (now_s - started_s) * 1000, among=batch.among)

    async def _score_safely(self, jobs: list[Job]) -> None:
        """Score the frames of a batch that are encoded and were not scored with that."""
        try:
            good = [
                job
                for job in jobs
                if job.view is not None and job.error is None and job.scores is None
            ]
            await self._each_or_all(good, self._score)
        except Exception:
            fail_all("a batch of %d was not scored", jobs)

    def _answer_all(self, jobs: list[Job]) -> None:
        """Answer every frame of a batch, and tell the observer."""
        for job in jobs:
            self._answer(job)
        try:
            self._observe(record_of(jobs))
        except Exception:
            log.exception("a batch of %d was not observed", len(jobs))

    async def _each_or_all(
        self, jobs: Sequence[Job], work: Callable[[Sequence[Job]], Awaitable[None]]
    ) -> bool:
        """Do a batch at once; where the worker is lost over it, its frames once more, one by one.

        So a frame that kills the worker fails alone. Tells whether all went well at once.
        """
        if not jobs:
            return True
        try:
            await work(jobs)
            return True
        except WorkerLostError as lost:
            log.warning(
                "a batch of %d was lost (%s), trying its frames one by one", len(jobs), lost
            )
        async with self._one_by_one:
            await self._each(jobs, work)
        return False

    async def _each(
        self, jobs: Sequence[Job], work: Callable[[Sequence[Job]], Awaitable[None]]
    ) -> None:
        for index, job in enumerate(jobs):
            try:
                async with asyncio.timeout(RESTART_WAIT_S):
                    await self.worker.until_ready()
                await work([job])
            except WorkerLostError as lost:
                job.fail("internal", f"{lost} over this frame; another is started")
            except TimeoutError:
                for waiting in jobs[index:]:
                    waiting.fail("internal", "the worker was lost and is not back yet")
                break
            except Exception:
                fail_all("a batch of %d was not tried again", [job])

    async def _encode(self, jobs: Sequence[Job]) -> None:
        batch: EncodedBatch = await self.worker.encode(
            [job.frame.image for job in jobs], [self._step(job) for job in jobs]
        )
        scored_s = time.monotonic()
        encoded_s = scored_s - batch.score_ms / 1000
        for job, feature, decode_ms in zip(jobs, batch.features, batch.decode_ms, strict=True):
            job.taken_s += batch.waited_ms / 1000
            job.encoded_s, job.decode_ms, job.encode_ms = encoded_s, decode_ms, batch.encode_ms
            if isinstance(feature, Failure):
                job.fail(feature.code, feature.message)
            else:
                job.feature = feature
        for job, scores in zip(jobs, batch.scores, strict=True):
            if scores is not None:
                job.take_scores(scores, scored_s, batch.score_ms)
        if batch.limit is not None:
            self._most = min(self._most, batch.limit)

    def _step(self, job: Job) -> ScoreStep | None:
        """Return what it takes to score a frame at once, None while another one of its session is
        still to enter the window."""
        session, frame = job.session, job.frame
        if not job.first or frame.words.vocabulary is None:
            return None
        begins = session.window_generation != frame.generation
        window = self.open_window() if begins else session.window
        return ScoreStep(window, frame.timestamp_ms, frame.words.vocabulary)

    async def _score(self, jobs: Sequence[Job]) -> None:
        views = [job.view for job in jobs if job.view is not None]
        words = [job.frame.words.vocabulary for job in jobs]
        batch = await self.worker.score(views, [each for each in words if each is not None])
        scored_s = time.monotonic()
        for job, scores in zip(jobs, batch.scores, strict=True):
            job.take_scores(scores, scored_s, batch.score_ms)

    def _answer(self, job: Job) -> None:
        """Send a frame's one answer; a session that fails to take it harms no other."""
        try:
            if job.error is not None:
                job.session.answer(job.error)
                return
            scored = scored_reply(job)
            job.session.answer(scored)
            job.session.follow_events(job.frame, scored)
        except Exception:
            log.exception("frame %d of a session was not answered", job.frame.seq)
