"""Signals to a real server process: who is answered, how it ends, and how soon."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection as AsyncClientConnection
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from ovoad_client import protocol

from .real_server import (
    WAIT_S,
    RealServer,
    faults,
    hear,
    photo,
    say,
    start_server,
    stop_server,
    websocket_frame,
)

pytestmark = pytest.mark.slow
DRAIN_S = 6.0
LONG_S = 60.0
SLACK_S = 4.0

Start = Callable[..., RealServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start servers that end with the test."""
    started: list[RealServer] = []

    def start_one(**settings: object) -> RealServer:
        server = start_server(tmp_path, **settings)
        started.append(server)
        return server

    yield start_one
    for server in started:
        stop_server(server)


def ends_within(server: RealServer, limit_s: float) -> None:
    """The server ends by itself, in order, in time."""
    began_s = time.monotonic()
    assert server.process.wait(WAIT_S) == 0
    assert time.monotonic() - began_s <= limit_s
    assert faults(server) == []


class Streaming:
    """A lossless session that sends frames and gathers messages until the server closes it."""

    def __init__(self, client: AsyncClientConnection) -> None:
        self.client = client
        self.messages: list[protocol.ServerMessage] = []

    async def run(self) -> None:
        """Stream until the connection ends."""
        create = protocol.SessionCreate(
            vocabulary=protocol.Vocabulary(labels=["a person cooking"]), policy="lossless"
        )
        await self.client.send(create.to_json())
        sending = asyncio.create_task(self._send())
        with contextlib.suppress(ConnectionClosed):
            while True:
                text = await self.client.recv(decode=True)
                self.messages.append(protocol.parse_server_message(text))
        await sending

    async def _send(self) -> None:
        image = photo()
        with contextlib.suppress(ConnectionClosed):
            for seq in range(1_000_000):
                await self.client.send(protocol.pack_frame(seq, seq * 250, image))

    def check(self) -> None:
        """Every frame that the server counts was predicted; then it said goodbye in order."""
        kinds = [message.type for message in self.messages]
        assert kinds.count("goaway") == 1
        closed = self.messages[-1]
        assert isinstance(closed, protocol.SessionClosed)
        answers = [
            m for m in self.messages if isinstance(m, protocol.Prediction | protocol.FrameDropped)
        ]
        assert sorted(answer.seq for answer in answers) == list(range(closed.received))
        assert closed.reason == "restart"
        assert closed.predicted == closed.received - closed.dropped.stale
        assert closed.dropped.stale == kinds.count("frame.dropped")
        assert "prediction" in kinds[kinds.index("goaway") :], "served on after the announcement"
        assert self.client.close_code == protocol.CLOSE_RESTART


async def test_sigterm_under_load_answers_all_and_ends_in_time(start: Start) -> None:
    server = start(drain_s=DRAIN_S, promised_fps=0)
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        streams = []
        for _ in range(8):
            client = await connect(f"ws://{server.address}/v1/stream", proxy=None)
            streams.append(Streaming(client))
            tasks.create_task(streams[-1].run())
        while any(len(stream.messages) < 3 for stream in streams):
            await asyncio.sleep(0.02)
        with server.connect() as silent:
            assert (await asyncio.to_thread(server.get, "/readyz")).status_code == 200
            server.signal(signal.SIGTERM)
            began_s = time.monotonic()
            await asyncio.to_thread(refused_for_a_restart, silent)
        with await asyncio.to_thread(server.connect) as newcomer:
            await asyncio.to_thread(refused_for_a_restart, newcomer)
        assert (await asyncio.to_thread(server.get, "/readyz")).status_code == 503
        assert (await asyncio.to_thread(server.get, "/healthz")).status_code == 200
        assert time.monotonic() - began_s < DRAIN_S / 2, "all that while sessions are served on"
        assert await asyncio.to_thread(server.process.wait, WAIT_S) == 0
        assert time.monotonic() - began_s <= DRAIN_S + SLACK_S
    for stream in streams:
        stream.check()
    assert faults(server) == []


def refused_for_a_restart(client: ClientConnection) -> None:
    """The server says that it is about to stop, and closes."""
    refused = hear(client)
    assert isinstance(refused, protocol.Error)
    assert (refused.code, refused.fatal, refused.transient) == ("restarting", True, True)
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=WAIT_S)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == protocol.CLOSE_RESTART


def test_second_sigterm_ends_the_wait(start: Start) -> None:
    server = start(drain_s=LONG_S)
    with server.session() as client:
        server.signal(signal.SIGTERM)
        assert isinstance(hear(client), protocol.GoAway)
        server.signal(signal.SIGTERM)
        ends_within(server, SLACK_S)


def test_interrupt_ends_without_the_wait_and_idle_sigterm_at_once(start: Start) -> None:
    interrupted, idle = start(drain_s=LONG_S), start(drain_s=LONG_S)
    idle.signal(signal.SIGTERM)
    ends_within(idle, SLACK_S)
    with interrupted.session() as client:
        interrupted.signal(signal.SIGINT)
        assert hear(client) == protocol.GoAway(reason="restart", time_left_ms=0)
        last = hear(client)
        assert isinstance(last, protocol.SessionClosed)
        ends_within(interrupted, SLACK_S)


def test_client_that_takes_nothing_does_not_hold_up_the_end(start: Start) -> None:
    server = start(drain_s=DRAIN_S, promised_fps=0, send_timeout_s=LONG_S)
    vocabulary = protocol.Vocabulary(labels=[f"{number} " + "x" * 250 for number in range(200)])
    update = protocol.VocabularyUpdate(vocabulary=vocabulary).to_json()
    with server.raw_session() as deaf, server.session() as client:
        deaf.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            for _ in range(1000):
                deaf.sendall(websocket_frame(update.encode(), opcode=1))
        say(client, protocol.Ping())
        assert isinstance(hear(client), protocol.Pong)
        server.signal(signal.SIGTERM)
        ends_within(server, DRAIN_S + SLACK_S)
