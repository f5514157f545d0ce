"""The end of a server: who is told, who is answered, who is let go at once; over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest

from ovoad_client import protocol

from .harness import WAIT_S, Client, ColourEncoder, Serve, Server, is_still_served, occurs, until

PARK_S = 30.0


@contextlib.asynccontextmanager
async def draining(
    server: Server, *, serve_on_s: float = WAIT_S, settle_s: float = WAIT_S
) -> AsyncIterator["asyncio.Task[None]"]:
    """Begin a drain; it is over at the end of the block, long before its time is up."""
    task = asyncio.create_task(server.hub.drain(serve_on_s=serve_on_s, settle_s=settle_s))
    await asyncio.sleep(0)
    assert server.hub.draining
    yield task
    async with asyncio.timeout(WAIT_S / 2):
        await task
    assert server.hub.slots.used == 0


async def restarting(client: Client) -> None:
    """The connection is refused because the server is about to stop."""
    error = await client.expect(protocol.Error)
    assert (error.code, error.fatal, error.transient) == ("restarting", True, True)
    assert error.retry_after_ms == 1000
    assert await client.ended() == (protocol.CLOSE_RESTART, "restarting")


async def test_sessions_are_served_on_until_their_time_is_up(
    serve: Serve, encoder: ColourEncoder
) -> None:
    async with (
        serve() as server,
        server.session() as client,
        draining(server, serve_on_s=0.3),
    ):
        assert await client.receive() == protocol.GoAway(reason="restart", time_left_ms=300)
        await is_still_served(client, 0)
        encoder.entered.clear()
        encoder.hold.clear()
        for seq in range(1, 4):
            await client.frame(seq)
        await occurs(encoder.entered)
        await asyncio.sleep(0.3)
        encoder.hold.set()
        assert [(await client.expect(protocol.Prediction)).seq for _ in range(3)] == [1, 2, 3]
        closed = await client.expect(protocol.SessionClosed)
        assert (closed.reason, closed.received, closed.predicted) == ("restart", 4, 4)
        assert await client.ended() == (protocol.CLOSE_RESTART, "restart")


async def test_frame_whose_batch_takes_too_long_is_answered_all_the_same(
    serve: Serve, encoder: ColourEncoder
) -> None:
    async with serve() as server, server.session() as client:
        await is_still_served(client, 0)
        encoder.entered.clear()
        encoder.hold.clear()
        async with draining(server, serve_on_s=0.1, settle_s=0.4):
            await client.expect(protocol.GoAway)
            for seq in range(1, 4):
                await client.frame(seq)
            await occurs(encoder.entered)
            dropped = [await client.expect(protocol.FrameDropped) for _ in range(3)]
            assert sorted(drop.seq for drop in dropped) == [1, 2, 3]
            assert {drop.reason for drop in dropped} == {"stale"}
            closed = await client.expect(protocol.SessionClosed)
            assert (closed.received, closed.predicted, closed.dropped.stale) == (4, 1, 3)
            encoder.hold.set()  # what the engine still finds is for nobody
            assert await client.ended() == (protocol.CLOSE_RESTART, "restart")


async def test_drain_is_over_once_all_have_left_by_themselves(serve: Serve) -> None:
    async with (
        serve() as server,
        server.session() as one,
        server.session() as other,
        draining(server, serve_on_s=60),
    ):
        for client in (one, other):
            await client.expect(protocol.GoAway)
            assert (await client.close()).reason == "closed by client"


async def test_idle_server_is_drained_at_once(serve: Serve) -> None:
    async with serve() as server, draining(server, serve_on_s=60) as task:
        await asyncio.wait_for(task, 1.0)


async def test_who_comes_while_draining_is_told_to_come_back(serve: Serve) -> None:
    async with serve(resume_s=PARK_S) as server, server.connect() as client:
        created = await client.create()
        async with draining(server):
            await client.expect(protocol.GoAway)
            async with server.connect() as newcomer:
                await restarting(newcomer)
            async with server.connect() as returning:
                resume = {"token": created.resume_token, "last_seq": None}
                with contextlib.suppress(Exception):  # the refusal needs no first message
                    fields = {"vocabulary": {"labels": ["x"]}, "resume": resume}
                    await returning.send({"type": "session.create", **fields})
                await restarting(returning)
            async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
                ready = await http.get("/readyz")
                alive = await http.get("/healthz")
            assert (ready.status_code, alive.status_code) == (503, 200)
            assert ready.json()["reason"] == "the server is about to stop"
            assert server.metric("ovoad_sessions_rejected_total", reason="restarting") == 2
            await client.close()


async def test_connection_that_has_said_nothing_is_told_at_once(serve: Serve) -> None:
    async with serve() as server, server.connect() as silent, server.session() as client:
        await until(lambda: server.hub.slots.used == 2)
        async with draining(server):
            await restarting(silent)
            await client.expect(protocol.GoAway)
            await client.close()


async def test_session_whose_words_are_being_embedded_is_told_at_once(
    serve: Serve, encoder: ColourEncoder
) -> None:
    async with serve() as server, server.connect() as client:
        encoder.entered_text.clear()
        encoder.hold_text.clear()
        await client.send({"type": "session.create", "vocabulary": {"labels": ["red"]}})
        await occurs(encoder.entered_text)
        async with draining(server):
            await restarting(client)
        encoder.hold_text.set()
        await server.is_empty()


async def test_create_timeout_at_the_moment_of_the_drain_harms_nothing(serve: Serve) -> None:
    async with serve(create_timeout_s=0.05) as server, contextlib.AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(server.connect()) for _ in range(20)]
        await until(
            lambda: server.metric("ovoad_sessions_rejected_total", reason="create_timeout") > 0
        )
        async with draining(server):
            for client in silent:
                assert (await client.expect(protocol.Error)).fatal


async def test_parked_sessions_are_let_go_at_once(serve: Serve) -> None:
    async with serve(resume_s=PARK_S) as server:
        async with server.session() as client:
            client.break_off()
            await until(lambda: server.hub.parked == 1)
        async with draining(server, serve_on_s=60) as task:
            await asyncio.wait_for(task, 1.0)
        assert server.metric("ovoad_sessions_ended_total", reason="restart") == 1


async def test_session_that_breaks_while_draining_is_not_waited_for(serve: Serve) -> None:
    async with (
        serve(resume_s=PARK_S) as server,
        server.session() as client,
        draining(server, serve_on_s=60),
    ):
        await client.expect(protocol.GoAway)
        client.break_off()


async def test_session_that_has_heard_the_last_word_hears_no_goaway(
    serve: Serve, encoder: ColourEncoder
) -> None:
    async with serve() as server, server.session() as client:
        encoder.entered.clear()
        encoder.hold.clear()
        await client.frame(0)
        await occurs(encoder.entered)
        await client.send(protocol.SessionClose())
        (live,) = server.hub.sessions.values()
        await until(lambda: getattr(live, "end", None) is not None)
        async with draining(server):
            encoder.hold.set()
            await client.expect(protocol.Prediction)
            closed = await client.expect(protocol.SessionClosed)
            assert closed.reason == "closed by client"
            assert (await client.ended())[0] == protocol.CLOSE_NORMAL


@pytest.mark.parametrize("policy", ["realtime", "lossless"])
async def test_counts_add_up_for_all_under_load(serve: Serve, policy: str) -> None:
    async with serve(max_fps=1e6) as server, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(server.session(policy=policy)) for _ in range(8)]

        async def send(client: Client) -> None:
            with contextlib.suppress(Exception):  # until the server closes
                for seq in range(100_000):
                    await client.frame(seq)
                    await asyncio.sleep(0)

        sending = [asyncio.create_task(send(client)) for client in clients]
        await until(lambda: server.metric("ovoad_frames_predicted_total") > 20)
        async with draining(server, serve_on_s=0.2):
            for client in clients:
                messages = await client.rest()
                closed = messages[-1]
                assert isinstance(closed, protocol.SessionClosed)
                predicted = [m for m in messages if isinstance(m, protocol.Prediction)]
                dropped = [m for m in messages if isinstance(m, protocol.FrameDropped)]
                assert sum(isinstance(m, protocol.GoAway) for m in messages) == 1
                assert closed.predicted == len(predicted)
                assert closed.received == len(predicted) + len(dropped)
                assert (closed.reason, closed.errors) == ("restart", 0)
                answered = sorted([m.seq for m in predicted] + [m.seq for m in dropped])
                assert answered == list(range(closed.received))
        for task in sending:
            task.cancel()
        await asyncio.wait(sending)
