"""Count frames and their answers, and compare with what the server counted."""

from collections import Counter
from dataclasses import dataclass, field

from ovoad_client.protocol import DropReason, SessionClosed


@dataclass
class Counts:
    """Frames sent and how each was answered; a frame has one answer."""

    sent: int = 0
    predicted: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter)
    errors: int = 0
    unexpected: int = 0  # answers to frames that were not waiting for one

    def differences(self, closed: SessionClosed) -> list[str]:
        """Return one text for each number in which the server's own count differs."""
        pairs = [
            ("received", closed.received, self.sent),
            ("predicted", closed.predicted, self.predicted),
            ("dropped busy", closed.dropped.busy, self.dropped["busy"]),
            ("dropped rate", closed.dropped.rate, self.dropped["rate"]),
            ("dropped stale", closed.dropped.stale, self.dropped["stale"]),
            ("errors", closed.errors, self.errors),
        ]
        texts = [
            f"the server counted {theirs} {name}, this client {ours}"
            for name, theirs, ours in pairs
            if theirs != ours
        ]
        if self.unexpected:
            texts.append(f"{self.unexpected} answers belong to no waiting frame")
        return texts


def describe_drops(dropped: Counter[DropReason]) -> str:
    """Return "busy 3, rate 1", or "none"."""
    named = [f"{reason} {count}" for reason, count in sorted(dropped.items()) if count]
    return ", ".join(named) or "none"
