"""Send a clip to `POST /v1/clips` and read its answer line by line. Knows no file format.

Plain HTTP/1.1 by the standard library: the body leaves piece by piece, and a server that refuses
early is heard before all of it has left.
"""

import contextlib
import http.client
import json
import secrets
import select
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final
from urllib.parse import urlsplit

from ovoad_client.address import stream_address
from ovoad_client.clip_sources import OpenClip, open_clip
from ovoad_client.errors import (
    BrokenError,
    ClientError,
    SilenceError,
    SourceError,
    UnauthorisedError,
    UnreachableError,
    os_reason,
)
from ovoad_client.protocol import EventSettings, ScorerName, Vocabulary

CLIPS_PATH: Final = "/v1/clips"
CONNECT_TIMEOUT_S: Final = 10.0
SILENCE_TIMEOUT_S: Final = 120.0
CONTINUE_TIMEOUT_S: Final = 1.0  # for the server to say that it wants the body
PIECE_BYTES: Final = 256 * 2**10
NDJSON: Final = "application/x-ndjson"
Tell = Callable[[int, int | None], None]


class ClipError(ClientError):
    """The server refused a clip; `status` is HTTP's (200: after it had begun), `code` the server's.

    retry_after_ms: where the same clip may pass later.
    """

    def __init__(
        self, status: int, code: str, message: str, *, retry_after_ms: int | None = None
    ) -> None:
        super().__init__(f"server refused: {message} ({code})")
        self.status = status
        self.code = code
        self.retry_after_ms = retry_after_ms


@dataclass(frozen=True)
class ClipQuestion:
    """What to look for in clips; fps None takes the server's grid."""

    labels: Sequence[str]
    templates: Sequence[str] | None = None
    background: Sequence[str] | None = None
    scorer: ScorerName | None = None
    fps: float | None = None
    top_k: int | None = None
    events: EventSettings | None = None

    def to_json(self) -> str:
        """Return the part `request`; raises pydantic's ValidationError."""
        vocabulary = Vocabulary(
            labels=list(self.labels),
            templates=None if self.templates is None else list(self.templates),
            background=None if self.background is None else list(self.background),
        )
        fields: dict[str, Any] = {
            "vocabulary": vocabulary.model_dump(exclude_none=True),
            "scorer": self.scorer,
            "fps": self.fps,
            "top_k": self.top_k,
            "events": None if self.events is None else self.events.model_dump(),
        }
        return json.dumps({name: value for name, value in fields.items() if value is not None})


def score_clip(
    source: str,
    labels: Sequence[str],
    *,
    url: str = "http://127.0.0.1:8000",
    api_key: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Score a file or an http address; yields the answer's messages as they come.

    The first is `clip.opened`, the last `clip.closed`; between them `prediction`, `event`,
    `clip.progress` and, for single frames, `error`. Raises ClientError.
    """
    question = ClipQuestion(labels)
    with open_clip(source) as clip:
        for line in send_clip(clip, question.to_json(), url=url, api_key=api_key):
            yield json.loads(line)


def send_clip(
    clip: OpenClip,
    request: str,
    *,
    url: str,
    api_key: str | None = None,
    tell: Tell = lambda sent, size: None,
) -> Iterator[str]:
    """Send a clip, then yield the answer's lines as they come.

    `tell` hears how many bytes have left, of how many. Raises ClipError, UnreachableError,
    UnauthorisedError, BrokenError, SilenceError, SourceError.
    """
    address = clips_address(url)
    connection = _connect(address)
    try:
        sending = _Sending(connection, clip, request, tell=tell)
        response = sending.run(urlsplit(address).path, _headers(api_key))
        if response.status != 200:
            raise _refused(response, address, key_given=api_key is not None)
        yield from _lines(response)
    except TimeoutError as error:
        raise SilenceError(
            f"{address} said nothing for {SILENCE_TIMEOUT_S:g} s, expected an answer"
        ) from error
    except (http.client.HTTPException, OSError) as error:
        raise BrokenError(f"the connection to {address} broke ({error or 'no answer'})") from error
    finally:
        connection.close()


def clips_address(url: str) -> str:
    """Return the address of /v1/clips beside that of the stream; raises UsageError."""
    parts = urlsplit(stream_address(url))
    scheme = {"ws": "http", "wss": "https"}[parts.scheme]
    path = str(PurePath(parts.path).parent / PurePath(CLIPS_PATH).name)
    return f"{scheme}://{parts.netloc}{path}"


def _connect(address: str) -> http.client.HTTPConnection:
    parts = urlsplit(address)
    assert parts.hostname is not None
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=CONNECT_TIMEOUT_S)
    try:
        connection.connect()
    except OSError as error:
        reason = os_reason(error)
        raise UnreachableError(address, reason) from error
    connection.sock.settimeout(SILENCE_TIMEOUT_S)
    return connection


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"Accept": NDJSON}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    return headers


class _Sending:
    """One request on its way: head, the part `request`, the file, tail."""

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        clip: OpenClip,
        request: str,
        *,
        tell: Tell,
    ) -> None:
        boundary = f"ovoad-{secrets.token_hex(16)}"
        name = clip.name.translate({ord('"'): "%22", ord("\r"): "%0D", ord("\n"): "%0A"})
        self._connection = connection
        self._clip = clip
        self._tell = tell
        self._kind = f"multipart/form-data; boundary={boundary}"
        self._head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="request"\r\n'
            f"Content-Type: application/json\r\n\r\n{request}\r\n"
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._chunked = clip.size is None

    def run(self, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        """Send it and return the answer, which may come before everything has left."""
        connection = self._connection
        connection.putrequest("POST", path, skip_accept_encoding=True)
        for name, value in {**headers, **self._framing()}.items():
            connection.putheader(name, value)
        connection.endheaders()
        if not self._refused_early(CONTINUE_TIMEOUT_S, also_continue=False):
            # Where the server hangs up, its answer may be there all the same.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._send_body()
        return connection.getresponse()

    def _framing(self) -> dict[str, str]:
        framing = {"Content-Type": self._kind, "Expect": "100-continue"}
        if self._clip.size is None:
            return {**framing, "Transfer-Encoding": "chunked"}
        length = len(self._head) + self._clip.size + len(self._tail)
        return {**framing, "Content-Length": str(length)}

    def _send_body(self) -> None:
        self._send(self._head)
        sent = 0
        for piece in self._pieces():
            if self._refused_early(0, also_continue=True):
                return
            self._send(piece)
            sent += len(piece)
            self._tell(sent, self._clip.size)
        self._send(self._tail)
        if self._chunked:
            self._connection.send(b"0\r\n\r\n")

    def _send(self, data: bytes) -> None:
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._connection.send(data)

    def _pieces(self) -> Iterator[bytes]:
        """Yield the file's bytes, as many as it had when it was opened; raises SourceError."""
        clip, read = self._clip, 0
        while clip.size is None or read < clip.size:
            count = PIECE_BYTES if clip.size is None else min(PIECE_BYTES, clip.size - read)
            try:
                piece = clip.file.read(count)
            except (OSError, http.client.HTTPException) as error:
                raise SourceError(f"cannot read '{clip.name}': {error}") from error
            if not piece:
                break
            read += len(piece)
            yield piece
        if clip.size is not None and read < clip.size:
            raise SourceError(
                f"cannot read '{clip.name}': it ended after {read} of {clip.size} bytes"
            )

    def _refused_early(self, timeout_s: float, *, also_continue: bool) -> bool:
        """Tell whether the server has answered with anything but "go on".

        also_continue: whether that word may still be on its way; it is left to getresponse().
        Encrypted connections cannot be looked into: there the body leaves at once.
        """
        raw = self._connection.sock
        if not isinstance(raw, socket.socket) or isinstance(raw, ssl.SSLSocket):
            return False
        if not select.select([raw], [], [], timeout_s)[0]:
            return False
        seen = raw.recv(64, socket.MSG_PEEK)
        if seen.startswith(b"HTTP/1.1 100"):
            return also_continue and b"\r\n\r\nHTTP/" in seen
        return True


def _lines(response: http.client.HTTPResponse) -> Iterator[str]:
    """Yield lines up to the last; raises ClipError, and BrokenError where there is none."""
    while raw := response.readline():
        line = raw.decode().rstrip("\n")
        kind = _message(line)
        if kind.get("type") == "error" and kind.get("fatal"):
            retry_after_ms = kind.get("retry_after_ms")
            raise ClipError(200, kind["code"], kind["message"], retry_after_ms=retry_after_ms)
        yield line
        if kind.get("type") == "clip.closed":
            return
    raise BrokenError("the connection broke before the clip's end")


def _message(line: str) -> dict[str, Any]:
    try:
        message = json.loads(line)
        if isinstance(message, dict):
            return message
    except ValueError:
        pass
    raise BrokenError(f"found an answer that is no message ({line[:80]!r}), expected JSON lines")


def _refused(response: http.client.HTTPResponse, address: str, *, key_given: bool) -> ClientError:
    if response.status == 401:
        return UnauthorisedError(address, key_given=key_given)
    try:
        error = json.loads(response.read(64 * 2**10))["error"]
        code, message = str(error["code"]), str(error["message"])
        retry_after_ms = error.get("retry_after_ms")
    except (ValueError, KeyError, TypeError):
        found = f"found HTTP status {response.status}, expected an ovoad server"
        return ClipError(response.status, "error", found)
    return ClipError(response.status, code, message, retry_after_ms=retry_after_ms)
