"""A TCP connection that can speak WebSocket (RFC 6455) right or wrong. Checks nothing itself."""

import asyncio
import base64
import contextlib
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

WAIT_S: Final = 60.0
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
Header = tuple[bytes, bytes]


class RawSocket:
    """Bytes out, bytes or WebSocket messages in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer
        self.close_code: int | None = None  # of the server's close frame
        self._hung_up = False

    @classmethod
    async def open(cls, host: str, port: int) -> "RawSocket":
        """Connect."""
        return cls(*await asyncio.open_connection(host, port, limit=2**24))

    async def send(self, data: bytes) -> None:
        """Send bytes; raises ConnectionError once the server has closed, TimeoutError."""
        self._writer.write(data)
        async with asyncio.timeout(WAIT_S):
            await self._writer.drain()

    async def upgrade(self, headers: Sequence[Header] = (), *, path: bytes = b"/v1/stream") -> int:
        """Shake hands; returns the HTTP status, 0 for none."""
        lines = [
            b"GET " + path + b" HTTP/1.1",
            b"Host: 127.0.0.1",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)),
            b"Sec-WebSocket-Version: 13",
            *(name + b": " + value for name, value in headers),
        ]
        await self.send(b"\r\n".join(lines) + b"\r\n\r\n")
        async with asyncio.timeout(WAIT_S):
            try:
                answer = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return 0
        return status_of(answer)

    async def receive(self) -> tuple[int, bytes] | None:
        """Return opcode and payload of the next frame; None at the connection's end."""
        try:
            async with asyncio.timeout(WAIT_S):
                head = await self.reader.readexactly(2)
                length = head[1] & 0x7F
                if length == 126:
                    (length,) = struct.unpack(">H", await self.reader.readexactly(2))
                elif length == 127:
                    (length,) = struct.unpack(">Q", await self.reader.readexactly(8))
                payload = await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        if head[0] & 0x0F == CLOSE:
            self._take_close(payload)
        return head[0] & 0x0F, payload

    def _take_close(self, payload: bytes) -> None:
        """Answer a close frame, so that the server need not wait for it."""
        if len(payload) >= 2:
            self.close_code = int.from_bytes(payload[:2], "big")
        if not self._hung_up and not self._writer.is_closing():
            self._writer.write(frame(CLOSE, payload[:2]))

    async def read_to_the_end(self) -> bytes:
        """Return all bytes up to the connection's end."""
        try:
            async with asyncio.timeout(WAIT_S):
                return await self.reader.read(-1)
        except ConnectionError:
            return b""

    def hang_up(self) -> None:
        """Say that nothing more comes."""
        self._hung_up = True
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def break_off(self) -> None:
        """Reset the connection without a word."""
        connection = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def close(self) -> None:
        """Let the connection go."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await self._writer.wait_closed()


def frame(
    opcode: int,
    payload: bytes,
    *,
    last: bool = True,
    masked: bool = True,
    reserved: int = 0,
    claims: int | None = None,
) -> bytes:
    """Return one WebSocket frame; `claims` is a payload length that may lie."""
    length = len(payload) if claims is None else claims
    head = bytes((last << 7 | reserved << 4 | opcode,))
    bit = 0x80 if masked else 0
    if length < 126:
        head += bytes((bit | length,))
    elif length < 2**16:
        head += bytes((bit | 126,)) + struct.pack(">H", length)
    else:
        head += bytes((bit | 127,)) + struct.pack(">Q", length)
    if not masked:
        return head + payload
    key = os.urandom(4)
    pattern = int.from_bytes((key * (len(payload) // 4 + 1))[: len(payload)], "big")
    hidden = (int.from_bytes(payload, "big") ^ pattern).to_bytes(len(payload), "big")
    return head + key + hidden


def status_of(answer: bytes) -> int:
    """Return the HTTP status of an answer; 0 for none."""
    words = answer[:64].split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[1][:3].isdigit() else 0
