"""What a person sees of a clip: how far it is, and in the end what was found."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TextIO

from ovoad_client.counts import counted

EVERY_S: Final = 0.2
EVERY_LINE_S: Final = 2.0  # where lines cannot be written over


@dataclass
class Summary:
    """What an answer's messages say, as far as a person wants it in short."""

    name: str
    labels: Sequence[str] = ()
    duration_ms: int | None = None
    position_ms: int = 0
    predicted: int = 0
    share: float | None = None
    warnings: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    best: dict[str, float] = field(default_factory=dict)

    def take(self, message: dict[str, Any]) -> None:
        """Take one message of the answer."""
        match message["type"]:
            case "clip.opened":
                self.labels = message["labels"]
                self.duration_ms = message["clip"].get("duration_ms")
                self.warnings += message["warnings"]
            case "prediction":
                self.predicted += 1
                self.position_ms = message["timestamp_ms"]
                self._take_probabilities(message)
            case "clip.progress":
                self.position_ms = message["position_ms"]
            case "event":
                if message["kind"] == "end":
                    self.events.append(message)
            case "error":
                self.errors[message["code"]] += 1
            case "clip.closed":
                self.warnings += message["warnings"]

    def _take_probabilities(self, message: dict[str, Any]) -> None:
        top = message.get("top")
        pairs = (
            zip(self.labels, message["probabilities"], strict=True)
            if top is None
            else ((each["label"], each["probability"]) for each in top)
        )
        for label, probability in pairs:
            self.best[label] = max(probability, self.best.get(label, 0.0))

    def lines(self, *, events: bool) -> list[str]:
        """Return what to print once all is scored."""
        likeliest = sorted(self.best.items(), key=lambda item: -item[1])[:4]
        peaks = " · ".join(f"{label} {probability:.2f}" for label, probability in likeliest)
        lines = [
            f"{self.name}: {counted(self.predicted, 'frame')} scored, "
            f"{counted(len(self.events), 'event')}; "
            f"highest: {peaks or 'none'}"
        ]
        if events:
            lines += [
                f"  {each['start_ms'] / 1000:8.2f} s to {each['timestamp_ms'] / 1000:8.2f} s  "
                f"{each['label']}"
                for each in self.events
            ]
        if self.errors:
            counts = ", ".join(f"{count} {code}" for code, count in self.errors.items())
            lines.append(f"  frames without scores: {counts}")
        return lines + [f"  note: {warning}" for warning in self.warnings]


class Progress:
    """One line on standard error, written over on a terminal, else a new one now and then."""

    def __init__(self, name: str, *, quiet: bool = False, out: TextIO | None = None) -> None:
        self._name = name
        self._quiet = quiet
        self._out = out or sys.stderr
        self._over = self._out.isatty()
        self._due_s = 0.0 if self._over else time.monotonic() + EVERY_LINE_S
        self._width = 0

    def tell_sent(self, sent: int, size: int | None) -> None:
        """Show how much of the file has left."""
        share = "" if not size else f" ({100 * sent / size:.0f} %)"
        self._show(f"sent {sent / 2**20:.1f} MiB{share}")

    def tell_scored(self, summary: Summary) -> None:
        """Show how much is scored."""
        length = summary.duration_ms
        end = "" if length is None else f"/{length / 1000:.1f}"
        self._show(f"scored {summary.position_ms / 1000:.1f}{end} s, {summary.predicted} frames")

    def say(self, text: str) -> None:
        """Show something that must not be missed."""
        if not self._quiet:
            self.clear()
            print(f"{self._name}: {text}", file=self._out, flush=True)

    def clear(self) -> None:
        """Take the line away."""
        if self._width:
            self._out.write("\r" + " " * self._width + "\r")
            self._out.flush()
            self._width = 0

    def _show(self, text: str) -> None:
        now_s = time.monotonic()
        if self._quiet or now_s < self._due_s:
            return
        line = f"{self._name}: {text}"
        if self._over:
            self._due_s = now_s + EVERY_S
            self._out.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._due_s = now_s + EVERY_LINE_S
            self._out.write(line + "\n")
        self._out.flush()
