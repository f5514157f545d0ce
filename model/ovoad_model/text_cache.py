"""Embed each text once: in memory while it is in use, on disk across restarts.

Knows encoders by their fingerprint and encode_text alone.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Final, Protocol

import numpy as np

from ovoad_model.arrays import Float32Array
from ovoad_model.text_store import TextStore

MEMORY_ENTRIES: Final = 16_384
DISK_BYTES: Final = 64 * 1024 * 1024


class TextEncoder(Protocol):
    """The part of an encoder that a cache needs."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever text embeddings could change."""

    def encode_text(self, texts: Sequence[str]) -> Float32Array:
        """Embed C sentences: [C, D]."""


class TextCache:
    """Text embeddings by (encoder fingerprint, text). Safe to use from several threads.

    hits and misses count texts, doubles in one call once.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        memory_entries: int = MEMORY_ENTRIES,
        disk_bytes: int = DISK_BYTES,
        adapters: str = "",
    ) -> None:
        """Use a file, or with None memory alone.

        adapters: fingerprint of what was put on the encoder's text side since its own was taken.
        """
        self._adapters = adapters
        self.hits = 0
        self.misses = 0
        self._memory: OrderedDict[bytes, Float32Array] = OrderedDict()
        self._memory_entries = memory_entries
        self._store = None if path is None else TextStore(path, most_bytes=disk_bytes)
        self._lock = Lock()

    def embed(self, encoder: TextEncoder, texts: Sequence[str]) -> Float32Array:
        """Embed C texts, the unknown ones in one call of the encoder: [C, D]."""
        keys = [key_of(encoder.fingerprint + self._adapters, text) for text in texts]
        with self._lock:
            known = self._find(list(dict.fromkeys(keys)))
        unknown = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if unknown or not texts:
            vectors = encoder.encode_text(list(unknown.values()))
            if not texts:
                return vectors
            fresh = dict(zip(unknown, vectors, strict=True))
            with self._lock:
                self._keep(fresh)
            known |= fresh
        with self._lock:
            self.hits += len(known) - len(unknown)
            self.misses += len(unknown)
        return np.stack([known[key] for key in keys])

    def close(self) -> None:
        """Close the file; the cache goes on in memory."""
        with self._lock:
            if self._store is not None:
                self._store.close()

    def _find(self, keys: Sequence[bytes]) -> dict[bytes, Float32Array]:
        found = {key: self._memory[key] for key in keys if key in self._memory}
        rest = [key for key in keys if key not in found]
        if rest and self._store is not None:
            stored = self._store.get(rest)
            self._remember(stored)
            found |= stored
        for key in found:
            if key in self._memory:
                self._memory.move_to_end(key)
        return found

    def _keep(self, fresh: dict[bytes, Float32Array]) -> None:
        self._remember(fresh)
        if self._store is not None:
            self._store.put(fresh)

    def _remember(self, vectors: dict[bytes, Float32Array]) -> None:
        self._memory.update((key, vector.copy()) for key, vector in vectors.items())
        while len(self._memory) > self._memory_entries:
            self._memory.popitem(last=False)


def key_of(fingerprint: str, text: str) -> bytes:
    """Return the content key of a text under an encoder: sha256, 32 bytes."""
    return hashlib.sha256(fingerprint.encode() + b"\0" + text.encode("utf-8", "replace")).digest()
