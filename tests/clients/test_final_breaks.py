"""Tests of the ends of a connection: which bring the stream back, which are final; of closing."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import pytest
import websockets

from ovoad_client.client import connect
from ovoad_client.errors import BrokenError, ClientError, RefusedError, UnauthorisedError
from ovoad_client.notices import Reconnected, Reconnecting, StreamMessage
from ovoad_client.opening import build_session_create, build_vocabulary, open_session
from ovoad_client.protocol import (
    Error,
    GoAway,
    SessionCreated,
)
from ovoad_client.reconnecting import Reconnect

from .scripted import AT_ONCE, LABELS, Peer, ends, kinds, playing, read_all, send, session_closed


async def breaks_with_a_frame(peer: Peer) -> None:
    await peer.open()
    await peer.expect_frames(0)
    await peer.cut()


async def test_restart_after_goaway_goes_on_by_itself() -> None:
    async def restarts(peer: Peer) -> None:
        await peer.open()
        await peer.say(GoAway(reason="restart", time_left_ms=5000))
        await peer.expect_frames(0)
        await peer.predict(0)
        await peer.say(session_closed("restart", received=1, predicted=1))
        await peer.socket.close(1012, "restart")

    async def still_restarts(peer: Peer) -> None:
        await peer.refuse("restarting", 1012, retry_after_ms=1)

    async def begins_anew(peer: Peer) -> None:
        await peer.open()
        await peer.expect_frames(1)
        await peer.predict(1)
        await peer.end(received=1, predicted=1)

    async with (
        playing(restarts, still_restarts, begins_anew) as server,
        connect(server.url, LABELS, reconnect=AT_ONCE) as stream,
    ):
        assert isinstance(await anext(stream), GoAway)
        await send(stream, 0)
        while not isinstance(await anext(stream), Reconnected):
            pass
        await send(stream, 1)
        closed = await stream.close()
        messages, _ = await read_all(stream)
    assert kinds(messages) == ["prediction", "session.closed"]
    assert stream.counts.differences(closed) == []
    assert stream.counts.predicted == 2


async def test_restart_ends_a_stream_that_may_not_reconnect() -> None:
    async def restarts(peer: Peer) -> None:
        await peer.open()
        await peer.say(session_closed("restart", received=0, predicted=0))
        await peer.socket.close(1012, "restart")

    async with (
        playing(restarts) as server,
        connect(server.url, LABELS, reconnect=None) as stream,
    ):
        messages, failure = await read_all(stream)
    assert (kinds(messages), failure) == (["session.closed"], None)


async def test_capacity_is_asked_again_until_there_is_room() -> None:
    async def breaks(peer: Peer) -> None:
        await peer.open()
        await peer.cut()

    async def is_full(peer: Peer) -> None:
        await peer.refuse("capacity", 1013, retry_after_ms=20)

    async def has_room(peer: Peer) -> None:
        await peer.open()
        await peer.end(received=0, predicted=0)

    unready = HTTPStatus.SERVICE_UNAVAILABLE
    async with (
        playing(breaks, unready, is_full, is_full, has_room) as server,
        connect(server.url, LABELS, reconnect=AT_ONCE) as stream,
    ):
        messages: list[StreamMessage] = []
        while not messages or not isinstance(messages[-1], Reconnected):
            messages.append(await anext(stream))
    waits = [message for message in messages if isinstance(message, Reconnecting)]
    assert [(wait.attempt, wait.wait_s) for wait in waits] == [
        *((1, 0.0), (2, 0.0)),
        *((3, 0.02), (4, 0.02)),
    ]
    assert "the server is full or not ready" in waits[1].why
    assert waits[2].why == "server refused: the script says capacity (capacity)"


async def test_time_is_up_and_the_last_reason_is_told() -> None:
    patience = Reconnect(first_s=0.01, longest_s=1.0, give_up_s=0.04)
    unready = HTTPStatus.SERVICE_UNAVAILABLE
    async with playing(breaks_with_a_frame, unready, *[unready] * 5) as server:
        async with connect(server.url, LABELS, reconnect=patience) as stream:
            await send(stream, 0)
            messages, failure = await read_all(stream)
            with pytest.raises(BrokenError, match="gave up reconnecting"):
                await stream.send(b"x", timestamp_ms=99)
        server.played = len(server.scripts)
    assert isinstance(failure, BrokenError)
    assert "the server is full or not ready (HTTP 503), try later" in str(failure)
    assert ends(messages) == [0]
    assert stream.counts.lost == 1


async def test_wrong_key_is_not_tried_again() -> None:
    async def wants_a_key(peer: Peer) -> None:
        await peer.refuse("unauthorised", 4401)

    async with (
        playing(breaks_with_a_frame, wants_a_key) as server,
        connect(server.url, LABELS, policy="lossless", reconnect=AT_ONCE) as stream,
    ):
        await send(stream, 0)
        messages, failure = await read_all(stream)
    assert isinstance(failure, UnauthorisedError)
    assert kinds(messages) == ["client.reconnecting", "client.frames_lost"]


@pytest.mark.parametrize("code", [1008, 1009, 4401])
async def test_close_codes_that_no_attempt_can_mend(code: int) -> None:
    async def hangs_up(peer: Peer) -> None:
        await peer.open()
        await peer.socket.close(code)

    async with (
        playing(hangs_up) as server,
        connect(server.url, LABELS, reconnect=AT_ONCE) as stream,
    ):
        messages, failure = await read_all(stream)
    assert messages == []
    assert isinstance(failure, BrokenError | UnauthorisedError)


async def test_superseded_stream_leaves_the_session_to_the_other() -> None:
    async def is_taken_over(peer: Peer) -> None:
        await peer.open()
        await peer.refuse("superseded", 1008)

    async with (
        playing(is_taken_over) as server,
        connect(server.url, LABELS, reconnect=AT_ONCE) as stream,
    ):
        messages, failure = await read_all(stream)
    assert kinds(messages) == ["error"]
    assert isinstance(failure, RefusedError)
    assert failure.code == "superseded"
    assert str(failure).startswith("another client took the session over: ")


async def test_resumed_session_without_next_seq_breaks_the_contract() -> None:
    async def forgets_next_seq(peer: Peer) -> None:
        await peer.say(
            SessionCreated.model_validate_json(
                '{"session_id":"s1","model":{"encoder":"e","scorer":"frame","fingerprint":"f"},'
                '"labels":["a"],"vocabulary_version":1,"policy":"realtime","limits":'
                '{"max_frame_bytes":1,"max_pixels":1,"max_labels":1,"max_inflight":1,"max_fps":1.0,'
                '"idle_timeout_ms":1,"max_session_ms":1},"window":{"fps":4.0,"past":24,'
                '"neighbours":8},"resume_token":"t","resumed":true}'
            )
        )

    async with (
        playing(breaks_with_a_frame, forgets_next_seq) as server,
        connect(server.url, LABELS, reconnect=AT_ONCE) as stream,
    ):
        await send(stream, 0)
        _, failure = await read_all(stream)
    assert "found a resumed session.created without next_seq" in str(failure)


async def test_break_while_closing_still_ends_in_order() -> None:
    async def breaks_at_the_end(peer: Peer) -> None:
        await peer.open()
        await peer.expect_frames(0, 1)
        await peer.hear()
        await peer.cut()

    async def closes(peer: Peer) -> None:
        await peer.open(next_seq=1)
        await peer.predict(0)
        await peer.expect_frames(1)
        await peer.predict(1)
        await peer.end(received=2, predicted=2)

    async with (
        playing(breaks_at_the_end, HTTPStatus.SERVICE_UNAVAILABLE, closes) as server,
        connect(server.url, LABELS, policy="lossless", reconnect=AT_ONCE) as stream,
    ):
        await send(stream, 0, 1)
        closed = await stream.close()
    assert (closed.reason, stream.counts.predicted) == ("closed by client", 2)
    assert stream.counts.differences(closed) == []


async def test_close_while_backing_off_tries_once_and_at_once() -> None:
    patience = Reconnect(first_s=1000.0, longest_s=1000.0, give_up_s=10_000.0)
    unready = HTTPStatus.SERVICE_UNAVAILABLE
    async with (
        playing(breaks_with_a_frame, unready) as server,
        connect(server.url, LABELS, reconnect=patience) as stream,
    ):
        await send(stream, 0)
        assert isinstance(await anext(stream), Reconnecting)
        assert not stream.connected
        with pytest.raises(ClientError, match="full or not ready"):
            await stream.close()
    assert stream.counts.lost == 1


async def test_cancelled_while_backing_off_ends_at_once() -> None:
    patience = Reconnect(first_s=1000.0, longest_s=1000.0, give_up_s=10_000.0)
    waiting = asyncio.Event()

    async def watch(url: str) -> None:
        async with connect(url, LABELS, reconnect=patience) as stream:
            await send(stream, 0)
            assert isinstance(await anext(stream), Reconnecting)
            waiting.set()
            await send(stream, 1)  # waits for a connection

    async with playing(breaks_with_a_frame) as server:
        watching = asyncio.create_task(watch(server.url))
        await waiting.wait()
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching


async def test_refusal_that_came_before_the_first_message_is_told_with_its_reason() -> None:
    async def refuse(socket: websockets.ServerConnection) -> None:
        refusal = Error(
            code="capacity", message="full", fatal=True, transient=True, retry_after_ms=1234
        )
        await socket.send(refusal.to_json())
        await socket.close(1013, "capacity")

    create = build_session_create(
        build_vocabulary(LABELS, None, None), "realtime", None, None, None
    )
    async with websockets.serve(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with websockets.connect(f"ws://127.0.0.1:{port}") as socket:
            await socket.wait_closed()
            with pytest.raises(RefusedError, match="full") as refused:
                await open_session(socket, create, 5.0, None, key_given=False)
    assert refused.value.retry_after_ms == 1234
