"""A small server that keeps the contract but for the faults it is asked to have.

It sees no pictures: every label is as likely as the next. It keeps no broken sessions, holds no
rate and has few of the HTTP routes.
"""

import contextlib
import http
import json
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from ovoad_client import protocol

from .scripted import LIMITS

TINY_LIMITS = LIMITS.model_copy(
    update={"max_frame_bytes": 10_000, "max_pixels": 10_000, "max_fps": 1e6}
)
MODEL = protocol.ModelInfo(encoder="none", scorer="average", fingerprint="0")
WINDOW = protocol.WindowShape(fps=4.0, past=24, neighbours=8)
TIMING = protocol.Timing(queue=0.0, decode=0.0, encode=1.0, score=0.0, total=1.0)
CONFIG = protocol.ServerConfig(
    model=MODEL,
    scorers=["average"],
    languages=["en"],
    templates=["{}"],
    background=["nothing"],
    limits=TINY_LIMITS,
    window=WINDOW,
    events=protocol.EventSettings(),
)


@dataclass
class TinySession:
    """What the server knows of one connection."""

    create: protocol.SessionCreate
    labels: Sequence[str]
    version: int = 1
    last: tuple[int, int] | None = None
    cells: list[int] = field(default_factory=list)
    start_ms: int = 0
    received: int = 0
    predicted: int = 0
    errors: int = 0
    busy: int = 0
    bad: int = 0


class TinyServer:
    """Serves wire contract v1, with the faults named."""

    def __init__(self, *faults: str) -> None:
        self.faults = set(faults)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Listen on a free port of loopback; yields the stream's address."""
        async with serve(
            self._talk,
            "127.0.0.1",
            0,
            select_subprotocol=self._choose,
            process_request=self._answer_http,
            compression=None,
        ) as server:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/stream"

    def _choose(
        self, socket: ServerConnection, offered: Sequence[Subprotocol]
    ) -> Subprotocol | None:
        taken = protocol.SUBPROTOCOL in offered and "no subprotocol" not in self.faults
        return Subprotocol(protocol.SUBPROTOCOL) if taken else None

    def _answer_http(self, socket: ServerConnection, request: Request) -> Response | None:
        match request.path:
            case "/v1/stream" if "Upgrade" in request.headers:
                origin = request.headers.get("Origin")
                foreign = origin is not None and "any origin" not in self.faults
                return socket.respond(http.HTTPStatus.FORBIDDEN, "") if foreign else None
            case "/healthz":
                return socket.respond(http.HTTPStatus.OK, '{"status": "alive"}')
            case "/v1/config":
                return socket.respond(http.HTTPStatus.OK, CONFIG.to_json())
        error = {"code": "not_found", "message": "Not Found"}
        body = {"detail": "Not Found"} if "error shape" in self.faults else {"error": error}
        return socket.respond(http.HTTPStatus.NOT_FOUND, json.dumps(body))

    async def _talk(self, socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            if "full" in self.faults:
                await self._cut_off(socket, "capacity", protocol.CLOSE_CAPACITY)
            session = await self._open(socket)
            while session is not None and await self._take(socket, session, await socket.recv()):
                pass

    async def _open(self, socket: ServerConnection) -> TinySession | None:
        data = await socket.recv()
        try:
            message = protocol.parse_client_message(data) if isinstance(data, str) else None
            if not isinstance(message, protocol.SessionCreate):
                raise protocol.ProtocolError("found another message first", code="out_of_turn")
            if len(message.vocabulary.labels) > TINY_LIMITS.max_labels:
                raise protocol.ProtocolError("found too many labels", code="bad_vocabulary")
            if message.scorer not in (None, "average"):
                raise protocol.ProtocolError("found no such scorer", code="unknown_scorer")
        except protocol.ProtocolError as error:
            await self._cut_off(socket, error.code)
            return None
        session = TinySession(message, message.vocabulary.labels)
        created = protocol.SessionCreated(
            session_id="s",
            model=MODEL,
            labels=list(session.labels),
            vocabulary_version=1,
            policy=message.policy,
            limits=TINY_LIMITS,
            window=WINDOW,
            resume_token="t",
            resumed="false resume" in self.faults and message.resume is not None,
        )
        await socket.send(created.to_json())
        return session

    async def _take(
        self, socket: ServerConnection, session: TinySession, data: str | bytes
    ) -> bool:
        """Answer one message; False once the connection is closed."""
        seq = None
        try:
            if isinstance(data, bytes):
                frame = protocol.unpack_frame(data)
                return await self._take_frame(
                    socket, session, frame.seq, frame.timestamp_ms, frame.image
                )
            message = protocol.parse_client_message(data)
            if isinstance(message, protocol.FrameMessage):
                seq = message.seq
                return await self._take_frame(
                    socket, session, seq, message.timestamp_ms, message.image()
                )
            return await self._take_control(socket, session, message)
        except protocol.ProtocolError as error:
            counts = isinstance(data, bytes) or error.code == "bad_frame"
            return await self._complain(socket, session, error.code, seq, frame=counts)

    async def _take_frame(
        self,
        socket: ServerConnection,
        session: TinySession,
        seq: int,
        timestamp_ms: int,
        image: bytes,
    ) -> bool:
        if len(image) > TINY_LIMITS.max_frame_bytes:
            await self._cut_off(socket, "frame_too_large", protocol.CLOSE_TOO_LARGE)
            return False
        if session.last and (seq <= session.last[0] or timestamp_ms <= session.last[1]):
            return await self._complain(socket, session, "out_of_order", seq)
        session.last = (seq, timestamp_ms)
        fault = image_fault(image)
        if fault is not None:
            return await self._complain(socket, session, fault, seq)
        session.received += 1
        if "swallows" in self.faults and session.received % 5 == 0:
            return True
        if "drops all" in self.faults and session.create.policy == "realtime":
            session.busy += 1
            drop = protocol.FrameDropped(seq=seq, timestamp_ms=timestamp_ms, reason="busy")
            await socket.send(drop.to_json())
            return True
        session.predicted += 1
        session.bad = 0
        answer = self._predict(session, seq, timestamp_ms)
        for _ in range(2 if "twice" in self.faults and session.received % 5 == 0 else 1):
            await socket.send(answer)
        return True

    def _predict(self, session: TinySession, seq: int, timestamp_ms: int) -> str:
        if not session.cells:
            session.start_ms = timestamp_ms
        cell = (timestamp_ms - session.start_ms) // 250
        session.cells.append(cell)
        filled = sorted({old for old in session.cells if old > cell - 32})
        state = protocol.WindowState(
            frames=len(filled),
            span_ms=(cell - filled[0]) * 250,
            gaps=min(cell + 1, 32) - len(filled) + ("gaps" in self.faults),
            warming_up=cell + 1 < 32,
        )
        count = len(session.labels)
        share = 1 / (count + 1) + 0.1 * ("sum" in self.faults)
        fields = {
            "type": "prediction",
            "seq": seq,
            "timestamp_ms": timestamp_ms,
            "vocabulary_version": session.version,
            "background": 1 / (count + 1),
            "window": state.model_dump(),
            "timing_ms": TIMING.model_dump(),
            "backlog": 0,
        }
        if session.create.top_k:
            best = sorted(session.labels)[: session.create.top_k]
            fields["top"] = [
                {"label": label, "probability": share, "similarity": 0.1} for label in best
            ]
        else:
            fields |= {"probabilities": [share] * count, "similarities": [0.1] * count}
        if "schema" in self.faults:
            fields["surprise"] = 1
        return json.dumps(fields)

    async def _take_control(
        self, socket: ServerConnection, session: TinySession, message: object
    ) -> bool:
        match message:
            case protocol.Ping() if "silent" not in self.faults:
                nonce = None if "nonce" in self.faults else message.nonce
                await socket.send(protocol.Pong(nonce=nonce).to_json())
            case protocol.SessionReset():
                session.cells.clear()
                await socket.send(protocol.SessionWasReset().to_json())
            case protocol.VocabularyUpdate():
                session.version += "old version" not in self.faults
                session.labels = message.vocabulary.labels
                updated = protocol.VocabularyUpdated(
                    vocabulary_version=2,
                    labels=list(session.labels),
                    from_seq=session.last[0] + 1 if session.last else 0,
                )
                await socket.send(updated.to_json())
            case protocol.SessionCreate():
                return await self._complain(socket, session, "out_of_turn", None, frame=False)
            case protocol.SessionClose():
                await socket.send(self._closed(session).to_json())
                await socket.close(protocol.CLOSE_NORMAL)
                return False
        return True

    def _closed(self, session: TinySession) -> protocol.SessionClosed:
        return protocol.SessionClosed(
            reason="closed by client",
            received=session.received + ("counts" in self.faults),
            predicted=session.predicted,
            dropped=protocol.DroppedCounts(busy=session.busy),
            errors=session.errors,
        )

    async def _complain(
        self,
        socket: ServerConnection,
        session: TinySession,
        code: protocol.ErrorCode,
        seq: int | None,
        *,
        frame: bool = True,
    ) -> bool:
        session.received += frame
        session.errors += frame
        session.bad += 1
        fatal = "all fatal" in self.faults
        error = protocol.Error(code=code, message="found it", fatal=fatal, transient=False, seq=seq)
        await socket.send(error.to_json())
        if session.bad >= 8:
            await self._cut_off(socket, "too_many_bad_frames")
        return session.bad < 8

    async def _cut_off(
        self,
        socket: ServerConnection,
        code: protocol.ErrorCode,
        close_code: int = protocol.CLOSE_PROTOCOL,
    ) -> None:
        retry_after_ms = 1 if code == "capacity" else None
        error = protocol.Error(
            code=code,
            message="found it",
            fatal=True,
            transient=retry_after_ms is not None,
            retry_after_ms=retry_after_ms,
        )
        await socket.send(error.to_json())
        await socket.close(1000 if "close code" in self.faults else close_code)


def image_fault(image: bytes) -> protocol.ErrorCode | None:
    """Tell what is wrong with an image, as far as its first and last bytes say."""
    if image.startswith(b"\x89PNG"):
        width, height = struct.unpack_from(">II", image, 16)
        return "image_too_large" if width * height > TINY_LIMITS.max_pixels else None
    if image.startswith(b"RIFF") or (image.startswith(b"\xff\xd8") and image[-2:] == b"\xff\xd9"):
        return None
    return "bad_image"
