"""Frames on their way through the engine together, and the records of what they took."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ovoad_server.engine.interface import Failure, Float32Array, Scores, WindowView
from ovoad_server.engine.replies import Failed, Scored, Timing
from ovoad_server.engine.session import Session, WaitingFrame

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameRecord:
    """What one answered frame took: times by time.monotonic, milliseconds of its batch's stages.

    taken_s: when it left its mailbox, or when the worker began with it, where batches wait there.
    encoded_s, scored_s: when these stages ended, None where the frame did not get so far.
    code: of the error that was the answer, None for scores.
    """

    scorer: str
    received_s: float
    taken_s: float
    encoded_s: float | None
    scored_s: float | None
    answered_s: float
    decode_ms: float
    encode_ms: float
    score_ms: float
    code: str | None


@dataclass(frozen=True)
class BatchRecord:
    """One batch: its frames, at least one."""

    frames: Sequence[FrameRecord]

    @property
    def size(self) -> int:
        """Frames in it."""
        return len(self.frames)


@dataclass
class Job:
    """A frame on its way through a batch; taken_s is when the worker began with it."""

    session: Session
    frame: WaitingFrame
    taken_s: float
    first: bool = False  # no frame of its session before it is still to be encoded
    encoded_s: float | None = None
    scored_s: float | None = None
    decode_ms: float = 0.0
    encode_ms: float = 0.0
    score_ms: float = 0.0
    feature: Float32Array | None = None
    view: WindowView | None = None
    scores: Scores | None = None
    error: Failed | None = None

    def fail(self, code: str, message: str) -> None:
        """Make a failure the frame's answer."""
        self.error = Failed(self.frame.seq, code, message)

    def take_scores(self, scores: Scores | Failure, scored_s: float, score_ms: float) -> None:
        """Keep what the worker says of the frame's window."""
        self.scored_s, self.score_ms = scored_s, score_ms
        if isinstance(scores, Failure):
            self.fail(scores.code, scores.message)
        else:
            self.scores = scores


@dataclass
class Batch:
    """Frames under way together.

    expected_s: when they should be encoded, by what others took. among: frames under way when it
    began, its own included. returned: the worker has answered. encoded: the features are in the
    sessions' windows. answered: so are the scores at the sessions.
    """

    jobs: list[Job]
    started_s: float
    expected_s: float
    among: int
    returned: bool = False
    encoded: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)


def push_feature(job: Job) -> None:
    """Put a frame's feature, if it has one, into its session's window; keep the view."""
    session, frame = job.session, job.frame
    if job.feature is None:
        return
    try:
        if session.window_generation != frame.generation:
            session.window.clear()
            session.window_generation = frame.generation
        session.window.push(frame.timestamp_ms, job.feature)
        job.view = session.window.view()
    except Exception:  # a fault in one window is that frame's answer, no more
        log.exception("frame %d did not fit into its window", frame.seq)
        job.fail("internal", "the engine failed")


def fail_all(text: str, jobs: Sequence[Job]) -> None:
    """Log what nobody foresaw; it is the answer of all frames that have no other."""
    log.exception(text, len(jobs))
    for job in jobs:
        if job.error is None and (job.view is None or job.scores is None):
            job.fail("internal", "the engine failed")


def record_of(jobs: Sequence[Job]) -> BatchRecord:
    answered_s = time.monotonic()
    frames = []
    for job in jobs:
        words = job.frame.words.vocabulary
        assert words is not None, "frames wait for their words"
        frames.append(
            FrameRecord(
                words.scorer,
                job.frame.received_s,
                job.taken_s,
                job.encoded_s,
                job.scored_s,
                answered_s,
                job.decode_ms,
                job.encode_ms,
                job.score_ms,
                None if job.error is None else job.error.code,
            )
        )
    return BatchRecord(frames)


def scored_reply(job: Job) -> Scored:
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
            encode=job.encode_ms,
            score=job.score_ms,
            total=(time.monotonic() - frame.received_s) * 1000,
        ),
        job.session.counts.unanswered - 1,
    )
