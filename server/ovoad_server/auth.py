"""Who may connect: the API key in constant time, and the origin of pages. Knows no routes."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

KEY_SUBPROTOCOL: Final = "ovoad.key."
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def key_matches(
    headers: Mapping[str, str], expected_key: str | None, *, subprotocols: Sequence[str] = ()
) -> bool:
    """Tell whether a request carries the key; always true without one.

    Programs send it as a bearer token. Pages cannot set headers on a WebSocket: they offer the
    subprotocol `ovoad.key.` + the key in unpadded base64url, which is never echoed.
    """
    if expected_key is None:
        return True
    found = _bearer(headers) or _offered(subprotocols) or b""
    return hmac.compare_digest(
        hashlib.sha256(found).digest(), hashlib.sha256(expected_key.encode()).digest()
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
