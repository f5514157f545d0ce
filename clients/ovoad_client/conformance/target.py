"""The server under test: connections as raw as a check needs them, and HTTP. Knows no check."""

import asyncio
import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State
from websockets.typing import Origin, Subprotocol

from ovoad_client import protocol
from ovoad_client.address import STREAM_PATH, is_loopback
from ovoad_client.conformance.findings import MismatchError, NotCheckedError, equal, expect
from ovoad_client.conformance.pictures import JPEG

LABELS: Final = ("riding a bicycle", "a person cooking")
QUIET: Final = {"enter": 0.9999, "exit": 0.1, "min_duration_ms": 60_000}  # no event comes between
FRAME_MS: Final = 250
_MAX_MESSAGE_BYTES: Final = 16 * 2**20
_CAPACITY_TRIES: Final = 3
_LEAVE_S: Final = 2.0
M = TypeVar("M", bound=protocol.Message)


class FullError(Exception):
    """The server has no room now."""

    def __init__(self, retry_after_ms: int | None) -> None:
        super().__init__("the server has no room")
        self.retry_after_s = (retry_after_ms or 1000) / 1000


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON; raises MismatchError for anything else."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise MismatchError(f"a body of {self.body[:60]!r}", "JSON") from None


@dataclass(frozen=True)
class Target:
    """Where the server is, what opens it, and how long to wait for it."""

    address: str  # ws://host:port/v1/stream
    api_key: str | None = None
    timeout_s: float = 20.0
    slow: bool = False

    @contextlib.asynccontextmanager
    async def connect(
        self,
        *,
        subprotocols: Sequence[str] = (protocol.SUBPROTOCOL,),
        api_key: str | None = None,
        with_key: bool = True,
        origin: str | None = None,
    ) -> "AsyncIterator[Wire]":
        """Open a connection without a session; `api_key` takes the place of the right one."""
        key = (api_key or self.api_key) if with_key else None
        async with websocket_connect(
            self.address,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            additional_headers={"Authorization": f"Bearer {key}"} if key else None,
            origin=Origin(origin) if origin else None,
            compression=None,
            proxy=None if is_loopback(self.address) else True,
            open_timeout=self.timeout_s,
            close_timeout=1.0,
            ping_interval=None,
            max_size=_MAX_MESSAGE_BYTES,
            max_queue=None,
        ) as socket:
            wire = Wire(socket)
            yield wire
            await wire.leave()

    @contextlib.asynccontextmanager
    async def session(self, **fields: object) -> "AsyncIterator[Wire]":
        """Open a session, lossless and without events unless told otherwise.

        Comes back where the server is full; raises NotCheckedError where it stays so.
        """
        for _ in range(_CAPACITY_TRIES):
            async with self.connect() as wire:
                try:
                    await wire.create(**fields)
                except FullError as full:
                    wait_s = full.retry_after_s
                else:
                    yield wire
                    return
            await asyncio.sleep(wait_s)
        raise NotCheckedError("the server is full; try when it has room")

    async def fetch(
        self,
        path: str,
        *,
        method: str = "GET",
        with_key: bool = True,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> Answer:
        """Ask over HTTP; every status is an answer."""
        headers = {"Content-Type": content_type} if body is not None else {}
        if self.api_key and with_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        request = urllib.request.Request(
            self._http() + path, data=body, headers=headers, method=method
        )
        return await asyncio.to_thread(self._fetch, request)

    def _fetch(self, request: urllib.request.Request) -> Answer:
        proxies = urllib.request.ProxyHandler({} if is_loopback(self.address) else None)
        opener = urllib.request.build_opener(proxies)
        try:
            answer = opener.open(request, timeout=self.timeout_s)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status, headers, answer.read())

    def _http(self) -> str:
        parts = urlsplit(self.address)
        scheme = "https" if parts.scheme == "wss" else "http"
        return f"{scheme}://{parts.netloc}{parts.path.removesuffix(STREAM_PATH)}"


class Wire:
    """One connection; every message of the server must fit the schema."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._created: protocol.SessionCreated | None = None

    @property
    def created(self) -> protocol.SessionCreated:
        """What the server granted."""
        assert self._created is not None, "no session was opened"
        return self._created

    async def say(self, message: protocol.Message | Mapping[str, object] | str | bytes) -> None:
        """Send a message as it is, a mapping as JSON.

        On a connection that the server has closed it is lost: what it said before is heard next.
        """
        if isinstance(message, protocol.Message):
            message = message.to_json()
        elif isinstance(message, Mapping):
            message = json.dumps(message)
        with contextlib.suppress(ConnectionClosed):
            await self.socket.send(message)

    async def frame(
        self, seq: int, image: bytes = JPEG, *, timestamp_ms: int | None = None
    ) -> None:
        """Send a binary frame, 250 ms after the one before unless told otherwise."""
        timestamp_ms = seq * FRAME_MS if timestamp_ms is None else timestamp_ms
        await self.say(protocol.pack_frame(seq, timestamp_ms, image))

    async def hear(self) -> protocol.ServerMessage:
        """Return the next message; raises ProtocolError for one off the schema."""
        data = await self.socket.recv()
        expect(isinstance(data, str), "a binary message", "text")
        message = protocol.parse_server_message(data)
        if isinstance(message, protocol.SessionCreated):
            self._created = message
        return message

    async def hear_a(self, kind: type[M]) -> M:
        """Return the next message, which is of this kind."""
        message = await self.hear()
        if not isinstance(message, kind):
            raise MismatchError(shown(message), name_of(kind))
        return message

    async def predicted(self, seq: int) -> protocol.Prediction:
        """Return the next message, the prediction of a frame."""
        prediction = await self.hear_a(protocol.Prediction)
        equal(prediction.seq, seq, "a prediction of seq")
        return prediction

    async def create(self, **fields: object) -> protocol.SessionCreated:
        """Ask for a session; raises FullError where there is no room."""
        await self.say(creation(**fields))
        message = await self.hear()
        if isinstance(message, protocol.Error) and message.code in ("capacity", "restarting"):
            raise FullError(message.retry_after_ms)
        if not isinstance(message, protocol.SessionCreated):
            raise MismatchError(shown(message), "session.created")
        return message

    async def refused(self, code: str, *, seq: int | None = None) -> protocol.Error:
        """Expect an error that lets the session go on."""
        error = await self.hear_a(protocol.Error)
        equal((error.code, error.seq), (code, seq), "an error with code and seq")
        expect(not error.fatal, "a fatal error", "one that lets the session go on")
        expect(bool(error.message), "an empty message", "what was found and what was expected")
        return error

    async def cut_off(self, code: str, close_code: int) -> None:
        """Expect a fatal error, then the close."""
        error = await self.hear_a(protocol.Error)
        if error.code == "capacity" != code:
            raise NotCheckedError("the server is full; try when it has room")
        equal(error.code, code, "error")
        expect(error.fatal, "an error that is not fatal", "a fatal one")
        await self.ended(close_code)

    async def ended(self, close_code: int) -> None:
        """Expect the end of the connection, and no message before."""
        try:
            message = await self.hear()
        except ConnectionClosed as closed:
            found = closed.rcvd.code if closed.rcvd else None
            equal(found, close_code, "close code")
            return
        raise MismatchError(shown(message), f"close code {close_code}")

    async def finish(self) -> protocol.SessionClosed:
        """Close the session in order; events may come before the last word."""
        await self.say(protocol.SessionClose())
        while isinstance(message := await self.hear(), protocol.Event):
            pass
        if not isinstance(message, protocol.SessionClosed):
            raise MismatchError(shown(message), "session.closed")
        await self.ended(protocol.CLOSE_NORMAL)
        return message

    async def leave(self) -> None:
        """Give the session's slot back, unless the connection has ended."""
        if self._created is None or self.socket.state is not State.OPEN:
            return
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                await self.say(protocol.SessionClose())
                while True:
                    await self.socket.recv()

    def break_off(self) -> None:
        """Cut the connection without a word."""
        self.socket.transport.abort()


def creation(**fields: object) -> dict[str, object]:
    """Return a session.create, valid but for the fields given."""
    return {
        "type": "session.create",
        "vocabulary": {"labels": list(LABELS)},
        "policy": "lossless",
        "events": QUIET,
        **fields,
    }


def shown(message: protocol.ServerMessage) -> str:
    """Return a message as a report shows it."""
    if isinstance(message, protocol.Error):
        return f"error {message.code} ({message.message})"
    return message.to_json()[:120]


def name_of(kind: type[protocol.Message]) -> str:
    """Return the wire's name of a message."""
    return str(kind.model_fields["type"].default)
