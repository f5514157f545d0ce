"""How connections end otherwise: silence, age, clients that vanish or do not read, faults."""

import asyncio
import contextlib
import logging

import pytest

from ovoad_client import protocol

from .harness import Client, ColourEncoder, Serve, occurs, picture, until

EMPTY = protocol.DroppedCounts()


# ---- time --------------------------------------------------------------------------------------


async def test_idle_session_is_closed_in_order(serve: Serve) -> None:
    async with serve(idle_timeout_s=0.2) as server, server.session() as client:
        assert await client.receive() == protocol.SessionClosed(
            reason="idle", received=0, predicted=0, dropped=EMPTY, errors=0
        )
        assert await client.ended() == (protocol.CLOSE_NORMAL, "idle")
        await server.is_empty()


async def test_session_past_its_time_is_closed_in_order(serve: Serve) -> None:
    async with serve(max_session_s=0.4) as server, server.session() as client:
        await client.frame(0)
        await client.expect(protocol.Prediction)
        assert await client.receive() == protocol.SessionClosed(
            reason="expired", received=1, predicted=1, dropped=EMPTY, errors=0
        )
        assert await client.ended() == (protocol.CLOSE_NORMAL, "expired")
        await server.is_empty()


async def test_session_that_never_pauses_expires_too(serve: Serve) -> None:
    async with serve(max_session_s=0.4) as server, server.session(policy="realtime") as client:
        flood = asyncio.create_task(send_without_end(client))
        closed = (await client.rest())[-1]
        assert isinstance(closed, protocol.SessionClosed)
        assert closed.reason == "expired"
        assert closed.received == closed.predicted + closed.dropped.busy + closed.dropped.rate
        flood.cancel()
        await asyncio.wait([flood])
        await server.is_empty()


async def send_without_end(client: Client) -> None:
    for seq in range(10**9):
        await client.frame(seq)
        await asyncio.sleep(0)


# ---- clients that vanish -----------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["realtime", "lossless"])
@pytest.mark.parametrize("moment", ["before create", "in create", "created", "frames", "words"])
async def test_client_that_vanishes_leaves_nothing(
    serve_undisturbed: Serve, encoder: ColourEncoder, moment: str, policy: str
) -> None:
    async with serve_undisturbed(max_inflight=2) as server:
        for _ in range(3):
            async with server.connect() as client:
                await vanish(client, encoder, moment, policy)
        encoder.hold.set()
        encoder.hold_text.set()
        await until(lambda: server.metric("ovoad_sessions_active") == 1)


async def vanish(client: Client, encoder: ColourEncoder, moment: str, policy: str) -> None:
    if moment == "in create":
        encoder.entered_text.clear()
        encoder.hold_text.clear()
        await client.send({"type": "session.create", "vocabulary": {"labels": ["red"]}})
        await asyncio.wait([asyncio.create_task(occurs(encoder.entered_text))], timeout=0.1)
    elif moment != "before create":
        await client.create(policy=policy)
    if moment == "frames":
        encoder.hold.clear()
        for seq in range(5):
            await client.frame(seq)
        encoder.hold.set()
    if moment == "words":
        await client.send(protocol.VocabularyUpdate(vocabulary=protocol.Vocabulary(labels=["x"])))
        await client.frame(0)
        await client.send(protocol.SessionClose())
    client.break_off()


async def test_client_that_says_goodbye_without_close_leaves_nothing(
    serve_undisturbed: Serve, encoder: ColourEncoder
) -> None:
    async with serve_undisturbed() as server, server.session() as client:
        encoder.entered.clear()
        encoder.hold.clear()
        await client.frame(0)
        await occurs(encoder.entered)
        closing = asyncio.create_task(client.socket.close())
        await until(lambda: server.metric("ovoad_sessions_active") == 1)
        encoder.hold.set()
        await closing


async def test_client_that_does_not_read_is_cut_off(serve_undisturbed: Serve) -> None:
    async with (
        serve_undisturbed(send_timeout_s=0.3) as server,
        server.session([f"a label with a long name {number}" for number in range(999)]) as client,
    ):
        client.socket.transport.pause_reading()
        sending = asyncio.create_task(send_without_end(client))
        await until(lambda: server.metric("ovoad_sessions_active") == 1)
        await until(lambda: len(server.server.server_state.connections) == 1)
        sending.cancel()
        await asyncio.wait([sending])
        client.break_off()


# ---- faults ------------------------------------------------------------------------------------


async def test_frame_that_hurts_the_model_is_told_and_the_session_goes_on(
    serve: Serve, encoder: ColourEncoder
) -> None:
    async with serve() as server, server.session() as client:
        encoder.fail_on = "green"
        await client.frame(0, picture("green"))
        assert await client.receive() == protocol.Error(
            code="internal",
            message="the model failed (RuntimeError)",
            fatal=False,
            transient=True,
            seq=0,
        )
        await client.frame(1)
        await client.expect(protocol.Prediction)


@pytest.mark.parametrize("when", ["create", "update"])
async def test_words_that_hurt_the_model_end_their_session_with_1011(
    serve: Serve, encoder: ColourEncoder, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    encoder.fail_on_text = "hurt"
    async with serve() as server, server.session() as neighbour:
        async with server.connect() as client:
            if when == "create":
                words = {"labels": ["hurt"]}
                await client.send({"type": "session.create", "vocabulary": words})
            else:
                await client.create()
                vocabulary = protocol.Vocabulary(labels=["hurt"])
                await client.send(protocol.VocabularyUpdate(vocabulary=vocabulary))
            assert await client.receive() == protocol.Error(
                code="internal",
                message="the server failed; its log says why",
                fatal=True,
                transient=False,
            )
            assert await client.ended() == (protocol.CLOSE_SERVER_FAULT, "internal")
        await neighbour.frame(0)
        await neighbour.expect(protocol.Prediction)
        await neighbour.close()
        await server.is_empty()
    place = "stream" if when == "create" else "live_session"
    errors = [r.name for r in caplog.records if r.levelno >= logging.ERROR]
    assert errors == [f"ovoad_server.{place}"]


async def test_server_that_stops_closes_its_sessions_with_1012(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with serve() as server:
            client = await stack.enter_async_context(server.session())
            waiting = await stack.enter_async_context(server.connect())
            await client.frame(0)
            await client.expect(protocol.Prediction)
        assert await client.receive() == protocol.GoAway(reason="restart", time_left_ms=0)
        closed = await client.expect(protocol.SessionClosed)
        assert (closed.reason, closed.received, closed.predicted) == ("restart", 1, 1)
        assert await client.ended() == (protocol.CLOSE_RESTART, "restart")
        refused = await waiting.expect(protocol.Error)
        assert (refused.code, refused.fatal, refused.transient) == ("restarting", True, True)
        assert await waiting.ended() == (protocol.CLOSE_RESTART, "restarting")
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []
