"""Plays that break rules below the contract: WebSocket, TCP and HTTP. The server must bear them."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from typing import Final

from tests.server.mutations import mutate, mutate_json, mutate_text

from fuzzing.ledger import LEAKS, Ledger
from fuzzing.raw_socket import BINARY, CLOSE, PING, TEXT, Header, RawSocket, frame, status_of
from fuzzing.sessions import CLOSE_CODES, KEY_HEADER, LABELS
from fuzzing.target import KEY, Target
from ovoad_client import protocol

CREATE: Final = {"type": "session.create", "vocabulary": {"labels": list(LABELS[:2])}}
PATHS: Final = (
    *("/", "/healthz", "/readyz", "/v1/config", "/metrics", "/openapi.json", "/docs", "/page.json"),
    *("/v1/stream", "/v1/clips", "/asyncapi.json", "/main.js", "/theme.css", "/sample.mp4"),
    *("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//", "/%00", "/%ff", "*", "", "/?" * 99),
    *("/main.js/", "/vendor/../main.js", "http://elsewhere/", "/\u00e9", "/" + "a" * 9000),
)
METHODS: Final = (
    *("GET", "GET", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"),
    *("CONNECT", "get", "BREW", "", "G\0T", "A" * 2000),
)
HEADERS: Final = (
    *(("Range", f"bytes={part}") for part in ("0-0", "-1", "5-", "9-1", "0-,0-,0-", "x", "-", "")),
    *(("Range", value) for value in ("bytes", "lines=1-2", "bytes=0-" + "9" * 400, "0-1," * 500)),
    *(("If-None-Match", value) for value in ("*", '"', 'W/"x"', "\xff")),
    *(
        ("If-Modified-Since", value)
        for value in ("never", "Thu, 01 Jan 1970 00:00:00 GMT", "9" * 99)
    ),
    *(("If-Range", value) for value in ("x", '"', "Thu, 99 Jan 1970 00:00:00 GMT")),
    *(
        ("Host", value)
        for value in ("", "a b", "[::", "x;default-src *", "\xff", "h:99999999", "a" * 999)
    ),
    *(("Content-Length", value) for value in ("-1", "x", "99999999999999999999", "5", "0, 0")),
    *(
        ("Transfer-Encoding", value)
        for value in ("chunked", "gzip", "chunked, chunked", "identity")
    ),
    *(("Expect", value) for value in ("100-continue", "x")),
    *(
        ("Origin", value)
        for value in ("null", "http://[", "http://127.0.0.1", "\xff", "http://a:b:c")
    ),
    *(
        ("Authorization", value)
        for value in ("Bearer", "Bearer ", "Basic x", "\xff", "Bearer \xe9")
    ),
    *(("Upgrade", value) for value in ("websocket", "h2c", "TLS/1.0", "")),
    *(("Connection", value) for value in ("Upgrade", "keep-alive, Upgrade", "close", "")),
    *(("Sec-WebSocket-Key", value) for value in ("", "x", "=" * 500, "\xff")),
    *(("Sec-WebSocket-Version", value) for value in ("0", "13", "x", "999")),
    *(
        ("Sec-WebSocket-Protocol", value)
        for value in ("", ",", "ovoad.key.", "ovoad.key.\xff", "a b")
    ),
    *(("Sec-WebSocket-Extensions", value) for value in ("permessage-deflate", ";;", "x" * 900)),
    *(("Content-Type", "application/json"), ("Cookie", "a=" * 999), ("X-Forwarded-For", "x")),
    *(("Accept-Encoding", "gzip;q=nan"), ("Bad Name", "x"), ("", "x"), ("X", "a\r\n b")),
)


class Breaches:
    """Makes the plays of one run; each gets a number, which with the seed says all it does."""

    def __init__(self, target: Target, ledger: Ledger, *, seed: int) -> None:
        self._target = target
        self._ledger = ledger
        self._seed = seed

    async def first_message(self, number: int) -> None:
        """Send something in place of session.create."""
        choice = random.Random(f"{self._seed} {number}")
        async with self._socket() as socket:
            headers = [KEY_HEADER]
            if choice.random() < 0.1:
                headers = [
                    (b"Sec-WebSocket-Protocol", mutate(_key_offer(), choice).strip(b"\r\n\0"))
                ]
            if await socket.upgrade(headers) == 101:
                await socket.send(_first(choice))
                self._ledger.note("first message")
                if choice.random() < 0.9:
                    await socket.send(frame(TEXT, b'{"type":"session.close"}'))
                    await self._read_messages(number, socket)

    async def breach(self, number: int) -> None:
        """Break WebSocket's own rules, with or without a session."""
        choice = random.Random(f"{self._seed} {number}")
        async with self._socket() as socket:
            if await socket.upgrade([KEY_HEADER]) != 101:
                self._ledger.find(number, "a good handshake was refused")
                return
            if choice.random() < 0.6:
                await socket.send(frame(TEXT, json.dumps(CREATE).encode()))
            for _ in range(choice.randrange(1, 6)):
                await socket.send(_broken_frame(choice))
                self._ledger.note("WebSocket rule broken")
            if choice.random() < 0.5:
                socket.hang_up()
            else:
                await socket.send(frame(CLOSE, b"\x03\xe8"))
            if choice.random() < 0.8:
                await self._read_messages(number, socket)
            else:
                socket.break_off()

    async def garbage(self, number: int) -> None:
        """Send bytes that are no handshake, half of one, or one with damage."""
        choice = random.Random(f"{self._seed} {number}")
        async with self._socket() as socket:
            self._ledger.note("raw bytes")
            await socket.send(_no_handshake(choice))
            socket.hang_up()
            self._look_at(number, await socket.read_to_the_end())

    async def http(self, number: int) -> None:
        """Ask for something over HTTP, rightly or wrongly."""
        choice = random.Random(f"{self._seed} {number}")
        async with self._socket() as socket:
            self._ledger.note("HTTP request")
            await socket.send(_request(choice))
            if choice.random() < 0.5:
                socket.hang_up()
            self._look_at(number, await socket.read_to_the_end())

    @contextlib.asynccontextmanager
    async def _socket(self) -> AsyncIterator[RawSocket]:
        """Open a socket for one play; the play ends where the server has had enough."""
        socket = await RawSocket.open(self._target.host, self._target.port)
        try:
            yield socket
        except ConnectionError:
            pass
        finally:
            await socket.close()

    async def _read_messages(self, number: int, socket: RawSocket) -> None:
        while (received := await socket.receive()) is not None:
            if received[0] == TEXT:
                self._ledger.read(number, received[1].decode())
        code = socket.close_code
        self._ledger.ends[f"close {code or 'without a close frame'}"] += 1
        if code is not None and code not in CLOSE_CODES:
            self._ledger.find(number, f"close code {code}, expected one of the contract's")

    def _look_at(self, number: int, answer: bytes) -> None:
        status = status_of(answer)
        self._ledger.came[f"HTTP {status}" if status else "HTTP, nothing"] += 1
        head, _, body = answer.partition(b"\r\n\r\n")
        media = b"javascript" in head or b"video" in head or b"css" in head
        if status >= 500 and status != 503:
            self._ledger.find(number, f"HTTP {status}: {answer[-200:]!r}")
        leak = None if media else LEAKS.search(body.decode("latin-1"))
        if leak is not None:
            self._ledger.find(number, f"an HTTP answer shows {leak.group()!r}: {body[:200]!r}")


def _key_offer() -> bytes:
    import base64

    return b"ovoad.v1, ovoad.key." + base64.urlsafe_b64encode(KEY.encode()).rstrip(b"=")


def _first(choice: random.Random) -> bytes:
    match choice.randrange(6):
        case 0:
            return frame(BINARY, protocol.pack_frame(0, 0, b"image"))
        case 1:
            return frame(TEXT, mutate_text(json.dumps(CREATE), choice).encode("utf-8", "replace"))
        case 2:
            return frame(TEXT, mutate(json.dumps(CREATE).encode(), choice))
        case 3:
            return frame(choice.choice((TEXT, BINARY)), b"")
    return frame(TEXT, mutate_json(CREATE, choice).encode("utf-8", "replace"))


def _broken_frame(choice: random.Random) -> bytes:
    some = choice.randbytes(choice.choice((0, 1, 5, 125, 126, 300)))
    ways = (
        frame(TEXT, b"\xff\xfe\xed\xa0\x80"),
        frame(TEXT, b"\xc3", last=False) + frame(0, b"(", last=True),
        frame(choice.choice((3, 4, 7, 11, 15)), some),
        frame(TEXT, b"{}", reserved=choice.randrange(1, 8)),
        frame(TEXT, b"{}", masked=False),
        frame(0, some),
        frame(TEXT, some, last=False) + frame(TEXT, some),
        frame(PING, b"x" * 126),
        frame(PING, b"x", last=False),
        frame(
            CLOSE, choice.choice((b"", b"x", b"\0\0", b"\x03\xed", b"\xff\xff", b"\x03\xe8\xff"))
        ),
        frame(BINARY, some, claims=choice.choice((2**63 - 1, 2**63, 2**64 - 1, 2**32))),
        frame(BINARY, some, claims=len(some) + 10),
        frame(BINARY, b"", last=False) + frame(0, b"", last=False) * 200 + frame(0, b""),
        frame(PING, b"") * 200,
        choice.randbytes(choice.randrange(1, 100)),
        mutate(frame(TEXT, b'{"type":"ping"}'), choice),
        b"\x81\xfe\x00",  # half a header
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    return choice.choice(ways)


def _no_handshake(choice: random.Random) -> bytes:
    good = (
        b"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Authorization: Bearer " + KEY.encode() + b"\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    match choice.randrange(6):
        case 0:
            return choice.randbytes(choice.choice((1, 10, 1000, 70_000)))
        case 1:
            return good[: choice.randrange(len(good))]
        case 2:
            return b"\x16\x03\x01\x02\0\x01" + choice.randbytes(200)  # as TLS begins
        case 3:
            return good + choice.randbytes(300)
        case 4:
            return good.replace(b"\r\n", choice.choice((b"\n", b"\r", b"\r\n ")))
    return mutate(good, choice)


def _request(choice: random.Random) -> bytes:
    path = choice.choice(PATHS)
    if choice.random() < 0.2:
        path = mutate_text(path or "/", choice)
    version = choice.choice(("HTTP/1.1",) * 8 + ("HTTP/1.0", "HTTP/9.9", "", "HTTP/1.1 x"))
    headers: list[Header] = [(b"Host", b"127.0.0.1"), (b"Connection", b"close")]
    if choice.random() < 0.7:
        headers.append(KEY_HEADER)
    for name, value in choice.sample(HEADERS, choice.randrange(4)):
        headers.append((name.encode("latin-1"), value.encode("latin-1")))
    body = choice.choice((b"", b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"{}", bytes(5000)))
    line = f"{choice.choice(METHODS)} {path} {version}".encode("utf-8", "replace")
    return b"\r\n".join([line, *(n + b": " + v for n, v in headers)]) + b"\r\n\r\n" + body


async def run_play(name: str, number: int, breaches: Breaches) -> None:
    """Run one play by its name."""
    plays = {
        "first": breaches.first_message,
        "breach": breaches.breach,
        "garbage": breaches.garbage,
        "http": breaches.http,
    }
    async with asyncio.timeout(120):
        await plays[name](number)
