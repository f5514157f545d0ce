"""What a handshake says of who comes: the key presented, and the origin of a page. Knows no key."""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

KEY_SUBPROTOCOL: Final = "ovoad.key."
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def presented_key(headers: Mapping[str, str], subprotocols: Sequence[str] = ()) -> bytes | None:
    """Return the key that a request presents, None where there is none that can be read.

    Programs send it as a bearer token, which goes first. Pages cannot set headers on a WebSocket:
    they offer the subprotocol `ovoad.key.` + the key in unpadded base64url, never echoed.
    """
    return _bearer(headers) or _offered(subprotocols) or None


def tries_a_key(headers: Mapping[str, str], subprotocols: Sequence[str] = ()) -> bool:
    """Tell whether a request means to present a key, readable or not."""
    return "authorization" in headers or any(
        offered.startswith(KEY_SUBPROTOCOL) for offered in subprotocols
    )


def _bearer(headers: Mapping[str, str]) -> bytes | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip().encode() if scheme.lower() == "bearer" else None


def _offered(subprotocols: Sequence[str]) -> bytes | None:
    for offered in subprotocols:
        if offered.startswith(KEY_SUBPROTOCOL):
            text = offered.removeprefix(KEY_SUBPROTOCOL)
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            except (binascii.Error, ValueError):
                return None
    return None


def origin_allowed(headers: Mapping[str, str], allowed: Iterable[str], *, bound: str) -> bool:
    """Tell whether a browser's page may connect: our own host's, or one of `allowed`.

    A server bound to loopback takes loopback names alone, so that a foreign name that is made to
    point here (DNS rebinding) is no way in. Programs send no Origin and pass; the key is what
    guards against them.
    """
    origin = headers.get("origin")
    if origin is None:
        return True
    if origin in set(allowed):
        return True
    try:
        page = urlsplit(origin)
        name = page.hostname
    except ValueError:  # not an address at all
        return False
    if bound in LOOPBACK and name not in LOOPBACK:
        return False
    return page.netloc != "" and page.netloc == headers.get("host")
