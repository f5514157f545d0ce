"""Connect to a server: the client's front door."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

from ovoad_client.link import Target, open_link
from ovoad_client.opening import Tap, build_session_create, build_vocabulary
from ovoad_client.protocol import EventSettings, Policy, ScorerName
from ovoad_client.reconnecting import Reconnect
from ovoad_client.stream import Stream

__all__ = ["Reconnect", "Stream", "connect"]

_RECONNECT: Final = Reconnect()


@contextlib.asynccontextmanager
async def connect(
    url: str,
    labels: Sequence[str],
    *,
    templates: Sequence[str] | None = None,
    background: Sequence[str] | None = None,
    policy: Policy = "realtime",
    scorer: ScorerName | None = None,
    top_k: int | None = None,
    events: EventSettings | None = None,
    api_key: str | None = None,
    open_timeout_s: float = 10.0,
    timeout_s: float = 30.0,
    tap: Tap | None = None,
    reconnect: Reconnect | None = _RECONNECT,
) -> AsyncIterator[Stream]:
    """Open a session and yield its Stream; leaving the block closes the session.

    url: ws://host:port/v1/stream, http://host:port or host:port. timeout_s bounds every wait for
    an answer that is due. tap is called with the text of session.created, then with that of each
    message that the stream yields. reconnect says how to come back after a break; None: never.
    The first connection is tried once.

    Raises UsageError, UnreachableError, UnauthorisedError, RefusedError, BrokenError, SilenceError;
    on leaving, the session's failure where nothing inside the block has met it.
    """
    vocabulary = build_vocabulary(labels, templates, background)
    create = build_session_create(vocabulary, policy, scorer, top_k, events)
    target = Target(url, api_key, open_timeout_s, timeout_s, tap)
    link = await open_link(target, create)
    stream = Stream(link, target, create, reconnect)
    carrying = asyncio.create_task(stream.carry_until_end(link), name="ovoad stream")
    try:
        yield stream
        if not stream.failure_told:
            await stream.close()
    finally:
        carrying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await carrying
