"""The keys that are valid now, and who holds which. Knows no route and no session."""

import asyncio
import hmac
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ovoad_server.keys.file import (
    DEFAULT_NAME,
    ApiKey,
    KeysFileError,
    Signature,
    read_keys,
    signature_of,
)
from ovoad_server.keys.secret import digest_of
from ovoad_server.settings import Settings

log = logging.getLogger(__name__)
LOOK_EVERY_S: Final = 1.0
SETTLED_S: Final = 2.0  # far more than a tick of any file system's clock


class Keyring:
    """Finds the key that somebody presents; without any key at the start, everyone is let in."""

    def __init__(
        self,
        default: ApiKey | None = None,
        path: Path | None = None,
        keys: Sequence[ApiKey] = (),
        *,
        signature: Signature | None = None,
    ) -> None:
        self.required = default is not None or path is not None
        self._default = default
        self._path = path
        self._signature = signature  # of the file as it was read last; None to read it anew
        self._failure: str | None = None  # told last, of a file that is still broken
        self._of_file: tuple[ApiKey, ...] = ()
        self._rows: tuple[ApiKey | None, ...] = (None,)
        self._digests: tuple[bytes, ...] = ()
        self._replace(tuple(keys))

    def __len__(self) -> int:
        return len(self._digests)

    def find(self, presented: bytes | None) -> ApiKey | None:
        """Return the key that was presented, None where it is none of ours.

        In the same time for every text of one length: it is hashed, and the hash is compared with
        all that are stored, in constant time each, whichever matches.
        """
        found = digest_of(presented or b"")
        row = 0
        for number, digest in enumerate(self._digests, 1):
            row |= number * hmac.compare_digest(found, digest)
        return self._rows[row]

    def holds(self, key: ApiKey) -> bool:
        """Tell whether a key is still valid under its name, whatever its limits are now."""
        return any(
            ours is not None and key.name == ours.name and key.sha256 == ours.sha256
            for ours in self._rows
        )

    async def follow(self, *, changed: Callable[[], None], failed: Callable[[], None]) -> None:
        """Read the file anew whenever it changes; never returns.

        A file that is gone, half-written or broken changes nothing: the last good keys stay, the
        log says why once, and it is tried again until it can be read.
        """
        while self._path is not None:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                read = await asyncio.to_thread(self._read_if_changed, self._path)
                if read is None or (read == self._of_file and self._failure is None):
                    continue
                self._replace(read)
            except KeysFileError as error:
                failed()
                self._tell(error)
                continue
            self._failure = None
            log.info("the keys file was read anew, %d keys are valid", len(self))
            changed()

    def _read_if_changed(self, path: Path) -> tuple[ApiKey, ...] | None:
        """Return the keys where the file is another than before. Blocks."""
        try:
            if signature_of(os.stat(path)) == self._signature:
                return None
        except OSError:
            pass  # reading it says why
        self._signature = None
        keys, status = read_keys(path)
        self._signature = settled_signature(status)
        return keys

    def _replace(self, keys: tuple[ApiKey, ...]) -> None:
        """Let these keys be valid, and the one of the settings; raises KeysFileError."""
        default = self._default
        if default is not None:
            for key in keys:
                if key.sha256 == default.sha256:
                    raise KeysFileError(
                        f"found OVOAD_API_KEY in the keys file too, as {key.name}, "
                        "expected one name for a key"
                    )
        valid = keys if default is None else (default, *keys)
        self._of_file = keys
        self._rows = (None, *valid)
        self._digests = tuple(bytes.fromhex(key.sha256) for key in valid)

    def _tell(self, error: KeysFileError) -> None:
        if str(error) != self._failure:
            log.error("%s; the %d keys read before stay valid", error, len(self))
        self._failure = str(error)


def settled_signature(status: os.stat_result) -> Signature | None:
    """Return a file's signature, None while it may change once more without a new one.

    A second change within one tick of the file system's clock has the same times as the first.
    """
    return signature_of(status) if abs(time.time() - status.st_mtime) > SETTLED_S else None


def open_keyring(settings: Settings) -> Keyring:
    """Return the keys that the settings name; raises KeysFileError where there are none in a file.

    An empty file lets nobody in but would look like a server with keys: it is a mistake at the
    start. Later it is what is left when the last key was revoked.
    """
    default = None
    if settings.api_key is not None:
        digest = digest_of(settings.api_key.get_secret_value().encode())
        default = ApiKey(name=DEFAULT_NAME, sha256=digest.hex())
    path = settings.keys_file
    if path is None:
        return Keyring(default)
    keys, status = read_keys(path)
    if not keys:
        raise KeysFileError(
            f"found no key in the keys file {path}, expected at least one: "
            f"ovoad keys add NAME --file {path}"
        )
    return Keyring(default, path, keys, signature=settled_signature(status))
