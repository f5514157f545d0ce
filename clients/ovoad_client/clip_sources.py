"""What `ovoad clip` sends: a file, or what an http address gives, read piece by piece."""

import contextlib
import http.client
import os
import re
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final
from urllib.parse import quote, unquote, urlsplit

from ovoad_client.address import is_loopback
from ovoad_client.errors import SourceError, UsageError, os_reason

TIMEOUT_S: Final = 30.0
_EXPECTED: Final = "expected http(s)://HOST[:PORT]/PATH"
_SAFE: Final = "%/:=&?~#+!$,;'@()*[]"  # what stays in a path and a query as it is
_ADDRESS: Final = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


@dataclass(frozen=True)
class OpenClip:
    """A clip to be read once; size is None where nobody tells it."""

    name: str
    size: int | None
    file: BinaryIO


def check_source(source: str) -> None:
    """Raise UsageError for what can never be sent."""
    found = _ADDRESS.match(source)
    if found is not None and found[1].lower() not in ("http", "https"):
        raise UsageError(
            f"found source {source!r}, expected a file or an http(s) address; "
            "ovoad watch takes live sources, ovoad archive object stores"
        )
    if found is None and Path(source).is_dir():
        raise UsageError(
            f"found folder {source!r}, expected a file or an http(s) address; whole folders: "
            "ovoad archive DIR --labels … --out RESULTS"
        )
    if found is not None:
        try:
            parts = urlsplit(source)
            complete = parts.hostname and parts.port != 0  # the port is parsed only when asked for
        except ValueError as error:
            raise UsageError(f"found address {source!r} ({error}), {_EXPECTED}") from error
        if not complete:
            raise UsageError(f"found address {source!r}, {_EXPECTED}")


def clip_name(source: str) -> str:
    """Return the last part of a path or an address, without what follows a ?."""
    if _ADDRESS.match(source):
        parts = urlsplit(source)
        return unquote(PurePosixPath(parts.path).name) or parts.hostname or "clip"
    return Path(source).name


@contextlib.contextmanager
def open_clip(source: str) -> Iterator[OpenClip]:
    """Open a file or an address; raises SourceError, UsageError."""
    check_source(source)
    opened = _open_address(source) if _ADDRESS.match(source) else _open_file(Path(source))
    with opened.file:
        yield opened


def _open_file(path: Path) -> OpenClip:
    try:
        file = path.open("rb")
    except OSError as error:
        reason = "found no such file" if isinstance(error, FileNotFoundError) else None
        reason = reason or os_reason(error)
        raise SourceError(f"cannot read '{path}': {reason}") from error
    status = os.fstat(file.fileno())  # that of a pipe says 0 bytes
    return OpenClip(path.name, status.st_size if stat.S_ISREG(status.st_mode) else None, file)


def _open_address(address: str) -> OpenClip:
    proxies: dict[str, str] | None = {} if is_loopback(address) else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    name = clip_name(address)
    try:
        answer = opener.open(_quoted(address), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            raise SourceError(f"cannot read '{name}': its server answered {error.code}") from error
    except (http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise SourceError(f"cannot read '{name}': {reason}") from error
    length = answer.headers.get("Content-Length", "")
    return OpenClip(name, int(length) if length.isdecimal() else None, answer)


def _quoted(address: str) -> str:
    """Return an address whose blanks and other letters are as HTTP has them."""
    parts = urlsplit(address)
    path, query = quote(parts.path, safe=_SAFE), quote(parts.query, safe=_SAFE)
    return parts._replace(path=path, query=query).geturl()
