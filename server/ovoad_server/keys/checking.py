"""Who is at the other end: from a handshake's headers to a key, wrong ones counted and slowed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from starlette.datastructures import Address

from ovoad_client import protocol
from ovoad_server.auth import presented_key, tries_a_key
from ovoad_server.keys.file import ApiKey
from ovoad_server.keys.keyring import Keyring
from ovoad_server.keys.wrong_keys import LONGEST_DELAY_S, WrongKeys, client_address
from ovoad_server.metrics import Metrics
from ovoad_server.refusals import RefusedError

KEY_REVOKED: Final = "key_revoked"
Reason = Literal["missing", "malformed", "unknown"]


@dataclass(frozen=True)
class Caller:
    """Who opened a connection: by which key, None where none is needed, and from where."""

    key: ApiKey | None = None
    address: str = "unknown"

    @property
    def key_name(self) -> str | None:
        """The name of the key."""
        return None if self.key is None else self.key.name


ANYONE: Final = Caller()


class KeyCheck:
    """Lets in who has a key; whoever has none is told so, those who guess after a while."""

    def __init__(self, keyring: Keyring, metrics: Metrics) -> None:
        self.keyring = keyring
        self.wrong_keys = WrongKeys()
        self._failures = metrics.key_failures
        metrics.keys.set_function(lambda: len(keyring))
        metrics.key_answers_waiting.set_function(lambda: self.wrong_keys.waiting)

    async def admit(
        self,
        headers: Mapping[str, str],
        client: Address | None,
        *,
        subprotocols: Sequence[str] = (),
    ) -> Caller:
        """Return who it is; raises RefusedError: unauthorised, or capacity where too many guess."""
        address = client_address(client)
        if not self.keyring.required:
            return Caller(None, address)
        presented = presented_key(headers, subprotocols)
        key = self.keyring.find(presented)
        if key is not None:
            return Caller(key, address)
        if presented is None:
            malformed = tries_a_key(headers, subprotocols)
            self._count("malformed" if malformed else "missing")
        else:
            self._count("unknown")
            if not await self.wrong_keys.slow(address):
                raise self._crowded()
        raise unauthorised("found no valid API key, expected the header Authorization: Bearer KEY")

    def check(self, caller: Caller) -> None:
        """Raise RefusedError where the caller's key was revoked since it was admitted."""
        if caller.key is not None and not self.keyring.holds(caller.key):
            raise revoked()

    def _count(self, reason: Reason) -> None:
        self._failures.labels(reason).inc()

    def _crowded(self) -> RefusedError:
        return RefusedError(
            "capacity",
            f"found {self.wrong_keys.waiting} connections that wait after a wrong API key, "
            "expected fewer; try again later",
            close_code=protocol.CLOSE_CAPACITY,
            retry_after_ms=int(LONGEST_DELAY_S * 1000),
        )


def unauthorised(message: str) -> RefusedError:
    """Return why somebody without a key is not let in."""
    return RefusedError("unauthorised", message, close_code=protocol.CLOSE_UNAUTHORISED)


def revoked() -> RefusedError:
    """Return why the session of a key that was revoked ends."""
    return unauthorised("found that the API key of this session was revoked, expected a valid one")
