"""What `ovoad clip` sends: a file, or what an http address gives, read piece by piece."""

import contextlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final
from urllib.parse import unquote, urlsplit

from ovoad_client.address import is_loopback
from ovoad_client.errors import SourceError, UsageError

TIMEOUT_S: Final = 30.0
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
            "ovoad watch takes live sources"
        )


def clip_name(source: str) -> str:
    """Return the last part of a path or an address, without what follows a ?."""
    if _ADDRESS.match(source):
        parts = urlsplit(source)
        return unquote(PurePosixPath(parts.path).name) or parts.hostname or "clip"
    return Path(source).name


@contextlib.contextmanager
def open_clip(source: str) -> Iterator[OpenClip]:
    """Open a file or an address; raises SourceError."""
    opened = _open_address(source) if _ADDRESS.match(source) else _open_file(Path(source))
    with opened.file:
        yield opened


def _open_file(path: Path) -> OpenClip:
    try:
        file = path.open("rb")
    except OSError as error:
        reason = "found no such file" if isinstance(error, FileNotFoundError) else None
        reason = reason or (error.strerror or str(error)).lower()
        raise SourceError(f"cannot read '{path}': {reason}") from error
    return OpenClip(path.name, os.fstat(file.fileno()).st_size, file)


def _open_address(address: str) -> OpenClip:
    proxies: dict[str, str] | None = {} if is_loopback(address) else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    name = clip_name(address)
    try:
        answer = opener.open(address, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            raise SourceError(f"cannot read '{name}': its server answered {error.code}") from error
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise SourceError(f"cannot read '{name}': {reason}") from error
    length = answer.headers.get("Content-Length", "")
    return OpenClip(name, int(length) if length.isdecimal() else None, answer)
