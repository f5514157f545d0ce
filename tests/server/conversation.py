"""A model of wire contract v1: what a session owes for what was sent. Knows no socket.

Takes every message that arrives and asserts that the contract (docs/protocol.md) allows it there.
"""

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ovoad_client import protocol

BAD_IN_A_ROW = 8
GRID_MS = 250
SLOTS = 32
Answer = Literal["prediction", "bad_image", "bad_frame", "out_of_order"]


@dataclass(frozen=True)
class SentFrame:
    """A frame that waits for its answer, and what held when it was sent."""

    timestamp_ms: int
    answer: Answer
    colour: str
    version: int
    generation: int


@dataclass
class Conversation:
    """One session as its client sees it."""

    policy: protocol.Policy
    labels: dict[int, tuple[str, ...]]  # by version
    top_k: int | None = None
    version: int = 1
    generation: int = 0  # how often the window was emptied
    times: dict[int, int] = field(default_factory=dict)  # timestamp_ms by seq
    last: tuple[int, int] | None = None  # seq and timestamp_ms of the newest frame taken
    waiting: dict[int, SentFrame] = field(default_factory=dict)
    refusals: Counter[tuple[int, Answer]] = field(default_factory=Counter)  # of frames, at once
    errors: deque[str] = field(default_factory=deque)  # codes of errors that name no seq
    pongs: deque[str | None] = field(default_factory=deque)
    resets: int = 0
    updates: deque[tuple[int, int]] = field(default_factory=deque)  # version, from_seq
    received: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    bad_in_a_row: int = 0
    predicted_up_to: int = -1
    cells: dict[int, list[int]] = field(default_factory=dict)  # timestamps by generation
    acting: set[str] = field(default_factory=set)  # labels between start and end
    ending: bool = False  # eight bad in a row: the end must come

    # ---- what the client sends ------------------------------------------------------------------

    def sends_frame(self, seq: int, timestamp_ms: int, colour: str, answer: Answer) -> None:
        """Note a frame; one that is not later than the last is owed `out_of_order`."""
        self.received += 1
        late = self.last is not None and (seq <= self.last[0] or timestamp_ms <= self.last[1])
        if answer == "bad_frame" or late:
            self.refusals[seq, "out_of_order" if late and answer != "bad_frame" else answer] += 1
            return
        self.last = (seq, timestamp_ms)
        self.times[seq] = timestamp_ms
        self.waiting[seq] = SentFrame(timestamp_ms, answer, colour, self.version, self.generation)

    def sends_update(self, labels: Sequence[str]) -> None:
        """Note new words that hold from the next frame on."""
        self.version += 1
        self.labels[self.version] = tuple(labels)
        from_seq = 0 if self.last is None else min(self.last[0] + 1, protocol.MAX_SEQ)
        self.updates.append((self.version, from_seq))

    def sends_reset(self) -> None:
        """Note that the window starts anew."""
        self.generation += 1
        self.resets += 1

    def resumed_at(self, next_seq: int) -> None:
        """Forget the frames that broke with the connection: those from `next_seq` on."""
        kept = {seq: frame for seq, frame in self.waiting.items() if seq < next_seq}
        self.received -= len(self.waiting) - len(kept)
        self.waiting = kept
        self.last = (next_seq - 1, self.times[next_seq - 1])

    @property
    def settled(self) -> bool:
        """Whether all that was sent is answered."""
        owed = (self.errors, self.pongs, self.updates, self.resets, self.waiting)
        return not any(owed) and not self.refusals.total()

    # ---- what the server sends ------------------------------------------------------------------

    def takes(self, message: protocol.ServerMessage) -> None:
        """Assert that this message may come now, and note it."""
        match message:
            case protocol.Prediction():
                self._takes_prediction(message)
            case protocol.FrameDropped():
                self._takes_drop(message)
            case protocol.Error():
                self._takes_error(message)
            case protocol.Pong():
                assert message.nonce == self.pongs.popleft()
            case protocol.SessionWasReset():
                self.resets -= 1
                assert self.resets >= 0
            case protocol.VocabularyUpdated():
                version, from_seq = self.updates.popleft()
                assert (message.vocabulary_version, message.from_seq) == (version, from_seq)
                assert tuple(message.labels) == self.labels[version]
            case protocol.Event():
                self._takes_event(message)
            case _:
                raise AssertionError(f"found {message} amid a session")

    def takes_end(self, message: protocol.SessionClosed) -> None:
        """Assert that the last message adds up, and that nothing is owed any more."""
        dropped = message.dropped
        assert self.settled, self
        assert not self.acting, "an action went on after its session"
        assert message.received == self.received
        assert (message.predicted, message.errors) == (
            self.counts["predicted"],
            self.counts["errors"],
        )
        assert dropped.busy + dropped.rate == self.counts["dropped"]
        assert dropped.stale == 0
        assert message.received == message.predicted + message.errors + self.counts["dropped"]

    def _takes_prediction(self, message: protocol.Prediction) -> None:
        frame = self.waiting.pop(message.seq)
        labels = self.labels[frame.version]
        assert frame.answer == "prediction", frame
        assert message.seq > self.predicted_up_to, "predictions came in another order than frames"
        assert message.timestamp_ms == frame.timestamp_ms
        assert message.vocabulary_version == frame.version
        self.predicted_up_to = message.seq
        self.counts["predicted"] += 1
        self.bad_in_a_row = 0
        if self.top_k is None:
            self._sees(frame, labels, message)
        else:
            assert message.top is not None
            assert len(message.top) == min(self.top_k, len(labels))
        self._window_is_right(frame, message.window)

    def _sees(
        self, frame: SentFrame, labels: tuple[str, ...], message: protocol.Prediction
    ) -> None:
        assert message.probabilities is not None
        assert message.similarities is not None
        assert len(message.probabilities) == len(message.similarities) == len(labels)
        assert math.isclose(sum(message.probabilities) + message.background, 1, abs_tol=1e-3)
        expected = [1.0 if label == frame.colour else 0.0 for label in labels]
        assert message.similarities == expected, "another frame or other words were scored"

    def _window_is_right(self, frame: SentFrame, window: protocol.WindowState) -> None:
        times = self.cells.setdefault(frame.generation, [])
        times.append(frame.timestamp_ms)
        cells = {(time - times[0]) // GRID_MS for time in times}
        newest = max(cells)
        filled = [cell for cell in cells if cell > newest - SLOTS]
        assert window.frames == len(filled)
        assert window.gaps == min(newest + 1, SLOTS) - len(filled)
        assert window.span_ms == (newest - min(filled)) * GRID_MS
        assert window.warming_up == (newest + 1 < SLOTS)

    def _takes_drop(self, message: protocol.FrameDropped) -> None:
        assert message.reason == "stale" if self.ending else self.policy == "realtime"
        frame = self.waiting.pop(message.seq)
        assert message.timestamp_ms == frame.timestamp_ms
        newer = [seq for seq in self.waiting if seq > message.seq]
        assert newer or self.ending or self.last_is_newer_than(message.seq), (
            "the newest was dropped"
        )
        self.counts["dropped"] += 1

    def last_is_newer_than(self, seq: int) -> bool:
        """Tell whether a later frame was sent."""
        return self.last is not None and self.last[0] > seq

    def _takes_error(self, message: protocol.Error) -> None:
        assert not message.fatal, message
        assert not message.transient, message
        if message.seq is None:
            assert message.code == self.errors.popleft(), message
            self.counts["errors"] += message.code == "bad_frame"
        else:
            self._takes_frame_error(message.seq, message.code)
        self.bad_in_a_row += 1
        self.ending |= self.bad_in_a_row >= BAD_IN_A_ROW

    def _takes_frame_error(self, seq: int, code: str) -> None:
        self.counts["errors"] += 1
        for refusal in list(self.refusals):
            if refusal == (seq, code):
                self.refusals[refusal] -= 1
                self.refusals += Counter()  # drops those at zero
                return
        assert self.waiting.pop(seq).answer == code

    def _takes_event(self, message: protocol.Event) -> None:
        if message.kind == "start":
            assert message.label not in self.acting, "an action started twice"
            assert message.start_ms is not None
            assert message.start_ms <= message.timestamp_ms
            self.acting.add(message.label)
        else:
            self.acting.remove(message.label)
