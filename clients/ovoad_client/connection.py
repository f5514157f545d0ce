"""Open a WebSocket to a server, and turn its failures into errors that say what to do."""

import socket as sockets
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
)
from websockets.typing import Subprotocol

from ovoad_client.address import is_loopback, stream_address
from ovoad_client.errors import (
    BrokenError,
    ClientError,
    UnauthorisedError,
    UnreachableError,
    UsageError,
)
from ovoad_client.protocol import (
    CLOSE_CAPACITY,
    CLOSE_PROTOCOL,
    CLOSE_RESTART,
    CLOSE_SERVER_FAULT,
    CLOSE_TOO_LARGE,
    CLOSE_UNAUTHORISED,
    SUBPROTOCOL,
)

MAX_MESSAGE_BYTES: Final = 16 * 2**20  # a prediction of 10,000 labels has under 1 MiB
_CLOSE_TIMEOUT_S: Final = 2.0
_CLOSE_MEANINGS: Final = {
    CLOSE_PROTOCOL: "breach of the protocol",
    CLOSE_TOO_LARGE: "message too large",
    CLOSE_SERVER_FAULT: "fault in the server",
    CLOSE_RESTART: "the server restarts",
    CLOSE_CAPACITY: "the server is full",
}


async def open_connection(url: str, *, api_key: str | None, timeout_s: float) -> ClientConnection:
    """Return an open WebSocket; raises UsageError, UnreachableError or UnauthorisedError."""
    address = stream_address(url)
    if not all("!" <= character <= "~" for character in api_key or ""):
        raise UsageError(
            "found an API key with blanks or unusual characters, expected printable ASCII"
        )
    try:
        return await websocket_connect(
            address,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
            compression=None,  # images are compressed already
            proxy=None if is_loopback(address) else True,
            open_timeout=timeout_s,
            close_timeout=_CLOSE_TIMEOUT_S,
            ping_timeout=None,  # a pong waits behind lossless frames that the server reads later
            max_size=MAX_MESSAGE_BYTES,
        )
    except TimeoutError as error:
        raise UnreachableError(address, f"no answer within {timeout_s:g} s") from error
    except InvalidStatus as error:
        raise _explain_status(error, address, key_given=bool(api_key)) from error
    except (InvalidMessage, InvalidHandshake, InvalidURI) as error:
        raise UnreachableError(address, f"found no WebSocket server there ({error})") from error
    except OSError as error:
        raise UnreachableError(address, _explain_os_error(error)) from error


def explain_close(
    error: ConnectionClosed, socket: ClientConnection, *, key_given: bool, detail: str = ""
) -> ClientError:
    """Say what a connection that closed without session.closed means."""
    host = server_name(socket)
    frame = error.rcvd
    if frame is None:
        return BrokenError(f"connection to {host} broke{detail}")
    if frame.code == CLOSE_UNAUTHORISED:
        return UnauthorisedError(host, key_given=key_given)
    meaning = frame.reason or _CLOSE_MEANINGS.get(frame.code, "no reason given")
    return BrokenError(
        f"{host} closed the connection: {meaning} ({frame.code}){detail}", close_code=frame.code
    )


def server_name(socket: ClientConnection) -> str:
    """Return HOST:PORT as the connection was asked for."""
    return socket.request.headers.get("Host", "the server") if socket.request else "the server"


def _explain_status(error: InvalidStatus, address: str, *, key_given: bool) -> ClientError:
    status = error.response.status_code
    if status in (401, 403):
        return UnauthorisedError(address, key_given=key_given)
    if status == 503:
        return UnreachableError(address, "the server is full or not ready (HTTP 503), try later")
    return UnreachableError(
        address, f"found HTTP status {status}, expected a WebSocket at this address"
    )


def _explain_os_error(error: OSError) -> str:
    if _is_refused(error):
        return "connection refused; is the server running? start it with: ovoad serve"
    if isinstance(error, sockets.gaierror):
        return "found no such host name"
    return str(error.strerror or error)


def _is_refused(error: OSError) -> bool:
    """Tell a refused connection, also when several addresses of one name were tried."""
    return isinstance(error, ConnectionRefusedError) or "refused" in str(error).lower()
