"""From a multipart body to a spooled file and a request, each checked as soon as it can be.

Knows HTTP's bodies, no decoder. Nothing is held in memory but what is on its way to the disk.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from ovoad_server.clips.containers import HEAD_BYTES, container_of
from ovoad_server.clips.refusals import ClipRefusedError
from ovoad_server.clips.schema import ClipRequest, parse_request
from ovoad_server.clips.spool import Spool, SpoolFile, open_file

MOST_REQUEST_BYTES: Final = 4 * 2**20
FLUSH_BYTES: Final = 2**20
LEAST_BYTES_PER_S: Final = 8 * 2**10  # on average, after the first
FIRST_S: Final = 30.0
MOST_NAME_CHARACTERS: Final = 255
_OVERHEAD_BYTES: Final = 64 * 2**10  # of a body beside its two parts


@dataclass(frozen=True)
class Upload:
    """A whole upload; the file is open."""

    request: ClipRequest
    name: str
    container: str
    file: SpoolFile


@dataclass
class _Part:
    """A part of the form under way."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    field_name: bytearray = field(default_factory=bytearray)
    field_value: bytearray = field(default_factory=bytearray)
    name: str = ""


class Form:
    """Takes a body piece by piece; `file` is a fresh spool file, the caller's to close."""

    def __init__(self, content_type: str, file: SpoolFile, *, max_bytes: int) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise ClipRefusedError(
                415,
                "not_multipart",
                f"found content type {content_type[:80]!r}, "
                "expected multipart/form-data with the parts request and file",
            )
        self._file = file
        self._max_bytes = max_bytes
        self._part = _Part()
        self._pending = bytearray()
        self._file_bytes = 0
        self._file_name: str | None = None
        self._container: str | None = None
        self._words = bytearray()
        self._request: ClipRequest | None = None
        self._whole = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._name_part,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )

    async def take(self, data: bytes) -> None:
        """Take the next piece; raises ClipRefusedError."""
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise ClipRefusedError(
                400, "bad_request", f"found a body that is not multipart ({error})"
            ) from error
        if len(self._pending) >= FLUSH_BYTES:
            await self._flush()

    async def end(self) -> Upload:
        """Return what came; raises ClipRefusedError where something is missing."""
        if not self._whole:
            raise ClipRefusedError(
                400, "bad_request", "found a body that breaks off, expected its last boundary"
            )
        for name, found in (("file", self._file_name), ("request", self._request)):
            if found is None:
                raise ClipRefusedError(400, "bad_request", f"part {name} is missing")
        await self._flush()
        assert self._request is not None
        assert self._file_name is not None
        assert self._container is not None
        return Upload(self._request, self._file_name, self._container, self._file)

    async def _flush(self) -> None:
        data, self._pending = self._pending, bytearray()
        await asyncio.to_thread(self._file.write, data)

    # ---- what the parser calls ------------------------------------------------------------------

    def _begin(self) -> None:
        self._part = _Part()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.field_name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.field_value += data[start:end]

    def _header_end(self) -> None:
        part = self._part
        part.headers[bytes(part.field_name).lower()] = bytes(part.field_value)
        part.field_name.clear()
        part.field_value.clear()

    def _name_part(self) -> None:
        _, options = parse_options_header(self._part.headers.get(b"content-disposition"))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        seen = {"file": self._file_name, "request": self._request}
        if name not in seen:
            raise ClipRefusedError(
                400, "bad_request", f"found part {name[:80]!r}, expected request and file alone"
            )
        if seen[name] is not None:
            raise ClipRefusedError(400, "bad_request", f"found part {name} twice, expected it once")
        self._part.name = name
        if name == "file":
            file_name = options.get(b"filename", b"").decode("utf-8", "replace")
            self._file_name = file_name[:MOST_NAME_CHARACTERS]

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part.name == "request":
            self._words += data[start:end]
            if len(self._words) > MOST_REQUEST_BYTES:
                raise ClipRefusedError(
                    413,
                    "request_too_large",
                    f"found a part request of more than {MOST_REQUEST_BYTES} bytes, "
                    "expected at most as many",
                )
            return
        self._file_bytes += end - start
        if self._file_bytes > self._max_bytes:
            raise _too_large(self._file_bytes, self._max_bytes)
        self._pending += data[start:end]
        if self._container is None and self._file_bytes >= HEAD_BYTES:
            self._recognise()

    def _end(self) -> None:
        if self._part.name == "request":
            self._request = parse_request(bytes(self._words))
            self._words.clear()
        elif self._container is None:
            self._recognise()

    def _finish(self) -> None:
        self._whole = True

    def _recognise(self) -> None:
        head = bytes(self._pending[:HEAD_BYTES])
        self._container = container_of(head)
        if self._container is None:
            found = f"a file that starts {head[:8]!r}" if head else "an empty file"
            raise ClipRefusedError(
                415,
                "not_a_video",
                f"found {found}, expected a video (MP4, QuickTime, Matroska, WebM, AVI, MPEG, "
                "FLV, Ogg or ASF)",
            )


async def receive_clip(
    request: Request,
    spool: Spool,
    held: contextlib.AsyncExitStack,
    *,
    max_bytes: int,
    idle_timeout_s: float,
) -> Upload:
    """Read a request's body to its end; raises ClipRefusedError and ClientDisconnect.

    The file of the upload is closed with `held`.
    """
    most = max_bytes + MOST_REQUEST_BYTES + _OVERHEAD_BYTES
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise _too_large(int(declared), max_bytes)
    file = await open_file(spool, held)
    form = Form(request.headers.get("content-type", ""), file, max_bytes=max_bytes)
    received = 0
    async for piece in _pieces(request, idle_timeout_s=idle_timeout_s):
        received += len(piece)
        if received > most:  # in chunks, before or behind the parts: no length is declared
            raise _too_large(received, max_bytes)
        await form.take(piece)
    return await form.end()


async def _pieces(request: Request, *, idle_timeout_s: float) -> AsyncIterator[bytes]:
    """Yield a body's pieces; raises ClipRefusedError for a client that sends too slowly."""
    began_s = time.monotonic()
    received = 0
    stream = aiter(request.stream())
    while True:
        due_s = began_s + FIRST_S + received / LEAST_BYTES_PER_S
        wait_s = min(idle_timeout_s, due_s - time.monotonic())
        try:
            async with asyncio.timeout(wait_s):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise ClipRefusedError(
                408,
                "upload_too_slow",
                f"found {received} bytes in {time.monotonic() - began_s:.0f} s and then none, "
                f"expected {LEAST_BYTES_PER_S} bytes a second",
            ) from None
        received += len(piece)
        yield piece


def _too_large(found: int, most: int) -> ClipRefusedError:
    return ClipRefusedError(
        413, "clip_too_large", f"found {found} bytes or more, expected at most {most}"
    )
