"""How many sessions each key has, and how many connections that have not said what they want."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

from ovoad_client import protocol
from ovoad_server.keys.file import ApiKey
from ovoad_server.refusals import RefusedError

RETRY_MS: Final = 5000


class KeySlots:
    """Counts by the key's name, so that a session outlives a change of its key's limits."""

    def __init__(self) -> None:
        self._used: Counter[str] = Counter()
        self._opening: Counter[str] = Counter()

    def used(self, key: ApiKey | None) -> int:
        """How many sessions of the key are open, parked ones too."""
        return 0 if key is None else self._used[key.name]

    def full(self, key: ApiKey | None) -> bool:
        """Tell whether the key has all the sessions that it may have."""
        return key is not None and key.sessions is not None and self.used(key) >= key.sessions

    def take(self, key: ApiKey | None) -> None:
        """Take one; raises RefusedError at the key's limit."""
        if key is None:
            return
        if self.full(key):
            raise self.refusal(key)
        self._used[key.name] += 1

    def give(self, key: ApiKey | None) -> None:
        """Give one back."""
        if key is not None:
            _lower(self._used, key.name)

    @contextlib.contextmanager
    def opening(self, key: ApiKey | None) -> Iterator[None]:
        """Bound the connections and uploads of a key that are no session yet.

        As many as the key may have sessions, whatever it has: each may come to resume one.
        """
        if key is None:
            yield
            return
        if key.sessions is not None and self._opening[key.name] >= key.sessions:
            raise _refusal(key, self._opening[key.name])
        self._opening[key.name] += 1
        try:
            yield
        finally:
            _lower(self._opening, key.name)

    def refusal(self, key: ApiKey) -> RefusedError:
        """Return why the key gets no further session."""
        return _refusal(key, self._used[key.name])


def _refusal(key: ApiKey, found: int) -> RefusedError:
    return RefusedError(
        "capacity",
        f"found {found} sessions of key {key.name} open, expected fewer than {key.sessions}, "
        "the limit of this key; try again later",
        close_code=protocol.CLOSE_CAPACITY,
        retry_after_ms=RETRY_MS,
    )


def _lower(counter: Counter[str], name: str) -> None:
    counter[name] -= 1
    if counter[name] == 0:
        del counter[name]  # names come and go
