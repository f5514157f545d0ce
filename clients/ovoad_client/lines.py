"""Show a session as plain lines, one a second, where there is no terminal. Knows no rich."""

import sys
import time
from types import TracebackType
from typing import Final, TextIO

from ovoad_client.board import (
    Board,
    describe_event,
    describe_notice,
    describe_speed,
    describe_window,
)
from ovoad_client.counts import describe_drops
from ovoad_client.notices import FramesLost, Reconnected, Reconnecting, StreamMessage
from ovoad_client.protocol import Error, Event, GoAway

LINE_EVERY_S: Final = 1.0
LABELS_SHOWN: Final = 4


class LineView:
    """Prints the board once a second, and events and errors as they come."""

    def __init__(self, *, duration_ms: float | None = None, out: TextIO | None = None) -> None:
        self._duration_ms = duration_ms
        self._out = out or sys.stdout
        self._due_s = 0.0

    def __enter__(self) -> "LineView":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._out.flush()

    def refresh(self, board: Board) -> None:
        """Print a line if the last one is a second old and a frame has been scored."""
        now_s = time.monotonic()
        if board.predicted and now_s >= self._due_s:
            self._due_s = now_s + LINE_EVERY_S
            self.say(board_line(board, duration_ms=self._duration_ms))

    def tell(self, message: StreamMessage) -> None:
        """Print what must not wait for the next line."""
        text = describe_message(message)
        if text is not None:
            self.say(text)

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._out, flush=True)


class NamedLines(LineView):
    """The lines of one of several sources, each after the source's name."""

    def __init__(
        self, name: str, *, duration_ms: float | None = None, out: TextIO | None = None
    ) -> None:
        super().__init__(duration_ms=duration_ms, out=out)
        self._name = name

    def say(self, text: str) -> None:
        """Print a line."""
        super().say(f"[{self._name}] {text}")


def describe_message(message: StreamMessage) -> str | None:
    """Return the line of a message that a person should see at once, or None."""
    match message:
        case Event():
            return f"event {describe_event(message)}"
        case Error():
            place = f" (frame {message.seq})" if message.seq is not None else ""
            return f"error {message.code}{place}: {message.message}"
        case GoAway():
            return f"the server leaves in {message.time_left_ms / 1000:.1f} s: {message.reason}"
        case Reconnecting() | Reconnected() | FramesLost():
            return describe_notice(message)
        case _:
            return None


def board_line(board: Board, *, duration_ms: float | None = None) -> str:
    """Return the state of a session as one line."""
    likeliest = sorted(board.probabilities.items(), key=lambda item: -item[1])[:LABELS_SHOWN]
    words = [f"{label} {probability:.2f}" for label, probability in likeliest]
    words.append(f"(none of these) {board.background:.2f}")
    rate, latency = describe_speed(board)
    parts = [
        describe_position(board.timestamp_ms, duration_ms),
        " · ".join(words),
        rate,
        latency,
        f"drops: {describe_drops(board.dropped)}",
        f"window: {describe_window(board.window)}",
    ]
    if board.lost:
        parts.insert(-1, f"lost: {board.lost}")
    return " | ".join(parts)


def describe_position(timestamp_ms: int, duration_ms: float | None) -> str:
    """Return "3.2 s", or "3.2/10.0 s" where the end is known."""
    position = f"{timestamp_ms / 1000:.1f}"
    return f"{position} s" if duration_ms is None else f"{position}/{duration_ms / 1000:.1f} s"
