"""Which videos an archive has: files, folders and patterns, on disk and in object stores.

Object stores are Arrow's: s3://, gs://, abfs://, hdfs://, by their own addresses. Knows no model.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from ovoad_model.archive.errors import ArchiveError
from ovoad_model.training.features import VIDEO_ENDINGS

_ADDRESS: Final = re.compile(r"^[a-z][a-z0-9+]*://", re.IGNORECASE)


@dataclass(frozen=True)
class Video:
    """A video and what tells whether it has changed.

    path is its name in the results: absolute, or an address without keys and options. store and
    key open it: the address of its store ("" for the disk) and its name there.
    """

    path: str
    bytes: int
    modified_ns: int
    store: str
    key: str


def list_videos(sources: Sequence[str]) -> list[Video]:
    """List every source's videos once, by path; raises ArchiveError for one that has none.

    A source is a file, a folder (all below it, by their endings), or a pattern: * for any part of
    a name, ** for any folders.
    """
    found: dict[str, Video] = {}
    for source in sources:
        videos = list(_videos_of(source))
        if not videos:
            raise ArchiveError(hide_keys(f"{source}: found no video, expected at least one"))
        found |= {video.path: video for video in videos}
    return [found[path] for path in sorted(found)]


def hide_keys(text: str) -> str:
    """Take what may be keys out of the addresses in a text."""
    return re.sub(r"://[^/@\s]*@", "://", text)


def store_of(address: str) -> fs.FileSystem:
    """Open the store of an address, once a process; "" is the disk."""
    return _open_store(address)[0]


def _videos_of(source: str) -> Iterator[Video]:
    store, start, pattern = _parse(source)
    files = store_of(store)
    try:
        info = files.get_file_info(start)
        if info.type == fs.FileType.File and pattern is None:
            yield _video(info, store)
            return
        if info.type == fs.FileType.NotFound:
            raise ArchiveError(hide_keys(f"{source}: found no such file or folder"))
        for each in files.get_file_info(fs.FileSelector(start, recursive=True)):
            if each.type == fs.FileType.File and _is_wanted(each.path, pattern):
                yield _video(each, store)
    except (OSError, pa.ArrowException) as error:
        raise ArchiveError(hide_keys(f"{source}: cannot be listed ({error})")) from error


def _parse(source: str) -> "tuple[str, str, re.Pattern[str] | None]":
    """Return the store's address, where to look in it, and the pattern to keep files by."""
    is_address = _ADDRESS.match(source) is not None
    address, _, options = source.partition("?") if is_address else (source, "", "")
    fixed, wildcard, _ = address.partition("*")
    fixed = fixed[: fixed.rfind("/") + 1] if wildcard else fixed
    rest = address[len(fixed) :]
    if not is_address:
        store, start = "", str(Path(fixed).absolute())
    else:
        store = f"{fixed}?{options}" if options else fixed
        start = _open_store(store)[1].rstrip("/")
    return store, start, _pattern(f"{start}/{unquote(rest)}") if wildcard else None


@cache
def _open_store(address: str) -> tuple[fs.FileSystem, str]:
    """Return an address's store and the path in it."""
    if not address:
        return fs.LocalFileSystem(), "/"
    try:
        store, path = fs.FileSystem.from_uri(address)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise ArchiveError(hide_keys(f"{address}: cannot be opened ({error})")) from error
    return store, path


def _pattern(path: str) -> "re.Pattern[str]":
    """Turn * and ** into an expression for whole paths."""
    parts = re.split(r"(\*\*/|\*)", path)
    wild = {"**/": "(?:.*/)?", "*": "[^/]*"}
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts))


def _is_wanted(path: str, pattern: "re.Pattern[str] | None") -> bool:
    if pattern is not None:
        return pattern.fullmatch(path) is not None
    return Path(path).suffix.lower() in VIDEO_ENDINGS


def _video(info: fs.FileInfo, store: str) -> Video:
    scheme = urlsplit(store).scheme
    path = f"{scheme}://{info.path}" if scheme and scheme != "file" else info.path
    return Video(path, info.size, info.mtime_ns or 0, store, info.path)
