"""What was asked of the server and is still owed: frames and requests, over every connection.

Knows no socket: it takes messages, and after a break says what goes out again and what is lost.
"""

import asyncio
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from ovoad_client.counts import Counts
from ovoad_client.errors import ClientError, RefusedError
from ovoad_client.protocol import (
    Error,
    Event,
    FrameDropped,
    Ping,
    Pong,
    Prediction,
    Resume,
    ServerMessage,
    SessionCreate,
    SessionCreated,
    SessionReset,
    SessionWasReset,
    Vocabulary,
    VocabularyUpdate,
    VocabularyUpdated,
    pack_frame,
)

Reply = TypeVar("Reply", VocabularyUpdated, SessionWasReset, Pong)


@dataclass(frozen=True)
class SentFrame:
    """A frame with no answer yet; `data` is kept where it may have to go out again."""

    sent_s: float  # time.monotonic()
    data: bytes | None


@dataclass(frozen=True)
class Request(Generic[Reply]):
    """A request with no reply yet, and its place: before the frame `before_seq`."""

    message: VocabularyUpdate | SessionReset | Ping
    before_seq: int
    number: int  # among all requests
    reply: "asyncio.Future[Reply]"


@dataclass(frozen=True)
class Again:
    """What a new connection begins with: messages in their first order, and the frames lost."""

    messages: list[str | bytes]
    sent_again: tuple[int, ...]
    lost: tuple[int, ...]


class Ledger:
    """The debts of a stream. Frames are numbered once, whatever connection carries them."""

    def __init__(self, create: SessionCreate, created: SessionCreated) -> None:
        self.created = created
        self.counts = Counts()
        self.frames: dict[int, SentFrame] = {}  # by seq, ascending
        self._create = create  # always with the newest words that the server took
        self._next_seq = created.next_seq or 0
        self._first_seq = self._next_seq  # of the server's session
        self._answered: int | None = None  # the largest seq that the server's session answered
        self._requests = 0
        self._updates: deque[Request[VocabularyUpdated]] = deque()
        self._resets: deque[Request[SessionWasReset]] = deque()
        self._pings: deque[Request[Pong]] = deque()
        self._version = created.vocabulary_version  # the newest that was taken in
        # What a replay would begin with: all but answers that came since the answer to `_last_seq`.
        self._told: Counter[Event | Error | SessionWasReset | Pong] = Counter()
        self._repeats: Counter[Event | Error | SessionWasReset | Pong] = Counter()  # still to come

    @property
    def owed(self) -> int:
        """Answers and replies that are still to come."""
        requests = len(self._updates) + len(self._resets) + len(self._pings)
        return len(self.frames) + requests

    # ---- going out ---------------------------------------------------------------------------

    def push_frame(self, image: bytes, *, timestamp_ms: int) -> tuple[int, bytes]:
        """Owe a frame's answer; returns its seq and the message to send."""
        seq = self._next_seq
        self._next_seq += 1
        data = pack_frame(seq, timestamp_ms, image)
        lossless = self.created.policy == "lossless"
        self.frames[seq] = SentFrame(time.monotonic(), data if lossless else None)
        self.counts.count_sent()
        return seq, data

    def push_update(self, vocabulary: Vocabulary) -> Request[VocabularyUpdated]:
        """Owe the reply to new words."""
        return self._push(VocabularyUpdate(vocabulary=vocabulary), self._updates)

    def push_reset(self) -> Request[SessionWasReset]:
        """Owe the reply to a reset."""
        return self._push(SessionReset(), self._resets)

    def push_ping(self) -> Request[Pong]:
        """Owe a pong."""
        return self._push(Ping(), self._pings)

    def _push(
        self, message: VocabularyUpdate | SessionReset | Ping, waiting: deque[Request[Reply]]
    ) -> Request[Reply]:
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        request = Request(message, self._next_seq, self._requests, reply)
        self._requests += 1
        waiting.append(request)
        return request

    # ---- coming in ---------------------------------------------------------------------------

    def waited_ms(self, message: ServerMessage) -> float | None:
        """Return the time from sending a frame to its prediction; None of any other message."""
        frame = self.frames.get(message.seq) if isinstance(message, Prediction) else None
        return None if frame is None else (time.monotonic() - frame.sent_s) * 1000

    def take(self, message: ServerMessage) -> bool:
        """Take in a message; False where it repeats one that was taken before a break."""
        match message:
            case Prediction() | FrameDropped():
                return self._take_answer(message.seq, message)
            case Error(seq=int(seq)):
                return self._take_answer(seq, message)
            case VocabularyUpdated():
                return self._take_update(message)
            case Event() | Error() | SessionWasReset() | Pong():
                if self._repeats[message] > 0:
                    self._repeats[message] -= 1
                    return False
                self._told[message] += 1
                self._take_other(message)
        return True

    def _take_answer(self, seq: int, answer: Prediction | FrameDropped | Error) -> bool:
        if self.frames.pop(seq, None) is not None:
            self._answered = seq if self._answered is None else max(seq, self._answered)
            self.counts.count_answer(answer)
            if seq <= (self._last_seq() or 0):
                self._told.clear()
                self._repeats.clear()
            return True
        if self.created.resumed and seq < (self.created.next_seq or 0):
            return False
        self.counts.unexpected += 1
        return True

    def _take_other(self, message: Event | Error | SessionWasReset | Pong) -> None:
        match message:
            case SessionWasReset():
                _resolve(self._resets, message)
            case Pong():
                _resolve(self._pings, message)
            case Error(fatal=False) if self._updates:  # a complaint about no frame
                reply = self._updates.popleft().reply
                if not reply.done():
                    reply.set_exception(RefusedError(message.code, message.message))

    def _take_update(self, updated: VocabularyUpdated) -> bool:
        if updated.vocabulary_version <= self._version:
            return False
        self._version = updated.vocabulary_version
        # After a break the same words may be taken twice: the second time nobody waits for them.
        if self._updates and _labels(self._updates[0]) == updated.labels:
            update = self._updates[0].message
            assert isinstance(update, VocabularyUpdate)
            self._create = self._create.model_copy(update={"vocabulary": update.vocabulary})
            _resolve(self._updates, updated)
        return True

    # ---- over a break ------------------------------------------------------------------------

    def create_again(self) -> SessionCreate:
        """Return the first message of the next connection: resume, or begin with today's words."""
        resume = Resume(token=self.created.resume_token, last_seq=self._last_seq())
        return self._create.model_copy(update={"resume": resume})

    def _last_seq(self) -> int | None:
        """Return the largest seq up to which every frame of the server's session is answered."""
        if self._answered is None:
            return None
        last = min(self._answered, min(self.frames, default=self._next_seq) - 1)
        return last if last >= self._first_seq else None

    def go_on(self, created: SessionCreated) -> Again:
        """Take in the session.created of a new connection; returns what goes out again."""
        self.created = created
        next_seq = (created.next_seq or 0) if created.resumed else 0
        unreached = tuple(seq for seq in self.frames if seq >= next_seq)
        if not created.resumed:
            self._answered = None
            self._version = created.vocabulary_version
            self._told.clear()
        self._repeats = self._told.copy()
        sent_again = unreached if created.policy == "lossless" else ()
        lost = () if sent_again else unreached
        self.counts.count_reconnect(
            resumed=created.resumed, unreached=len(unreached), sent_again=len(sent_again)
        )
        messages = self._in_order(sent_again, next_seq)
        self._lose(lost)
        if not created.resumed:
            self._first_seq = min(self.frames, default=self._next_seq)
        return Again(messages, sent_again, lost)

    def _in_order(self, sent_again: tuple[int, ...], next_seq: int) -> list[str | bytes]:
        """Return frames and requests to send again, each request before the frame it came before.

        The server has got a request if it has got a frame that was sent after it; a reset or new
        words that it may have got are safe to repeat.
        """
        repeated = [
            *_unreached(self._updates, next_seq),
            *_unreached(self._resets, next_seq),
            *_unreached(self._pings, 0),  # pongs are not replayed
        ]
        places: list[tuple[tuple[int, int], str | bytes]] = [
            ((before_seq, number - self._requests), text) for before_seq, number, text in repeated
        ]
        for seq in sent_again:
            data = self.frames[seq].data
            assert data is not None, "a lossless stream keeps what has no answer"
            places.append(((seq, 0), data))
        return [message for _, message in sorted(places, key=lambda item: item[0])]

    def give_up(self, failure: ClientError) -> tuple[int, ...]:
        """Owe nothing any more: the stream has ended. Returns the frames lost."""
        for waiting in (self._updates, self._resets, self._pings):
            for request in waiting:
                if not request.reply.done():
                    request.reply.set_exception(failure)
        lost = tuple(self.frames)
        self._lose(lost)
        return lost

    def _lose(self, seqs: tuple[int, ...]) -> None:
        for seq in seqs:
            del self.frames[seq]
        self.counts.lost += len(seqs)


def _labels(request: Request[VocabularyUpdated]) -> list[str]:
    assert isinstance(request.message, VocabularyUpdate)
    return request.message.vocabulary.labels


def _resolve(waiting: deque[Request[Reply]], message: Reply) -> None:
    if waiting:
        reply = waiting.popleft().reply
        if not reply.done():
            reply.set_result(message)


def _unreached(waiting: deque[Request[Reply]], next_seq: int) -> list[tuple[int, int, str]]:
    """Return (before_seq, number, text) of requests the server may lack; forget those given up."""
    for request in [one for one in waiting if one.before_seq >= next_seq and one.reply.done()]:
        waiting.remove(request)
    return [
        (request.before_seq, request.number, request.message.to_json())
        for request in waiting
        if request.before_seq >= next_seq
    ]
