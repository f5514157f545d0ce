"""A webhook: one signed POST an event, as the Standard Webhooks specification has it.

https://www.standardwebhooks.com. Follows no redirect; TLS is verified against the system's
authorities, or those of SSL_CERT_FILE.
"""

import base64
import contextlib
import email.utils
import hashlib
import hmac
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable
from email.message import Message
from typing import Final
from urllib.parse import urlsplit

from ovoad_server.outward.courier import Delivered, NotNow, Outcome, Refused
from ovoad_server.outward.reason import reason
from ovoad_server.outward.store import QueuedEvent

TIMEOUT_S: Final = 10.0  # to connect, and for each wait after that
WHOLE_TIMEOUT_S: Final = 20.0  # from connecting to the end of the answer
MOST_ANSWER_BYTES: Final = 64 * 1024
LONGEST_RETRY_AFTER_S: Final = 3600.0
JUDGED: Final = frozenset({400, 413, 415, 422})  # statuses that concern this very body


def signature(key: bytes, identifier: str, timestamp_s: int, body: bytes) -> str:
    """Return the header webhook-signature: HMAC-SHA256 of identifier, time and body."""
    signed = f"{identifier}.{timestamp_s}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


class Webhook:
    """Posts events to one address, over one connection as long as more of them wait."""

    name = "webhook"

    def __init__(
        self,
        url: str,
        key: bytes | None,
        *,
        timeout_s: float = TIMEOUT_S,
        whole_timeout_s: float = WHOLE_TIMEOUT_S,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """Take a checked http or https address; without a key nothing is signed."""
        parts = urlsplit(url)
        assert parts.hostname is not None, "settings check the address"
        self.place = f"{parts.scheme}://{parts.netloc}"
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._key = key
        self._whole_timeout_s = whole_timeout_s
        self._now_s = now_s
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            self._connection = http.client.HTTPSConnection(
                parts.hostname,
                parts.port,
                timeout=timeout_s,
                context=ssl.create_default_context(),
            )
        else:
            self._connection = http.client.HTTPConnection(
                parts.hostname, parts.port, timeout=timeout_s
            )

    def send(self, event: QueuedEvent) -> Outcome:
        """Post one event; only a 2xx counts as taken."""
        watch = threading.Timer(self._whole_timeout_s, self.abort)
        watch.daemon = True
        watch.start()
        try:
            self._connection.request("POST", self._target, event.body, self._headers(event))
            response = self._connection.getresponse()
            status, headers = response.status, response.headers
            self._read(response)
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            self._connection.close()
            return NotNow(reason(error))
        finally:
            watch.cancel()
        return _judge(status, headers, self._now_s())

    def rest(self) -> Outcome:
        """Nothing waits: hold no connection open."""
        self._connection.close()
        return Delivered()

    def abort(self) -> None:
        """Cut the connection under a request."""
        taken = self._connection.sock
        if taken is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(taken, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _headers(self, event: QueuedEvent) -> dict[str, str]:
        timestamp_s = int(self._now_s())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "ovoad",
            "webhook-id": event.id,
            "webhook-timestamp": str(timestamp_s),
        }
        if self._key is not None:
            headers["webhook-signature"] = signature(self._key, event.id, timestamp_s, event.body)
        return headers

    def _read(self, response: http.client.HTTPResponse) -> None:
        """Read an answer away, so that the connection can be used again; its status is known."""
        try:
            rest = response.read(MOST_ANSWER_BYTES)
        except (OSError, http.client.HTTPException):
            rest = b""
        if len(rest) == MOST_ANSWER_BYTES or not response.isclosed():
            self._connection.close()


def _judge(status: int, headers: Message, now_s: float) -> Outcome:
    if 200 <= status < 300:
        return Delivered()
    if 300 <= status < 400:
        return NotNow(f"HTTP {status}: redirects are not followed")
    if status in JUDGED:
        return Refused(f"HTTP {status}")
    return NotNow(f"HTTP {status}", retry_after_s(headers.get("Retry-After"), now_s))


def retry_after_s(header: str | None, now_s: float) -> float:
    """Return the wait that a header asks for, in seconds or as a date; 0 where it says nothing."""
    if header is None:
        return 0.0
    if header.strip().isdecimal():
        return min(float(header), LONGEST_RETRY_AFTER_S)
    try:
        date_s = email.utils.parsedate_to_datetime(header).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(0.0, date_s - now_s), LONGEST_RETRY_AFTER_S)
