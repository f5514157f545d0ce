"""Check that every frame is answered exactly once. Knows no connection."""

from collections import Counter
from dataclasses import dataclass, field


class AnswerBook:
    """One session's frames that wait for their answer, and the answers that were wrong."""

    def __init__(self) -> None:
        self.sent = 0
        self.answered = 0
        self.doubled = 0  # answers to frames that had theirs already
        self.unknown = 0  # answers to frames that were never sent
        self._waiting: dict[int, float] = {}  # seq -> when the frame was due, seconds

    @property
    def unanswered(self) -> int:
        """Frames that still wait."""
        return len(self._waiting)

    def send(self, due_s: float) -> int:
        """Note a frame that goes out; returns its seq."""
        seq = self.sent
        self.sent += 1
        self._waiting[seq] = due_s
        return seq

    def answer(self, seq: int) -> float | None:
        """Note an answer; returns when its frame was due, None where no frame waited for it."""
        due_s = self._waiting.pop(seq, None)
        if due_s is not None:
            self.answered += 1
        elif 0 <= seq < self.sent:
            self.doubled += 1
        else:
            self.unknown += 1
        return due_s


@dataclass
class Tally:
    """Every frame of a run and its answers, over all sessions, warm-up and end included.

    lost: frames of lossless sessions that got no prediction; miscounted: sessions whose own count
    differs from the server's; broken: sessions that ended without `session.closed`, by reason.
    """

    sessions: int = 0
    sent: int = 0
    answered: int = 0
    doubled: int = 0
    unknown: int = 0
    missing: int = 0
    lost: int = 0
    miscounted: int = 0
    broken: Counter[str] = field(default_factory=Counter)

    def add(self, book: AnswerBook) -> None:
        """Count a session that has ended."""
        self.sessions += 1
        self.sent += book.sent
        self.answered += book.answered
        self.doubled += book.doubled
        self.unknown += book.unknown
        self.missing += book.unanswered

    def merge(self, other: "Tally") -> None:
        """Count another run's frames in."""
        self.sessions += other.sessions
        self.sent += other.sent
        self.answered += other.answered
        self.doubled += other.doubled
        self.unknown += other.unknown
        self.missing += other.missing
        self.lost += other.lost
        self.miscounted += other.miscounted
        self.broken.update(other.broken)

    @property
    def complaints(self) -> list[str]:
        """What was not as promised, one text each."""
        found = [
            (self.missing, "frames were not answered"),
            (self.doubled, "answers came a second time"),
            (self.unknown, "answers belong to no frame"),
            (self.lost, "frames of lossless sessions got no prediction"),
            (self.miscounted, "sessions were counted otherwise by the server"),
        ]
        texts = [f"{count} {what}" for count, what in found if count]
        texts += [f"{count} sessions broke: {why}" for why, count in sorted(self.broken.items())]
        return texts

    def sentence(self) -> str:
        """Say in one line whether every frame was answered exactly once."""
        if not self.complaints:
            return f"{self.sent} frames sent, each answered exactly once"
        return f"{self.sent} frames sent, but " + ", ".join(self.complaints)
