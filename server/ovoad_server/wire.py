"""From the engine's answers to wire messages. Knows no connection."""

from collections.abc import Iterable

import numpy as np

from ovoad_client import protocol
from ovoad_server.engine.events import ActionEvent
from ovoad_server.engine.interface import Float32Array, Scores
from ovoad_server.engine.replies import Dropped, Failed, Reply, Scored
from ovoad_server.engine.session import Counts


def to_message(
    reply: Reply, *, top_k: int | None
) -> protocol.Prediction | protocol.FrameDropped | protocol.Error | protocol.Event:
    """Return the wire message of one answer or event."""
    match reply:
        case Scored():
            return _prediction(reply, top_k)
        case Dropped():
            return protocol.FrameDropped(
                seq=reply.seq, timestamp_ms=reply.timestamp_ms, reason=reply.reason
            )
        case Failed():
            return frame_error(reply)
        case ActionEvent():
            return protocol.Event(
                kind=reply.kind,
                label=reply.label,
                timestamp_ms=reply.timestamp_ms,
                probability=round(reply.probability, 6),
                start_ms=reply.start_ms,
            )


def frame_error(failed: Failed) -> protocol.Error:
    """Return the error of one frame; the session goes on."""
    return protocol.Error.model_validate(
        {
            "code": failed.code,
            "message": failed.message,
            "fatal": False,
            "transient": failed.code == "internal",
            "seq": failed.seq,
        }
    )


def closed(reason: str, counts: Counts) -> protocol.SessionClosed:
    """Return the last message of an orderly session."""
    return protocol.SessionClosed(
        reason=reason,
        received=counts.received,
        predicted=counts.predicted,
        dropped=protocol.DroppedCounts(**counts.dropped),
        errors=counts.errors,
    )


def _prediction(scored: Scored, top_k: int | None) -> protocol.Prediction:
    scores = scored.scores
    window, timing = scored.window, scored.timing
    return protocol.Prediction(
        seq=scored.seq,
        timestamp_ms=scored.timestamp_ms,
        vocabulary_version=scored.vocabulary_version,
        probabilities=None if top_k else _rounded(scores.probabilities),
        background=round(scores.background, 6),
        similarities=None if top_k else _rounded(scores.similarities),
        top=_top(scored, top_k) if top_k else None,
        window=protocol.WindowState(
            frames=window.frames,
            span_ms=window.span_ms,
            gaps=window.gaps,
            warming_up=window.warming_up,
        ),
        timing_ms=protocol.Timing(
            queue=round(timing.queue, 3),
            decode=round(timing.decode, 3),
            encode=round(timing.encode, 3),
            score=round(timing.score, 3),
            total=round(timing.total, 3),
        ),
        backlog=scored.backlog,
        grouping=_grouping(scores),
    )


def _top(scored: Scored, count: int) -> list[protocol.RankedLabel]:
    scores = scored.scores
    order = np.argsort(-scores.probabilities, kind="stable")[:count]
    return [
        protocol.RankedLabel(
            label=scored.vocabulary.labels[row],
            probability=round(float(scores.probabilities[row]), 6),
            similarity=round(float(scores.similarities[row]), 6),
        )
        for row in order
    ]


def _grouping(scores: Scores) -> protocol.Grouping | None:
    if scores.assignment is None or scores.foreground is None:
        return None
    return protocol.Grouping(
        assignment=[_rounded(row) for row in scores.assignment],
        foreground=_rounded(scores.foreground),
    )


def _rounded(values: Float32Array | Iterable[float]) -> list[float]:
    """Six decimals: finer than any meaning, a third of the bytes."""
    return [round(value, 6) for value in np.asarray(values, np.float64).tolist()]
