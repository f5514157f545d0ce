"""The open connection itself: what its keepalive bears."""

import asyncio
import functools
from typing import TYPE_CHECKING

import pytest
from websockets.asyncio.client import connect as websocket_connect

from ovoad_client import connection
from ovoad_client.connection import open_connection

if TYPE_CHECKING:
    from tests.clients.conftest import FakeServer

INTERVAL_S = 0.02
PINGS_WITHOUT_PONG = 10  # ten timeouts of the hurried keepalive


async def test_server_that_reads_no_further_for_long_is_not_taken_for_dead(
    server: "FakeServer", monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried = functools.partial(
        websocket_connect, ping_interval=INTERVAL_S, ping_timeout=INTERVAL_S
    )
    monkeypatch.setattr(connection, "websocket_connect", hurried)
    socket = await open_connection(server.url, api_key=None, timeout_s=5)
    async with socket, asyncio.timeout(5):
        server.sockets[0].transport.pause_reading()
        while len(socket.pending_pings) < PINGS_WITHOUT_PONG:
            await asyncio.sleep(INTERVAL_S)
        server.sockets[0].transport.resume_reading()
        await (await socket.ping())
