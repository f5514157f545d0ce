"""Checks of addresses and secrets that settings bring. No text of an error repeats them."""

import base64
import string
from typing import Final
from urllib.parse import urlsplit

SECRET_PREFIX: Final = "whsec_"
_PRINTABLE: Final = frozenset(string.printable) - frozenset(string.whitespace)


def secret_bytes(secret: str) -> bytes:
    """Return the key in a secret, `whsec_` and base64 of 24 to 64 bytes; raises ValueError."""
    expected = "expected whsec_ followed by base64 of 24 to 64 random bytes"
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError as error:
        raise ValueError(f"found a webhook secret that is not base64, {expected}") from error
    if not 24 <= len(key) <= 64:
        raise ValueError(f"found a webhook secret of {len(key)} bytes, {expected}")
    return key


def check_webhook_url(url: str) -> None:
    """Raise ValueError for what is no http or https address that can be posted to."""
    _check(url, ("http", "https"), "a webhook address", "https://host/path")


def check_mqtt_url(url: str) -> None:
    """Raise ValueError for what is no mqtt or mqtts address of a broker."""
    example = "mqtt://host:1883 or mqtts://host:8883"
    _check(url, ("mqtt", "mqtts"), "a broker's address", example)
    if urlsplit(url).path not in ("", "/") or urlsplit(url).query:
        raise ValueError(f"found a broker's address with a path, expected {example}")


def _check(url: str, schemes: tuple[str, ...], what: str, example: str) -> None:
    expected = f"expected one like {example}"
    if not url or not set(url) <= _PRINTABLE:
        raise ValueError(f"found {what} that is not printable ASCII without blanks, {expected}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"found {what} that cannot be read, {expected}") from None
    if parts.scheme not in schemes or not parts.hostname or port == 0 or parts.fragment:
        raise ValueError(f"found {what} of another form, {expected}")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"found {what} with a user name in it, {expected}")
