"""One WebSocket connection of wire contract v1: handshake, reader, writer, orderly end.

Knows the engine's session and the wire schema; scores nothing itself.
"""

import asyncio
import logging
import time
from dataclasses import dataclass

from starlette.websockets import WebSocket, WebSocketDisconnect

from ovoad_client import protocol
from ovoad_server.auth import key_matches, origin_allowed
from ovoad_server.engine.events import EventRule
from ovoad_server.engine.replies import Failed, Reply
from ovoad_server.engine.session import Session, Words
from ovoad_server.hub import Hub, RefusedError
from ovoad_server.wire import closed, to_message

log = logging.getLogger(__name__)

BAD_FRAMES_IN_A_ROW = 8
OUTBOX_MESSAGES = 256  # beyond it nothing more is read, so TCP slows the sender
SETTLE_TIMEOUT_S = 30.0


async def serve_stream(websocket: WebSocket, hub: Hub) -> None:
    """Serve one connection from handshake to close."""
    settings = hub.settings
    if not origin_allowed(websocket.headers, settings.allowed_origins, bound=settings.host):
        hub.metrics.rejected.labels("origin").inc()
        await websocket.close(protocol.CLOSE_PROTOCOL, "origin refused")
        return
    offered = websocket.scope.get("subprotocols", [])
    await websocket.accept(protocol.SUBPROTOCOL if protocol.SUBPROTOCOL in offered else None)
    try:
        await _converse(websocket, hub)
    except RefusedError as refusal:
        hub.metrics.rejected.labels(refusal.code).inc()
        await _send_last(websocket, refusal.to_message(), refusal.close_code, refusal.code)
    except WebSocketDisconnect:
        log.info("client left before its session began")
    except Exception:  # a fault of ours ends this connection alone
        log.exception("a connection failed")
        message = "the server failed; its log says why"
        fault = RefusedError("internal", message, close_code=protocol.CLOSE_SERVER_FAULT)
        await _send_last(websocket, fault.to_message(), fault.close_code, fault.code)


async def _converse(websocket: WebSocket, hub: Hub) -> None:
    key = hub.settings.api_key
    if not key_matches(
        websocket.headers,
        key.get_secret_value() if key else None,
        subprotocols=websocket.scope.get("subprotocols", []),
    ):
        raise RefusedError(
            "unauthorised",
            "found no valid API key, expected the header Authorization: Bearer KEY",
            close_code=protocol.CLOSE_UNAUTHORISED,
        )
    hub.take_slot()
    try:
        create = await _first_message(websocket, hub)
        connection = await Connection.open(websocket, hub, create)
        await connection.run()
    finally:
        hub.give_slot()


async def _first_message(websocket: WebSocket, hub: Hub) -> protocol.SessionCreate:
    timeout_s = hub.settings.create_timeout_s
    try:
        received = await asyncio.wait_for(websocket.receive(), timeout_s)
    except TimeoutError:
        raise RefusedError(
            "create_timeout", f"found no message in {timeout_s:g} s, expected session.create"
        ) from None
    if received["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(received.get("code", 1006))
    text = received.get("text")
    if text is None:
        raise RefusedError("out_of_turn", "found a binary message first, expected session.create")
    try:
        message = protocol.parse_client_message(text)
    except protocol.ProtocolError as error:
        raise RefusedError(error.code, str(error)) from error
    if not isinstance(message, protocol.SessionCreate):
        raise RefusedError("out_of_turn", f"found {message.type} first, expected session.create")
    return message


async def _send_last(websocket: WebSocket, message: protocol.Error, code: int, why: str) -> None:
    try:
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            await websocket.send_text(message.to_json())
            await websocket.close(code, why)
    except (WebSocketDisconnect, RuntimeError, TimeoutError):
        log.info("client left before it was told why: %s", why)


@dataclass(frozen=True)
class _End:
    """How a session ends: in order with `session.closed`, or by a fatal error."""

    reason: str
    refusal: RefusedError | None = None


class Connection:
    """A session and the two tasks that carry its messages."""

    def __init__(self, websocket: WebSocket, hub: Hub, create: protocol.SessionCreate) -> None:
        self._websocket = websocket
        self._hub = hub
        self._top_k = create.top_k
        self._scorer = hub.choose_scorer(create.scorer)
        self._outbox: asyncio.Queue[protocol.Message | None] = asyncio.Queue()
        self._progress = asyncio.Event()  # an answer was made or a message was sent
        self._deadline: asyncio.Timeout | None = None  # of the read under way
        self._end: _End | None = None
        self._update: asyncio.Task[None] | None = None
        self._expires_s = time.monotonic() + hub.settings.max_session_s
        self._session: Session  # set by open()

    @classmethod
    async def open(
        cls, websocket: WebSocket, hub: Hub, create: protocol.SessionCreate
    ) -> "Connection":
        """Embed the words, make the session and announce it."""
        hub.check_vocabulary(create.vocabulary)
        connection = cls(websocket, hub, create)
        words = await connection._embed(create.vocabulary, version=1)
        assert words.vocabulary is not None
        events = create.events or protocol.EventSettings()
        connection._session = Session(
            hub.new_id(),
            policy=create.policy,
            window=hub.engine.open_window(),
            words=words,
            rule=EventRule(events.enter, events.exit, events.min_duration_ms),
            max_inflight=hub.settings.max_inflight,
            max_fps=hub.settings.max_fps,
            reply=connection._take_reply,
        )
        created = protocol.SessionCreated(
            session_id=connection._session.session_id,
            model=hub.model(connection._scorer),
            labels=list(words.vocabulary.labels),
            vocabulary_version=1,
            policy=create.policy,
            limits=hub.limits,
            window=hub.window,
            resume_token=hub.new_id(),
            resumed=False,
            warnings=list(words.vocabulary.warnings),
        )
        connection._outbox.put_nowait(created)
        return connection

    async def run(self) -> None:
        """Carry messages both ways until the session ends."""
        hub, session = self._hub, self._session
        hub.engine.add(session)
        hub.metrics.sessions.inc()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write())
                end = await self._read_until_end(tasks)
                await self._settle(end)
        except* WebSocketDisconnect:
            log.info("session %s: client left", session.session_id)
        finally:
            hub.engine.remove(session)

    # ---- reading --------------------------------------------------------------------------------

    async def _read_until_end(self, tasks: asyncio.TaskGroup) -> _End:
        while self._end is None:
            await self._wait_for_room()
            idle_s = self._hub.settings.idle_timeout_s
            left_s = self._expires_s - time.monotonic()
            try:
                async with asyncio.timeout(max(0.0, min(idle_s, left_s))) as self._deadline:
                    received = await self._websocket.receive()
            except TimeoutError:
                return self._end or _End("idle" if idle_s < left_s else "expired")
            finally:
                self._deadline = None
            if received["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(received.get("code", 1006))
            if (data := received.get("bytes")) is not None:
                self._take_binary(data)
            else:
                await self._take_text(received["text"], tasks)
        return self._end

    async def _wait_for_room(self) -> None:
        while self._end is None and (
            not self._session.has_room() or self._outbox.qsize() > OUTBOX_MESSAGES
        ):
            self._progress.clear()
            await self._progress.wait()

    def _take_binary(self, data: bytes) -> None:
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

    async def _take_text(self, text: str, tasks: asyncio.TaskGroup) -> None:
        try:
            message = protocol.parse_client_message(text)
        except protocol.ProtocolError as error:
            self._complain(error.code, str(error))
            return
        match message:
            case protocol.FrameMessage():
                self._take_frame_message(message)
            case protocol.VocabularyUpdate():
                await self._take_update(message, tasks)
            case protocol.SessionReset():
                self._session.reset()
                self._outbox.put_nowait(protocol.SessionWasReset())
            case protocol.SessionClose():
                self._end = _End("closed by client")
            case protocol.Ping():
                self._outbox.put_nowait(protocol.Pong(nonce=message.nonce))
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
        limit = self._hub.settings.max_frame_bytes
        self._stop(
            _End(
                "frame too large",
                RefusedError(
                    "frame_too_large",
                    f"frame has {size} bytes, expected at most {limit}",
                    close_code=protocol.CLOSE_TOO_LARGE,
                ),
            )
        )

    def _complain(self, code: protocol.ErrorCode, message: str) -> None:
        """Answer a bad message that is no frame; the session goes on."""
        self._outbox.put_nowait(
            protocol.Error(code=code, message=message, fatal=False, transient=False)
        )
        self._session.bad_in_a_row += 1
        self._stop_after_many_bad()

    # ---- words ----------------------------------------------------------------------------------

    async def _embed(self, vocabulary: protocol.Vocabulary, *, version: int) -> Words:
        embedded = await self._hub.engine.embed_vocabulary(
            vocabulary.labels,
            templates=vocabulary.templates,
            background=vocabulary.background,
            scorer=self._scorer,
        )
        return Words(version, embedded)

    async def _take_update(
        self, message: protocol.VocabularyUpdate, tasks: asyncio.TaskGroup
    ) -> None:
        """Set a barrier: frames from now on wait for the new words."""
        if self._update is not None:
            await asyncio.wait([self._update])  # one at a time bounds what a client can queue
        try:
            self._hub.check_vocabulary(message.vocabulary)
        except RefusedError as refusal:
            self._complain(refusal.code, str(refusal))
            return
        words = Words(self._session.words.version + 1, None)
        from_seq = min(self._session.next_seq, protocol.MAX_SEQ)
        self._session.change_words(words)
        self._update = tasks.create_task(self._finish_update(words, message.vocabulary, from_seq))

    async def _finish_update(
        self, words: Words, vocabulary: protocol.Vocabulary, from_seq: int
    ) -> None:
        embedded = (await self._embed(vocabulary, version=words.version)).vocabulary
        assert embedded is not None
        words.vocabulary = embedded
        self._outbox.put_nowait(
            protocol.VocabularyUpdated(
                vocabulary_version=words.version,
                labels=list(embedded.labels),
                from_seq=from_seq,
                warnings=list(embedded.warnings),
            )
        )
        self._hub.engine.notify(self._session)

    # ---- answering ------------------------------------------------------------------------------

    def _take_reply(self, reply: Reply) -> None:
        self._hub.metrics.observe_reply(reply)
        self._outbox.put_nowait(to_message(reply, top_k=self._top_k))
        self._progress.set()
        if isinstance(reply, Failed):
            self._stop_after_many_bad()

    def _stop_after_many_bad(self) -> None:
        if self._session.bad_in_a_row >= BAD_FRAMES_IN_A_ROW:
            message = f"found {BAD_FRAMES_IN_A_ROW} bad messages in a row, expected good frames"
            self._stop(_End("bad frames", RefusedError("too_many_bad_frames", message)))

    def _stop(self, end: _End) -> None:
        """End the session, also while the reader waits."""
        self._end = self._end or end
        self._progress.set()
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time())

    async def _settle(self, end: _End) -> None:
        """Answer what is under way, say the last word, close."""
        session = self._session
        if end.refusal is not None:
            self._hub.metrics.rejected.labels(end.refusal.code).inc()
            session.drop_waiting("stale")
            await self._finish_writing(end.refusal.to_message())
            await self._websocket.close(end.refusal.close_code, end.reason)
            return
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                if self._update is not None:
                    await asyncio.wait([self._update])
                while session.counts.unanswered:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:  # new words are still being embedded, say: end all the same
            log.warning("session %s: frames left unscored at its end", session.session_id)
            session.drop_waiting("stale")
            if self._update is not None:
                self._update.cancel()
        session.finish_events()
        await self._finish_writing(closed(end.reason, session.counts))
        await self._websocket.close(protocol.CLOSE_NORMAL, end.reason)

    async def _finish_writing(self, last: protocol.Message) -> None:
        self._outbox.put_nowait(last)
        self._outbox.put_nowait(None)
        await self._outbox.join()

    async def _write(self) -> None:
        """Send what is in the outbox; a client that takes nothing for too long is cut off."""
        while (message := await self._outbox.get()) is not None:
            try:
                async with asyncio.timeout(self._hub.settings.send_timeout_s):
                    await self._websocket.send_text(message.to_json())
            except TimeoutError:
                raise WebSocketDisconnect(protocol.CLOSE_PROTOCOL, "reader too slow") from None
            self._outbox.task_done()
            self._progress.set()
        self._outbox.task_done()
