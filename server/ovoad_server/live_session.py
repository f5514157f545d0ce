"""A client's session over however many connections: it outlives one that breaks.

Knows the engine's session and the wire schema; sockets only as a carrier that can be woken.
"""

import asyncio
import logging
from typing import Final, Protocol

from ovoad_client import protocol
from ovoad_server.ends import (
    REVOKED_GRACE_S,
    End,
    fault,
    frame_too_large,
    key_revoked,
    too_many_bad,
)
from ovoad_server.engine.events import ActionEvent, EventRule
from ovoad_server.engine.interface import Vocabulary
from ovoad_server.engine.replies import Dropped, Failed, Reply, Scored
from ovoad_server.engine.session import Session, Words
from ovoad_server.hub import Hub
from ovoad_server.keys.audit import AuditEntry
from ovoad_server.keys.checking import ANYONE, KEY_REVOKED, Caller
from ovoad_server.outbox import Outbox
from ovoad_server.refusals import RefusedError
from ovoad_server.wire import closed, to_json

log = logging.getLogger(__name__)

BAD_FRAMES_IN_A_ROW: Final = 8


class Carrier(Protocol):
    """A connection, as its session sees it."""

    def wake(self) -> None:
        """Look at the session again, also while nothing comes in."""

    def supersede(self) -> None:
        """Stop: another connection has taken the session over."""


class LiveSession:
    """Takes a client's messages, whatever connection brings them, and makes the answers.

    It holds a slot of the hub from `open` to `close`. A broken connection parks it for `resume_s`;
    frames under way are scored meanwhile. Each resume token is good once.
    """

    def __init__(
        self,
        hub: Hub,
        create: protocol.SessionCreate,
        words: Words,
        caller: Caller = ANYONE,
    ) -> None:
        assert words.vocabulary is not None, "a session starts with embedded words"
        events = create.events or protocol.EventSettings()
        self.end: End | None = None
        self.gives_way = False
        self.caller = caller
        self.outbox = Outbox()
        self.token = hub.new_id()
        self.expires_s = hub.now_s() + hub.settings.max_session_s
        self._hub = hub
        self._limits = hub.limits_of(caller.key)
        self._top_k = create.top_k
        self._scorer = hub.choose_scorer(create.scorer)
        self._vocabulary: Vocabulary = words.vocabulary  # the newest that is embedded
        self._version = words.version
        self._carrier: Carrier | None = None
        self._parked_until_s = 0.0
        self._expiry: asyncio.TimerHandle | None = None
        self._update: asyncio.Task[None] | None = None
        self._revoking: asyncio.TimerHandle | None = None
        self._closed = False
        self._session = Session(
            hub.new_id(),
            policy=create.policy,
            window=hub.engine.open_window(),
            words=words,
            rule=EventRule(events.enter, events.exit, events.min_duration_ms),
            max_inflight=self._limits.max_inflight,
            max_fps=self._limits.max_fps,
            reply=self._take_reply,
            space_lossless=caller.key is not None and caller.key.fps is not None,
        )
        self._audit = AuditEntry(
            "stream", self._session.session_id, hub.model(self._scorer), create.policy
        )
        hub.engine.add(self._session)
        hub.sessions[self.token] = self
        hub.metrics.sessions.inc()
        self._tell_labels()

    @classmethod
    async def open(
        cls, hub: Hub, create: protocol.SessionCreate, caller: Caller = ANYONE
    ) -> "LiveSession":
        """Embed the words and make the session; slots taken for it become its own."""
        hub.check_vocabulary(create.vocabulary, key=caller.key)
        scorer = hub.choose_scorer(create.scorer)
        vocabulary = await hub.embed(create.vocabulary, scorer)
        hub.key_check.check(caller)  # it may have been revoked meanwhile
        return cls(hub, create, Words(1, vocabulary), caller)

    def created(self, *, resumed: bool) -> protocol.SessionCreated:
        """Return the first message to a connection."""
        session = self._session
        return protocol.SessionCreated(
            session_id=session.session_id,
            model=self._hub.model(self._scorer),
            labels=list(self._vocabulary.labels),
            vocabulary_version=self._version,
            policy=session.policy,
            limits=self._limits,
            window=self._hub.window,
            resume_token=self.token,
            resumed=resumed,
            next_seq=min(session.next_seq, protocol.MAX_SEQ) if resumed else None,
            warnings=list(self._vocabulary.warnings),
        )

    # ---- connections come and go ----------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether a connection carries it."""
        return self._carrier is not None

    def attach(self, carrier: Carrier) -> None:
        """Let a connection carry the session."""
        self._carrier = carrier
        self.gives_way = False
        if self._expiry is not None:
            self._expiry.cancel()

    def resume(self, last_seq: int | None) -> bool:
        """Prepare to go on over another connection, which has all answers up to `last_seq`.

        The one that still seems to be there is told that it is superseded. False where the session
        is over, the time is up, or what the client missed is kept no more.
        """
        hub = self._hub
        if self.end is not None or (not self.connected and hub.now_s() >= self._parked_until_s):
            return False
        if self._carrier is not None:
            self._carrier.supersede()
            self._carrier = None
        if not self.outbox.rewind(last_seq):
            self.close("not resumable")
            return False
        del hub.sessions[self.token]
        self.token = hub.new_id()
        hub.sessions[self.token] = self
        hub.metrics.resumed.inc()
        return True

    def detach(self, carrier: Carrier, *, said_goodbye: bool) -> None:
        """A connection is gone: park the session, unless it has ended or another carries it.

        One whose client closed the connection without a session.close gives way to newcomers.
        """
        if self._carrier is not carrier:
            return
        self._carrier = None
        self.gives_way = said_goodbye
        resume_s = self._hub.settings.resume_s
        if self.end is not None or resume_s <= 0 or self._hub.draining:
            self.close("lost" if self.end is None else self.end.reason)
            return
        self._parked_until_s = self._hub.now_s() + resume_s
        loop = asyncio.get_running_loop()
        self._expiry = loop.call_later(resume_s, self.close, "lost")

    def close(self, reason: str) -> None:
        """Free everything that the session holds, whichever way it ended; once."""
        if self._closed:
            return
        self._session.finish_events()  # a lost session ends its actions too
        self._closed = True
        self.end = self.end or End(reason)
        if self._expiry is not None:
            self._expiry.cancel()
        if self._update is not None:
            self._update.cancel()
        if self._revoking is not None:
            self._revoking.cancel()
        hub = self._hub
        hub.engine.remove(self._session)
        del hub.sessions[self.token]
        hub.slots.give()
        hub.key_slots.give(self.caller.key)
        hub.metrics.ended.labels(reason).inc()
        self._audit.write(self.caller, self._session.counts, reason)

    # ---- what the client says -------------------------------------------------------------------

    def has_room(self) -> bool:
        """Tell whether another message may be read; while not, TCP slows the sender."""
        return self._session.has_room() and not self.outbox.full

    def take_binary(self, data: bytes) -> None:
        """Take one binary message: a frame."""
        limit = self._hub.settings.max_frame_bytes
        if len(data) > limit + protocol.FRAME_HEADER.size:
            self._refuse_large_frame(len(data) - protocol.FRAME_HEADER.size)
            return
        try:
            frame = protocol.unpack_frame(data)
        except protocol.ProtocolError as error:
            self._refuse_frame(error, seq=None)
            return
        self._submit(frame.seq, frame.timestamp_ms, frame.image)

    async def take_text(self, text: str) -> None:
        """Take one text message."""
        try:
            message = protocol.parse_client_message(text)
        except protocol.ProtocolError as error:
            self._complain(error.code, str(error))
            return
        match message:
            case protocol.FrameMessage():
                self._take_frame_message(message)
            case protocol.VocabularyUpdate():
                await self._take_update(message)
            case protocol.SessionReset():
                self._session.reset()
                self._say(protocol.SessionWasReset())
            case protocol.SessionClose():
                self.stop(End("closed by client"))
            case protocol.Ping():
                self._say(protocol.Pong(nonce=message.nonce))
            case protocol.SessionCreate():
                self._complain("out_of_turn", "found a second session.create, expected frames")

    def _take_frame_message(self, message: protocol.FrameMessage) -> None:
        try:
            image = message.image()
        except protocol.ProtocolError as error:
            self._refuse_frame(error, seq=message.seq)
            return
        if len(image) > self._hub.settings.max_frame_bytes:
            self._refuse_large_frame(len(image))
            return
        self._submit(message.seq, message.timestamp_ms, image)

    def _submit(self, seq: int, timestamp_ms: int, image: bytes) -> None:
        self._hub.metrics.received.inc()
        self._hub.engine.submit(self._session, seq, timestamp_ms, image)

    def _refuse_frame(self, error: protocol.ProtocolError, *, seq: int | None) -> None:
        self._hub.metrics.received.inc()
        self._session.counts.received += 1
        self._session.answer(Failed(seq, error.code, str(error)))

    def _refuse_large_frame(self, size: int) -> None:
        self.stop(frame_too_large(size, self._limits.max_frame_bytes))

    def _complain(self, code: protocol.ErrorCode, message: str) -> None:
        """Answer a bad message that is no frame; the session goes on."""
        self._say(protocol.Error(code=code, message=message, fatal=False, transient=False))
        self._session.bad_in_a_row += 1
        self._stop_after_many_bad()

    # ---- words ----------------------------------------------------------------------------------

    async def _take_update(self, message: protocol.VocabularyUpdate) -> None:
        """Set a barrier: frames from now on wait for the new words."""
        if self._update is not None:
            await asyncio.wait([self._update])  # one at a time bounds what a client can queue
        try:
            self._hub.check_vocabulary(message.vocabulary, key=self.caller.key)
        except RefusedError as refusal:
            self._complain(refusal.code, str(refusal))
            return
        words = Words(self._session.words.version + 1, None)
        from_seq = min(self._session.next_seq, protocol.MAX_SEQ)
        self._session.change_words(words)
        self._update = asyncio.create_task(self._finish_update(words, message, from_seq))

    async def _finish_update(
        self, words: Words, message: protocol.VocabularyUpdate, from_seq: int
    ) -> None:
        try:
            embedded = await self._hub.embed(message.vocabulary, self._scorer)
        except Exception:  # the frames behind the barrier can have no words: end this session alone
            log.exception("new words could not be embedded")
            self.stop(fault())
            return
        words.vocabulary = self._vocabulary = embedded
        self._version = words.version
        self._tell_labels()
        self._say(
            protocol.VocabularyUpdated(
                vocabulary_version=words.version,
                labels=list(embedded.labels),
                from_seq=from_seq,
                warnings=list(embedded.warnings),
            )
        )
        self._hub.engine.notify(self._session)

    # ---- what the client hears ------------------------------------------------------------------

    def _say(self, message: protocol.Message) -> None:
        self.outbox.put(message.to_json())

    def _take_reply(self, reply: Reply) -> None:
        self._hub.metrics.observe_reply(reply)
        if self._hub.watcher is not None and isinstance(reply, ActionEvent) and not self._closed:
            self._hub.watcher.take_event(self._session.session_id, reply)
        seq = reply.seq if isinstance(reply, Scored | Dropped | Failed) else None
        self.outbox.put(to_json(reply, top_k=self._top_k), seq=seq)
        if isinstance(reply, Failed):
            self._stop_after_many_bad()

    def _tell_labels(self) -> None:
        if self._hub.watcher is not None:
            self._hub.watcher.take_labels(self._vocabulary.labels)

    def _stop_after_many_bad(self) -> None:
        if self._session.bad_in_a_row >= BAD_FRAMES_IN_A_ROW:
            self.stop(too_many_bad(BAD_FRAMES_IN_A_ROW))

    def say_goodbye(self, time_left_ms: int) -> None:
        """Tell the client that the server will close, unless it has heard the last word."""
        if self.end is None:
            self._say(protocol.GoAway(reason="restart", time_left_ms=time_left_ms))

    def finish(self) -> None:
        """End in order, because the server does."""
        self.stop(End("restart", protocol.CLOSE_RESTART))

    def revoke(self) -> None:
        """Tell the client that its key is not valid any more, and end soon; at once if parked."""
        if self._carrier is None:
            self.close(KEY_REVOKED)
        elif self._revoking is None and self.end is None:
            left_ms = int(REVOKED_GRACE_S * 1000)
            self._say(protocol.GoAway(reason=KEY_REVOKED, time_left_ms=left_ms))
            loop = asyncio.get_running_loop()
            self._revoking = loop.call_later(REVOKED_GRACE_S, self.stop, key_revoked())

    # ---- the end --------------------------------------------------------------------------------

    def stop(self, end: End) -> None:
        """Let the session end; the first reason holds."""
        self.end = self.end or end
        if self._carrier is not None:
            self._carrier.wake()
        else:
            self.close(self.end.reason)

    async def settle(self, end: End) -> None:
        """Answer what is under way and say the last word."""
        session = self._session
        if end.refusal is not None:
            if self._update is not None:
                self._update.cancel()  # the refusal is the last word
            session.drop_waiting("stale")
            if end.settle_s > 0:
                await self._all_answered(timeout_s=end.settle_s)
                session.give_up()
            self._say(end.refusal.to_message())
            return
        settle_s = self._hub.settle_s
        if not await self._all_answered(timeout_s=settle_s):
            log.warning("%d frames left unscored at the end of a session", session.backlog)
            session.drop_waiting("stale")
            await self._all_answered(timeout_s=settle_s / 4)  # those in the batch under way
            session.give_up()
        session.finish_events()
        self._say(closed(end.reason, session.counts))

    async def _all_answered(self, *, timeout_s: float) -> bool:
        """Wait until no frame is unanswered and no new words are under way."""
        try:
            async with asyncio.timeout(timeout_s):
                if self._update is not None:
                    await asyncio.wait([self._update])
                while self._session.counts.unanswered:
                    self.outbox.changed.clear()
                    await self.outbox.changed.wait()
        except TimeoutError:
            return False
        return True
