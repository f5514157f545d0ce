"""Count frames and their answers, and compare with what the server counted."""

from collections import Counter
from dataclasses import dataclass, field

from ovoad_client.protocol import DropReason, Error, FrameDropped, Prediction, SessionClosed


@dataclass
class SessionCounts:
    """The part that one session of the server counts too; a resumed session counts on."""

    received: int = 0
    predicted: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter)
    errors: int = 0


@dataclass
class Counts:
    """Frames sent and what became of each: sent = predicted + dropped + errors + lost, at the end.

    A frame that is sent again after a break is still one frame.
    """

    sent: int = 0
    predicted: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter)
    errors: int = 0
    lost: int = 0  # never answered: a break swallowed them, or the session ended before them
    sent_again: int = 0
    reconnects: int = 0
    unexpected: int = 0  # answers to frames that were not waiting for one
    session: SessionCounts = field(default_factory=SessionCounts)

    def count_sent(self) -> None:
        """Count a frame that is sent for the first time."""
        self.sent += 1
        self.session.received += 1

    def count_answer(self, answer: Prediction | FrameDropped | Error) -> None:
        """Count the one answer of a frame."""
        match answer:
            case Prediction():
                self.predicted += 1
                self.session.predicted += 1
            case FrameDropped():
                self.dropped[answer.reason] += 1
                self.session.dropped[answer.reason] += 1
            case Error():
                self.errors += 1
                self.session.errors += 1

    def count_reconnect(self, *, resumed: bool, unreached: int, sent_again: int) -> None:
        """Count a new connection; a fresh session of the server counts from nothing.

        unreached: frames that the server had not got, `sent_again` of which go out anew.
        """
        self.reconnects += 1
        self.sent_again += sent_again
        if not resumed:
            self.session = SessionCounts()
        else:
            self.session.received -= unreached
        self.session.received += sent_again

    def differences(self, closed: SessionClosed) -> list[str]:
        """Return one text for each number in which the server's own count differs.

        The server speaks of its last session, and so does this comparison.
        """
        ours = self.session
        pairs = [
            ("received", closed.received, ours.received),
            ("predicted", closed.predicted, ours.predicted),
            ("dropped busy", closed.dropped.busy, ours.dropped["busy"]),
            ("dropped rate", closed.dropped.rate, ours.dropped["rate"]),
            ("dropped stale", closed.dropped.stale, ours.dropped["stale"]),
            ("errors", closed.errors, ours.errors),
        ]
        texts = [
            f"the server counted {theirs} {name}, this client {mine}"
            for name, theirs, mine in pairs
            if theirs != mine
        ]
        if self.unexpected:
            texts.append(f"{self.unexpected} answers belong to no waiting frame")
        return texts


def describe_drops(dropped: Counter[DropReason]) -> str:
    """Return "busy 3, rate 1", or "none"."""
    named = [f"{reason} {count}" for reason, count in sorted(dropped.items()) if count]
    return ", ".join(named) or "none"


def counted(number: int, noun: str) -> str:
    """Return e.g. "1 frame", "2 frames"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
