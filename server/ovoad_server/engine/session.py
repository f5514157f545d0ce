"""One session: its mailbox, its window, its words and its counts. Knows no other session.

Everything runs on the event loop.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ovoad_server.engine.events import EventDetector, EventRule
from ovoad_server.engine.interface import Vocabulary, Window
from ovoad_server.engine.replies import Dropped, DropReason, Failed, Reply, Scored

Policy = Literal["realtime", "lossless"]


@dataclass
class Words:
    """A version of the vocabulary; `vocabulary` is None until its words are embedded."""

    version: int
    vocabulary: Vocabulary | None


@dataclass(frozen=True)
class WaitingFrame:
    """A frame in the mailbox, with the words and the window generation that hold for it."""

    seq: int
    timestamp_ms: int
    image: bytes
    words: Words
    generation: int
    received_s: float


@dataclass
class Counts:
    """received = predicted + dropped + errors, once every frame is answered."""

    received: int = 0
    predicted: int = 0
    errors: int = 0
    dropped: dict[DropReason, int] = field(
        default_factory=lambda: {"busy": 0, "rate": 0, "stale": 0}
    )

    @property
    def unanswered(self) -> int:
        """Frames that still wait for their answer."""
        return self.received - self.predicted - self.errors - sum(self.dropped.values())


class Session:
    """Takes frames in order, hands the engine the next to score, and sends every answer once.

    `realtime` keeps one waiting frame, the newest; the one it replaces is dropped. `lossless`
    keeps all: its caller reads no further than `max_inflight` (see `has_room`).
    `max_fps` spaces the frames that a realtime session hands out; of a burst the newest is always
    scored. A lossless session is slowed by its answers alone, unless `space_lossless`: then its
    frames are spaced too, none is lost, and whoever sends faster is read no further.
    """

    def __init__(
        self,
        session_id: str,
        *,
        policy: Policy,
        window: Window,
        words: Words,
        rule: EventRule,
        max_inflight: int,
        max_fps: float,
        reply: Callable[[Reply], None],
        space_lossless: bool = False,
    ) -> None:
        assert words.vocabulary is not None, "a session starts with embedded words"
        self.session_id = session_id
        self.policy = policy
        self.window = window
        self.window_generation = 0  # of the window's content; the engine's
        self.counts = Counts()
        self.bad_in_a_row = 0
        self._generation = 0  # of the newest reset
        self._words = words
        self._waiting: deque[WaitingFrame] = deque()
        self._under_way: dict[int, WaitingFrame] = {}  # handed out and not answered, by seq
        self._over = False  # nothing is answered any more
        self._events = EventDetector(rule, words.vocabulary.labels)
        self._events_generation = 0
        self._max_inflight = max_inflight
        self._interval_s = 1.0 / max_fps if policy == "realtime" or space_lossless else 0.0
        self._not_before_s = 0.0
        self._last: tuple[int, int] | None = None  # seq and timestamp_ms of the newest frame
        self._reply = reply

    @property
    def backlog(self) -> int:
        """Frames that wait in the mailbox."""
        return len(self._waiting)

    @property
    def words(self) -> Words:
        """The words for frames from now on."""
        return self._words

    @property
    def next_seq(self) -> int:
        """The least seq that the next frame can have."""
        return 0 if self._last is None else self._last[0] + 1

    def has_room(self) -> bool:
        """Tell whether another frame may be read."""
        return self.policy == "realtime" or self.counts.unanswered < self._max_inflight

    def offer(self, seq: int, timestamp_ms: int, image: bytes, *, now_s: float) -> None:
        """Take a frame; answers at once the one that it replaces, or itself when out of order."""
        self.counts.received += 1
        if self._last is not None and (seq <= self._last[0] or timestamp_ms <= self._last[1]):
            self.answer(
                Failed(
                    seq,
                    "out_of_order",
                    f"found seq {seq} at {timestamp_ms} ms after seq {self._last[0]} at "
                    f"{self._last[1]} ms, expected both to increase",
                )
            )
            return
        self._last = (seq, timestamp_ms)
        if self.policy == "realtime" and self._waiting:
            reason: DropReason = "rate" if now_s < self._not_before_s else "busy"
            self.drop_waiting(reason)
        self._waiting.append(
            WaitingFrame(seq, timestamp_ms, image, self._words, self._generation, now_s)
        )

    def take(self, now_s: float) -> WaitingFrame | None:
        """Hand out the next frame if its words are ready and the rate allows it."""
        if not self._waiting or self._waiting[0].words.vocabulary is None:
            return None
        if now_s < self._not_before_s:
            return None
        self._not_before_s = max(self._not_before_s + self._interval_s, now_s)
        frame = self._waiting.popleft()
        self._under_way[frame.seq] = frame
        return frame

    def due_s(self) -> float | None:
        """Return when the next frame may be handed out, None if it does not wait for time."""
        if not self._waiting or self._waiting[0].words.vocabulary is None:
            return None
        return self._not_before_s

    def due(self, now_s: float) -> int:
        """Return how many frames may be handed out now, one after the other."""
        due_s = self.due_s()
        if due_s is None or now_s < due_s:
            return 0
        return 1 if self._interval_s else len(self._waiting)

    def drop_waiting(self, reason: DropReason) -> None:
        """Answer all waiting frames as dropped."""
        while self._waiting:
            frame = self._waiting.popleft()
            self.answer(Dropped(frame.seq, frame.timestamp_ms, reason))

    def give_up(self) -> None:
        """Answer all frames that are left as dropped; answers that come later are for nobody."""
        for frame in list(self._under_way.values()):
            self.answer(Dropped(frame.seq, frame.timestamp_ms, "stale"))
        self.drop_waiting("stale")
        self._over = True

    def change_words(self, words: Words) -> None:
        """Frames from now on are scored with these words, those before with the old ones."""
        self._words = words

    def reset(self) -> None:
        """Frames from now on start an empty window."""
        self._generation += 1

    def finish_events(self) -> None:
        """End the actions under way: the session ends."""
        for event in self._events.finish():
            self._reply(event)

    def answer(self, reply: Scored | Dropped | Failed) -> None:
        """Count and send the one answer of a frame, then the events it brings."""
        if self._over:
            return
        if reply.seq is not None:
            self._under_way.pop(reply.seq, None)
        match reply:
            case Scored():
                self.counts.predicted += 1
                self.bad_in_a_row = 0
            case Dropped():
                self.counts.dropped[reply.reason] += 1
            case Failed():
                self.counts.errors += 1
                self.bad_in_a_row += 1
        self._reply(reply)

    def follow_events(self, frame: WaitingFrame, scored: Scored) -> None:
        """Send the events that a scored frame brings."""
        if self._over:
            return
        events = []
        if frame.generation != self._events_generation:
            events += self._events.finish()
            self._events_generation = frame.generation
        events += self._events.change_labels(scored.vocabulary.labels)
        events += self._events.update(frame.timestamp_ms, scored.scores.probabilities)
        for event in events:
            self._reply(event)
