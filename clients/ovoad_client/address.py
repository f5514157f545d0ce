"""The forms in which a server's address may be written. Knows no connection."""

import ipaddress
from typing import Final
from urllib.parse import SplitResult, urlsplit

from ovoad_client.errors import UsageError

STREAM_PATH: Final = "/v1/stream"
DEFAULT_URL: Final = "ws://127.0.0.1:8000"
_EXPECTED: Final = "expected ws://HOST:PORT/v1/stream, http://HOST:PORT or HOST:PORT"
_WEBSOCKET_SCHEMES: Final = {"ws": "ws", "http": "ws", "wss": "wss", "https": "wss"}


def stream_address(url: str) -> str:
    """Return the WebSocket address of a server; raises UsageError.

    Takes ws://host:port/v1/stream, http://host:port and host:port; wss and https stay encrypted;
    a path other than the bare "/" is kept (a proxy may serve the stream elsewhere).
    """
    parts = _split(url)
    path = STREAM_PATH if parts.path in ("", "/") else parts.path
    return f"{_WEBSOCKET_SCHEMES[parts.scheme]}://{parts.netloc}{path}"


def is_loopback(address: str) -> bool:
    """Tell whether an address names this machine, so that no proxy stands between."""
    host = urlsplit(address).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(url: str) -> SplitResult:
    full = url if "://" in url else f"ws://{url}"
    try:
        parts = urlsplit(full)
        _ = parts.port  # parsed only when asked for
    except ValueError as error:
        raise UsageError(f"found server address {url!r} ({error}), {_EXPECTED}") from error
    if parts.scheme not in _WEBSOCKET_SCHEMES or not parts.hostname:
        raise UsageError(f"found server address {url!r}, {_EXPECTED}")
    if parts.username is not None:
        raise UsageError("found a user name in the server address, expected the key in --api-key")
    return parts
