"""From the engine's answers to wire messages. Knows no connection."""

import numpy as np
import orjson
from numpy.typing import NDArray

from ovoad_client import protocol
from ovoad_server.engine.events import ActionEvent
from ovoad_server.engine.interface import Float32Array, Scores
from ovoad_server.engine.replies import Dropped, Failed, Reply, Scored
from ovoad_server.engine.session import Counts


def to_json(reply: Reply, *, top_k: int | None) -> str:
    """Return the wire message of one answer or event as text.

    The lists of a prediction go from arrays to text, without becoming Python's floats or being
    checked: that is what many labels cost (benchmarks/label_cost.py).
    """
    if not isinstance(reply, Scored) or top_k:
        return to_message(reply, top_k=top_k).to_json()
    fields = _prediction(reply, top_k).model_dump(exclude_none=True) | _lists(reply.scores)
    return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def to_message(
    reply: Reply, *, top_k: int | None
) -> protocol.Prediction | protocol.FrameDropped | protocol.Error | protocol.Event:
    """Return the wire message of one answer or event."""
    match reply:
        case Scored():
            prediction = _prediction(reply, top_k)
            if top_k:
                return prediction
            lists = {name: values.tolist() for name, values in _lists(reply.scores).items()}
            return prediction.model_copy(update=lists)
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
    """Return a prediction with the best `top_k` labels; without top_k its lists are to be added."""
    scores = scored.scores
    window, timing = scored.window, scored.timing
    return protocol.Prediction(
        seq=scored.seq,
        timestamp_ms=scored.timestamp_ms,
        vocabulary_version=scored.vocabulary_version,
        background=round(scores.background, 6),
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


def _lists(scores: Scores) -> dict[str, NDArray[np.float64]]:
    """Return the fields that hold a number for each of C labels: [C] each."""
    return {
        "probabilities": _rounded(scores.probabilities),
        "similarities": _rounded(scores.similarities),
    }


def _top(scored: Scored, count: int) -> list[protocol.RankedLabel]:
    scores = scored.scores
    return [
        protocol.RankedLabel(
            label=scored.vocabulary.labels[row],
            probability=round(float(scores.probabilities[row]), 6),
            similarity=round(float(scores.similarities[row]), 6),
        )
        for row in _best(scores.probabilities, count)
    ]


def _best(probabilities: Float32Array, count: int) -> NDArray[np.int64]:
    """Return the rows of the `count` highest of [C], best first; of equals the first comes first.

    As a stable sort of all would give, but only what may be among them is sorted.
    """
    rows = np.arange(len(probabilities))
    if count < len(rows):
        least = np.partition(probabilities, -count)[-count]
        rows = np.flatnonzero(probabilities >= least)
    order = np.argsort(-probabilities[rows], kind="stable")[:count]
    return rows[order]


def _grouping(scores: Scores) -> protocol.Grouping | None:
    if scores.assignment is None or scores.foreground is None:
        return None
    return protocol.Grouping(
        assignment=_rounded(scores.assignment).tolist(),
        foreground=_rounded(scores.foreground).tolist(),
    )


def _rounded(values: Float32Array) -> NDArray[np.float64]:
    """Six decimals: finer than any meaning, a third of the bytes.

    In double precision, where rounding a float32 below 500 gives the nearest number to its decimals
    (24 bits times 10^6 are exact), as Python's `round` does.
    """
    return values.astype(np.float64).round(6)
