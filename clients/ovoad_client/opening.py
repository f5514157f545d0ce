"""Build the first message of a session, send it, and read its answer. Knows no frames."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ovoad_client.connection import explain_close, server_name
from ovoad_client.errors import (
    BrokenError,
    RefusedError,
    SilenceError,
    UnauthorisedError,
    UsageError,
)
from ovoad_client.protocol import (
    CLOSE_PROTOCOL,
    Error,
    EventSettings,
    Policy,
    ProtocolError,
    ScorerName,
    SessionCreate,
    SessionCreated,
    Vocabulary,
    describe,
    parse_server_message,
)

Tap = Callable[[str], None]


def build_vocabulary(
    labels: Sequence[str], templates: Sequence[str] | None, background: Sequence[str] | None
) -> Vocabulary:
    """Return the checked words; raises UsageError with the wire contract's own text."""
    try:
        return Vocabulary(
            labels=list(labels),
            templates=None if templates is None else list(templates),
            background=None if background is None else list(background),
        )
    except ValidationError as error:
        raise UsageError(_complaint(error)) from error


def build_session_create(
    vocabulary: Vocabulary,
    policy: Policy,
    scorer: ScorerName | None,
    top_k: int | None,
    events: EventSettings | None,
) -> SessionCreate:
    """Return the checked first message; raises UsageError."""
    try:
        return SessionCreate(
            vocabulary=vocabulary, policy=policy, scorer=scorer, top_k=top_k, events=events
        )
    except ValidationError as error:
        raise UsageError(_complaint(error)) from error


def _complaint(error: ValidationError) -> str:
    """Return the wire contract's own text; the place is told only inside the words."""
    return describe(error).removeprefix("message: ")


async def open_session(
    socket: ClientConnection,
    create: SessionCreate,
    timeout_s: float,
    tap: Tap | None,
    *,
    key_given: bool,
) -> SessionCreated:
    """Send session.create and return the answer; raises RefusedError, UnauthorisedError …"""
    try:
        async with asyncio.timeout(timeout_s):
            with contextlib.suppress(ConnectionClosed):  # why, was perhaps said before
                await socket.send(create.to_json())
            text = await socket.recv(decode=True)
            message = parse_server_message(text)
    except TimeoutError:
        raise SilenceError(f"waited {timeout_s:g} s for session.created") from None
    except ConnectionClosed as error:
        raise explain_close(error, socket, key_given=key_given) from error
    except ProtocolError as error:
        raise contract_error(error) from error
    if tap is not None:
        tap(text)
    if isinstance(message, Error) and message.code == "unauthorised":
        raise UnauthorisedError(server_name(socket), key_given=key_given)
    if isinstance(message, Error):
        raise RefusedError(message.code, message.message, retry_after_ms=message.retry_after_ms)
    if not isinstance(message, SessionCreated):
        raise BrokenError(
            f"found {message.type} as the first message, expected session.created",
            close_code=CLOSE_PROTOCOL,
        )
    if message.resumed and message.next_seq is None:
        raise contract_error("found a resumed session.created without next_seq")
    return message


def contract_error(reason: object) -> BrokenError:
    """Return the error of a server that breaks the wire contract; connecting again is no help."""
    return BrokenError(
        f"found a server message out of contract: {reason}", close_code=CLOSE_PROTOCOL
    )
