"""The two forms of a clip's answer: lines as they come, or one JSON object. Knows no decoder."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ovoad_server.clips.refusals import ClipRefusedError
from ovoad_server.clips.schema import ClipError, ClipOpened
from ovoad_server.clips.scoring import ClipSession
from ovoad_server.clips.spool import Spool, SpoolFile, open_file

log = logging.getLogger(__name__)
T = TypeVar("T")
NDJSON: Final = "application/x-ndjson"
PIECE_BYTES: Final = 256 * 2**10
LISTS: Final = {"prediction": "predictions", "event": "events", "error": "errors"}


class LinesAnswer(Response):
    """Streams a clip's messages, one JSON object a line; frees what it holds in the end."""

    def __init__(
        self,
        opened: ClipOpened,
        session: ClipSession,
        held: contextlib.AsyncExitStack,
        *,
        send_timeout_s: float,
    ) -> None:
        super().__init__(media_type=NDJSON, headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._opened = opened
        self._session = session
        self._held = held
        self._send_timeout_s = send_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all; a client that leaves, or takes nothing more, ends it."""
        async with self._held:
            send = _bounded(send, timeout_s=self._send_timeout_s)
            try:
                await while_connected(self._send_lines(send), receive)
            except ClientDisconnect:
                log.info("a client left before its clip was scored")

    async def _send_lines(self, send: Send) -> None:
        await send(_start(self))
        async for text in self._texts():
            await send(_body(text.encode(), more=True))
        await send(_body(b"", more=False))

    async def _texts(self) -> AsyncIterator[str]:
        yield self._opened.to_json() + "\n"
        try:
            while lines := await self._session.take():
                for line in lines:  # one by one: each waits until the client takes it
                    yield line.text + "\n"
            last = self._session.closed().to_json()
        except ClipRefusedError as refusal:
            last = _last_word(refusal).to_json()
        except Exception:  # a fault of ours ends this answer alone
            log.exception("a clip failed")
            message = "the server failed; its log says why"
            last = ClipError(code="internal", message=message, transient=True).to_json()
        yield last + "\n"


class ObjectAnswer(Response):
    """Sends a finished answer from the disk; frees what it holds in the end."""

    def __init__(
        self, pieces: "Pieces", held: contextlib.AsyncExitStack, *, send_timeout_s: float
    ) -> None:
        super().__init__(media_type="application/json", headers={"Cache-Control": "no-store"})
        self.headers["content-length"] = str(pieces.size)
        self._pieces = pieces
        self._held = held
        self._send_timeout_s = send_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all; a client that leaves, or takes nothing more, ends it."""
        async with self._held:
            send = _bounded(send, timeout_s=self._send_timeout_s)
            with contextlib.suppress(ClientDisconnect):
                await while_connected(self._send_pieces(send), receive)

    async def _send_pieces(self, send: Send) -> None:
        await send(_start(self))
        async for piece in self._pieces:
            await send(_body(piece, more=True))
        await send(_body(b"", more=False))


class Pieces:
    """An answer's JSON: opened, the lists from their files, closed."""

    def __init__(self, files: dict[str, SpoolFile]) -> None:
        self._files = files
        self._pending = {kind: bytearray() for kind in LISTS}
        self._opened = self._closed = ""

    @classmethod
    async def open(cls, spool: Spool, held: contextlib.AsyncExitStack) -> "Pieces":
        """Open a file for each list, closed with `held`; raises ClipRefusedError."""
        return cls({kind: await open_file(spool, held) for kind in LISTS})

    async def gather(self, opened: ClipOpened, session: ClipSession) -> None:
        """Score the clip to its end; raises ClipRefusedError."""
        self._opened = opened.to_json()
        while lines := await session.take():
            for line in lines:
                if line.kind in LISTS:
                    self._pending[line.kind] += line.text.encode() + b","
            for kind, data in self._pending.items():
                if len(data) >= PIECE_BYTES:
                    await self._flush(kind)
        for kind in LISTS:
            await self._flush(kind)
        self._closed = session.closed().to_json()

    async def _flush(self, kind: str) -> None:
        data, self._pending[kind] = self._pending[kind], bytearray()
        await asyncio.to_thread(self._files[kind].write, data)

    @property
    def size(self) -> int:
        """Bytes in all."""
        listed = sum(max(0, file.size - 1) for file in self._files.values())
        return listed + sum(len(text.encode()) for text in self._frame())

    def _frame(self) -> list[str]:
        """Return the texts before, between and behind the lists."""
        first, *rest = (f'"{name}":[' for name in LISTS.values())
        begin = f'{{"opened":{self._opened},{first}'
        return [begin, *(f"],{text}" for text in rest), f'],"closed":{self._closed}}}']

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the answer."""
        *before, last = self._frame()
        for text, file in zip(before, self._files.values(), strict=True):
            yield text.encode()
            end = max(0, file.size - 1)  # without the last comma
            for offset in range(0, end, PIECE_BYTES):
                count = min(PIECE_BYTES, end - offset)
                yield await asyncio.to_thread(file.read, offset, count)
        yield last.encode()


async def while_connected(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Do the work, or raise ClientDisconnect once the client has left; its body has been read."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_until_gone(receive))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _bounded(send: Send, *, timeout_s: float) -> Send:
    """Return `send` that raises ClientDisconnect where the client takes nothing for so long."""

    async def send_in_time(message: Message) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await send(message)
        except TimeoutError:
            log.info("a client took nothing of its answer for %g s", timeout_s)
            raise ClientDisconnect from None

    return send_in_time


def _start(answer: Response) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": answer.raw_headers}


def _body(data: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def _last_word(refusal: ClipRefusedError) -> ClipError:
    return ClipError(
        code=refusal.code,
        message=str(refusal),
        transient=refusal.retry_after_ms is not None,
        retry_after_ms=refusal.retry_after_ms,
    )
