"""One WebSocket connection of wire contract v1: handshake, reader, writer, close.

Knows sessions as what it carries; what a message means is theirs.
"""

import asyncio
import logging

from starlette.websockets import WebSocket, WebSocketDisconnect

from ovoad_client import protocol
from ovoad_server.auth import origin_allowed
from ovoad_server.ends import End
from ovoad_server.hub import Hub
from ovoad_server.keys.checking import Caller
from ovoad_server.live_session import LiveSession
from ovoad_server.refusals import RefusedError
from ovoad_server.resuming import resume_session

log = logging.getLogger(__name__)

LAST_WORD_TIMEOUT_S = 30.0
CLOSE_GOING_AWAY = 1001  # what a browser says that leaves the page
CLOSE_ABNORMAL = 1006  # no close frame was seen


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
        await _refuse(websocket, refusal)
    except WebSocketDisconnect:
        log.info("client left before its session began")
    except Exception:  # a fault of ours ends this connection alone
        log.exception("a connection failed")
        hub.metrics.faults.labels("stream").inc()
        message = "the server failed; its log says why"
        await _refuse(
            websocket,
            RefusedError("internal", message, close_code=protocol.CLOSE_SERVER_FAULT),
        )


async def _converse(websocket: WebSocket, hub: Hub) -> None:
    caller = await hub.key_check.admit(
        websocket.headers,
        websocket.client,
        subprotocols=websocket.scope.get("subprotocols", []),
    )
    async with hub.before_drain():
        with hub.key_slots.opening(caller.key):
            live, resumed = await _open_or_resume(websocket, hub, caller)
    connection = Connection(websocket, hub, live)
    live.attach(connection)
    try:
        await connection.run(resumed=resumed)
    except* WebSocketDisconnect:
        log.info("a client left without a word")
    finally:
        live.detach(connection, said_goodbye=connection.said_goodbye)


async def _open_or_resume(
    websocket: WebSocket, hub: Hub, caller: Caller
) -> tuple[LiveSession, bool]:
    """Hear what the client wants: a new session, which gets the slot, or one that has its own."""
    has_slot = hub.slots.take(parked=hub.parked)
    live = None
    try:
        create = await _first_message(websocket, hub)
        hub.key_check.check(caller)
        resumed = resume_session(hub, create.resume, caller)
        if resumed is not None:
            return resumed, True
        if not has_slot:
            hub.take_slot_of_another()
            hub.slots.leave()
            has_slot = True
        live = await _open(hub, create, caller)
        return live, False
    finally:
        if not has_slot:
            hub.slots.leave()
        elif live is None:
            hub.slots.give_back()


async def _open(hub: Hub, create: protocol.SessionCreate, caller: Caller) -> LiveSession:
    """Open a session in a slot of its key."""
    hub.take_slot_of_key(caller.key)
    try:
        return await LiveSession.open(hub, create, caller)
    except BaseException:
        hub.key_slots.give(caller.key)
        raise


async def _first_message(websocket: WebSocket, hub: Hub) -> protocol.SessionCreate:
    timeout_s = hub.settings.create_timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            received = await websocket.receive()
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


async def _refuse(websocket: WebSocket, refusal: RefusedError) -> None:
    """Say why and close."""
    await _say_and_close(
        websocket, refusal.to_message().to_json(), refusal.close_code, refusal.code
    )


async def _say_and_close(websocket: WebSocket, text: str | None, code: int, why: str) -> None:
    try:
        async with asyncio.timeout(LAST_WORD_TIMEOUT_S):
            if text is not None:
                await websocket.send_text(text)
            await websocket.close(code, why)
    except (WebSocketDisconnect, RuntimeError, TimeoutError):
        log.info("a client left before it was told why: %s", why)


class Connection:
    """Carries one session's messages both ways until the session or the connection ends."""

    def __init__(self, websocket: WebSocket, hub: Hub, live: LiveSession) -> None:
        self._websocket = websocket
        self._hub = hub
        self._live = live
        self.said_goodbye = False  # the client closed the connection, it did not break
        self._superseded = False
        self._deadline: asyncio.Timeout | None = None  # of the read under way
        self._writing: asyncio.Task[None] | None = None

    async def run(self, *, resumed: bool) -> None:
        """Announce the session, carry its messages, see it off."""
        await self._send(self._live.created(resumed=resumed).to_json())
        async with asyncio.TaskGroup() as tasks:
            self._writing = tasks.create_task(self._write())
            end = await self._read_until_end()
            if end is not None:
                await self._live.settle(end)
                while not self._live.outbox.settled:
                    await self._something_new()
            self._writing.cancel()
        if end is None:
            await _refuse(self._websocket, _superseded())
        else:
            await _say_and_close(self._websocket, None, end.close_code, end.reason)

    def wake(self) -> None:
        """Look at the session again, also while nothing comes in."""
        self._live.outbox.changed.set()
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time())

    def supersede(self) -> None:
        """Stop: another connection has taken the session over.

        The writer ends before it can take what is put back in line for the other connection.
        """
        self._superseded = True
        if self._writing is not None:
            self._writing.cancel()
        self.wake()

    async def _read_until_end(self) -> End | None:
        """Hand messages to the session until it ends; None once another connection has it."""
        live, settings = self._live, self._hub.settings
        while not self._superseded and live.end is None:
            if not live.has_room():
                await self._something_new()
                continue
            left_s = live.expires_s - self._hub.now_s()
            try:
                async with asyncio.timeout(
                    max(0.0, min(settings.idle_timeout_s, left_s))
                ) as self._deadline:
                    received = await self._websocket.receive()
            except TimeoutError:
                if not self._superseded and live.end is None:
                    live.stop(End("idle" if settings.idle_timeout_s < left_s else "expired"))
                continue
            finally:
                self._deadline = None
            if received["type"] == "websocket.disconnect":
                code = received.get("code", 1006)
                self.said_goodbye = code in (protocol.CLOSE_NORMAL, CLOSE_GOING_AWAY)
                raise WebSocketDisconnect(code)
            if (data := received.get("bytes")) is not None:
                live.take_binary(data)
            else:
                await live.take_text(received["text"])
        return None if self._superseded else live.end

    async def _something_new(self) -> None:
        """Wait until a message was made or sent, or the session wants to be looked at."""
        self._live.outbox.changed.clear()
        await self._live.outbox.changed.wait()

    async def _write(self) -> None:
        """Send what is in the outbox."""
        while True:
            await self._send(await self._live.outbox.get())
            self._live.outbox.sent()

    async def _send(self, text: str) -> None:
        """Send a message; a client that takes nothing for too long is cut off."""
        try:
            async with asyncio.timeout(self._hub.settings.send_timeout_s):
                await self._websocket.send_text(text)
        except TimeoutError:
            raise WebSocketDisconnect(protocol.CLOSE_PROTOCOL, "reader too slow") from None
        except RuntimeError:  # uvicorn has closed a connection that broke WebSocket's own rules
            raise WebSocketDisconnect(CLOSE_ABNORMAL) from None


def _superseded() -> RefusedError:
    message = "another connection has resumed this session, expected one client for one token"
    return RefusedError("superseded", message)
