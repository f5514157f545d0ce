"""What was sent, what came back, and what should not have. Knows no socket."""

import re
import time
from collections import Counter
from dataclasses import dataclass, field

from ovoad_client import protocol

LEAKS = re.compile(
    r'Traceback \(most recent|File "|site-packages|ovoad_server/|\.py\b|object at 0x'
)


@dataclass
class Ledger:
    """Counts by kind, and findings with the plays in which they came up."""

    most: int
    until_s: float
    sent: Counter[str] = field(default_factory=Counter)
    came: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    findings: dict[str, list[int]] = field(default_factory=dict)
    total: int = 0
    plays: int = 0

    def note(self, kind: str, count: int = 1) -> None:
        """Count messages that go out."""
        self.sent[kind] += count
        self.total += count

    def find(self, play: int, what: str) -> None:
        """Write down what should not have happened."""
        if what[:300] not in self.findings:
            print(f"  found in play {play}: {what[:300]}", flush=True)
        self.findings.setdefault(what[:300], []).append(play)

    @property
    def done(self) -> bool:
        """Whether enough was sent, or the time is up."""
        return self.total >= self.most or time.monotonic() > self.until_s

    def read(self, play: int, text: str) -> protocol.ServerMessage | None:
        """Parse a message from the server, and look whether it tells what it should not."""
        if leak := LEAKS.search(text):
            self.find(
                play, f"a message shows the server's inside: {leak.group()!r} in {text[:200]}"
            )
        try:
            message = protocol.parse_server_message(text)
        except protocol.ProtocolError as error:
            self.find(play, f"a message is not of wire contract v1: {error}")
            return None
        kind: str = message.type
        if isinstance(message, protocol.Error):
            kind = f"error {message.code}{' (fatal)' if message.fatal else ''}"
            if message.code == "internal":
                self.find(play, f"internal error: {message.message}")
        elif isinstance(message, protocol.FrameDropped):
            kind = f"frame.dropped {message.reason}"
        self.came[kind] += 1
        return message
