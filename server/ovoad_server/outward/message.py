"""What goes outward: one message an event, the same bytes to everybody. Knows no transport."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ovoad_server.engine.events import ActionEvent

Cause = Literal["seen", "restart"]


@dataclass(frozen=True)
class NotedEvent:
    """An event as the server made it; occurred_s is wall time (seconds since 1970).

    `probability` is None for an end that nobody saw: the server went down in between.
    """

    session_id: str
    kind: Literal["start", "end"]
    label: str
    timestamp_ms: int
    start_ms: int
    probability: float | None
    occurred_s: float
    cause: Cause = "seen"

    @classmethod
    def of(cls, session_id: str, event: ActionEvent, *, occurred_s: float) -> "NotedEvent":
        """Take what the engine says of an event."""
        return cls(
            session_id,
            event.kind,
            event.label,
            event.timestamp_ms,
            event.start_ms,
            round(event.probability, 6),
            occurred_s,
        )


class Action(BaseModel):
    """What began or ended; times in milliseconds of the session's own clock."""

    model_config = ConfigDict(frozen=True)

    session_id: str
    label: str
    timestamp_ms: int
    start_ms: int
    probability: float | None
    active_sessions: int  # in which this label goes on, this event counted
    cause: Cause


class ActionMessage(BaseModel):
    """The body: `id` is the same however often it comes, `sequence` has a gap where some dropped.

    The shape (type, timestamp, data) is that of the Standard Webhooks specification.
    """

    model_config = ConfigDict(frozen=True)

    type: Literal["action.start", "action.end"]
    id: str
    sequence: int
    timestamp: str
    data: Action


def make_message(noted: NotedEvent, *, sequence: int, active_sessions: int) -> ActionMessage:
    """Return the message of an event, with an identifier of its own."""
    occurred = datetime.fromtimestamp(noted.occurred_s, UTC)
    return ActionMessage(
        type="action.start" if noted.kind == "start" else "action.end",
        id=f"evt_{secrets.token_hex(12)}",
        sequence=sequence,
        timestamp=occurred.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        data=Action(
            session_id=noted.session_id,
            label=noted.label,
            timestamp_ms=noted.timestamp_ms,
            start_ms=noted.start_ms,
            probability=noted.probability,
            active_sessions=active_sessions,
            cause=noted.cause,
        ),
    )
