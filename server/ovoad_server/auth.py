"""Who may connect: the API key in constant time, and the origin of pages. Knows no routes."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit


def key_matches(headers: Mapping[str, str], expected_key: str | None) -> bool:
    """Tell whether the headers carry the key as a bearer token; always true without a key."""
    if expected_key is None:
        return True
    scheme, _, token = headers.get("authorization", "").partition(" ")
    found = hashlib.sha256(token.strip().encode()).digest()
    expected = hashlib.sha256(expected_key.encode()).digest()
    return hmac.compare_digest(found, expected) and scheme.lower() == "bearer"


def origin_allowed(headers: Mapping[str, str], allowed: Iterable[str]) -> bool:
    """Tell whether a browser's page may connect: our own host's, or one of `allowed`.

    Programs send no Origin and pass; the key is what guards against them.
    """
    origin = headers.get("origin")
    if origin is None:
        return True
    return origin in set(allowed) or urlsplit(origin).netloc == headers.get("host")
