"""The file of keys: names, hashes and limits as JSON. Knows no server.

{"version": 1, "keys": [{"name": "door", "sha256": "…", "created": "…", "sessions": 4}]}
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ovoad_server.keys.redacting import redact

DEFAULT_NAME: Final = "default"  # of the one key that the settings give
MOST_KEYS: Final = 1000  # each costs a look-up some 0.1 µs
MOST_BYTES: Final = 2**20
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Signature = tuple[int, int, int, int, int]


class KeysFileError(Exception):
    """A file of keys that cannot be read, or is not one; the text names it and holds no key."""


class ApiKey(BaseModel):
    """A key as it is kept: what it is called, its SHA-256, and how far it reaches."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", repr=False)]
    created: datetime | None = None
    sessions: Annotated[int, Field(ge=1)] | None = None  # at once, clips too
    fps: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # frames/s of a session
    labels: Annotated[int, Field(ge=1)] | None = None  # of a vocabulary


class KeysDocument(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    version: Literal[1]
    keys: Annotated[tuple[ApiKey, ...], Field(max_length=MOST_KEYS)]

    @model_validator(mode="after")
    def _names_and_keys_are_single(self) -> "KeysDocument":
        names: set[str] = set()
        by_hash: dict[str, str] = {}
        for key in self.keys:
            if key.name == DEFAULT_NAME:
                raise ValueError(f"found a key named {DEFAULT_NAME}, which is OVOAD_API_KEY's name")
            if key.name in names:
                raise ValueError(f"found name {key.name} twice, expected each name once")
            if key.sha256 in by_hash:
                raise ValueError(
                    f"found the same key as {by_hash[key.sha256]} and as {key.name}, "
                    "expected one name for a key"
                )
            names.add(key.name)
            by_hash[key.sha256] = key.name
        return self


def signature_of(status: os.stat_result) -> Signature:
    """Return what changes when a file is written or replaced."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def read_keys(path: Path) -> tuple[tuple[ApiKey, ...], os.stat_result]:
    """Return the keys and what the system said of the file before it was read.

    Raises KeysFileError.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise KeysFileError(f"cannot read the keys file {path}: {reason}") from None
    if len(data) > MOST_BYTES:
        raise KeysFileError(
            f"found more than {MOST_BYTES} bytes in the keys file {path}, expected fewer"
        )
    return parse_keys(data, path), status


def parse_keys(data: bytes, path: Path) -> tuple[ApiKey, ...]:
    """Return the keys in a file's bytes; raises KeysFileError."""
    try:
        return KeysDocument.model_validate_json(data).keys
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        found = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
        text = redact(f"{place}: {found}" if place else found)
        raise KeysFileError(f"cannot use the keys file {path}: {text}") from None


def write_keys(path: Path, keys: Sequence[ApiKey]) -> None:
    """Replace the file in one step, readable by its owner alone; raises KeysFileError.

    The owner stays who it was where we may give files away (root, for a server's user).
    """
    target = Path(os.path.realpath(path))
    document = KeysDocument(version=1, keys=tuple(keys))
    text = document.model_dump_json(indent=2, exclude_none=True) + "\n"
    beside = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                _keep_owner(target, file.fileno())
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise KeysFileError(f"cannot write the keys file {path}: {reason}") from None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other writers of this file out; raises KeysFileError.

    The lock is its folder's: the file itself is replaced.
    """
    folder = Path(os.path.realpath(path)).parent
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise KeysFileError(f"cannot open the folder {folder}: {reason}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _keep_owner(target: Path, descriptor: int) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError):
        status = os.stat(target)
        os.fchown(descriptor, status.st_uid, status.st_gid)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
