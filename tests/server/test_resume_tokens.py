"""Who may go on with a session: one client for one token, once; and when nobody may."""

import asyncio
import contextlib

import pytest

from ovoad_client import protocol
from ovoad_server import outbox
from ovoad_server.live_session import LiveSession

from .harness import Client, ColourEncoder, Serve, is_still_served, until
from .resume_parts import PARK_S, broken_off, hold_first, predicted, resuming

# ---- tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize("resume_s", [0.0, PARK_S])
async def test_token_that_nobody_gave_out_opens_a_fresh_session(
    serve: Serve, resume_s: float
) -> None:
    async with serve(resume_s=resume_s) as server, server.connect() as client:
        created = await client.create(resume={"token": "no such token", "last_seq": 7})
        assert (created.resumed, created.next_seq) == (False, None)
        await is_still_served(client, 3)


async def test_token_is_good_once(serve: Serve) -> None:
    async with serve(resume_s=PARK_S) as server:
        async with server.connect() as client:
            created = await client.create()
            await broken_off(server, client)
        async with (
            resuming(server, created, None) as (first, on),
            resuming(server, created, None) as (second, other),
        ):
            assert (on.resumed, other.resumed) == (True, False)
            assert other.session_id != created.session_id
            await is_still_served(first, 0)
            await is_still_served(second, 0)


async def test_of_two_clients_with_one_token_one_wins_and_the_other_is_told(serve: Serve) -> None:
    async with serve(resume_s=PARK_S) as server:
        async with server.connect() as client:
            created = await client.create()
            await client.frame(0)
            await predicted(client, [0])
            await broken_off(server, client)
        async with server.connect() as one, server.connect() as other:
            resume = {"token": created.resume_token, "last_seq": 0}
            answers = await asyncio.gather(one.create(resume=resume), other.create(resume=resume))
            assert sorted(answer.resumed for answer in answers) == [False, True]
            ids = {answer.session_id for answer in answers}
            assert len(ids) == 2
            assert created.session_id in ids
            for client, answer in zip([one, other], answers, strict=True):
                await client.frame(1)
                (prediction,) = await predicted(client, [1])
                assert prediction.window.frames == (2 if answer.resumed else 1)
                closed = await client.close()
                assert closed.received == (2 if answer.resumed else 1)
        await server.is_empty()


async def superseded(client: Client) -> None:
    """The next message tells that another connection has the session now."""
    error = await client.expect(protocol.Error)
    assert (error.code, error.fatal, error.transient) == ("superseded", True, False)
    assert await client.ended() == (protocol.CLOSE_PROTOCOL, "superseded")


async def test_connection_that_hangs_is_superseded(serve: Serve) -> None:
    async with serve(resume_s=PARK_S) as server, server.connect() as old:
        created = await old.create()
        for seq in range(3):
            await old.frame(seq)
        await predicted(old, range(3))
        async with resuming(server, created, 1) as (new, on):
            assert (on.resumed, on.next_seq) == (True, 3)
            await predicted(new, [2])
            await superseded(old)
            await is_still_served(new, 3)
            closed = await new.close()
            assert (closed.received, closed.predicted) == (4, 4)
        await server.is_empty()


async def test_all_that_is_replayed_goes_to_the_new_connection(serve: Serve) -> None:
    """The writer of the old connection waits for messages when they are put back in line."""
    async with serve(resume_s=PARK_S) as server, contextlib.AsyncExitStack() as stack:
        old = await stack.enter_async_context(server.connect())
        created = await old.create()
        for seq in range(5):
            await old.frame(seq)
        await predicted(old, range(5))
        for _ in range(5):
            returning = resuming(server, created, None)
            new, created = await stack.enter_async_context(returning)
            assert created.resumed
            await predicted(new, range(5))
            await superseded(old)
            old = new


async def test_connection_that_hangs_with_frames_under_way_is_superseded(
    serve: Serve, encoder: ColourEncoder
) -> None:
    async with serve(resume_s=PARK_S, max_inflight=2) as server, server.connect() as old:
        created = await old.create()
        await hold_first(old, encoder, 0, 1, 2)
        await until(lambda: server.metric("ovoad_frames_received_total") == 2)
        async with resuming(server, created, None) as (new, on):
            assert (on.resumed, on.next_seq) == (True, 2)
            await superseded(old)
            encoder.hold.set()
            await predicted(new, [0, 1])
            await new.frame(2)
            await predicted(new, [2])
            assert (await new.close()).received == 3


async def test_takeover_begun_twice_is_won_by_the_last(serve: Serve) -> None:
    async with serve(resume_s=PARK_S) as server, server.connect() as first:
        created = await first.create()
        async with (
            resuming(server, created, None) as (second, on),
            resuming(server, on, None) as (third, once_more),
        ):
            assert once_more.resumed
            await superseded(first)
            await superseded(second)
            await is_still_served(third, 0)
        await until(lambda: server.hub.parked == 1)
        assert server.hub.slots.used == 1


# ---- what cannot be resumed ----------------------------------------------------------------------


async def test_session_closed_in_order_cannot_be_resumed(serve: Serve) -> None:
    async with serve(resume_s=PARK_S) as server:
        async with server.connect() as client:
            created = await client.create()
            await client.close()
        async with resuming(server, created, None) as (_, on):
            assert not on.resumed


async def test_session_ended_by_a_refusal_cannot_be_resumed(serve: Serve) -> None:
    async with serve(resume_s=PARK_S) as server:
        async with server.connect() as client:
            created = await client.create()
            for seq in range(8):
                await client.frame(seq, b"no image")
            assert [m.type for m in await client.rest()] == ["error"] * 9
        assert not server.hub.sessions
        async with resuming(server, created, 7) as (_, on):
            assert not on.resumed


async def test_client_that_breaks_off_while_its_session_ends_leaves_nothing(
    serve_undisturbed: Serve, encoder: ColourEncoder
) -> None:
    async with serve_undisturbed(resume_s=PARK_S) as server:
        async with server.connect() as client:
            created = await client.create()
            await hold_first(client, encoder, 0, 1)
            await client.send(protocol.SessionClose())
            live = server.hub.sessions[created.resume_token]
            assert isinstance(live, LiveSession)
            await until(lambda: live.end is not None)
            client.break_off()
        encoder.hold.set()
        await until(lambda: len(server.hub.sessions) == 1)


async def test_more_missed_than_kept_is_told(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "KEPT_CHARACTERS", 1000)
    async with serve(resume_s=PARK_S) as server:
        async with server.connect() as client:
            created = await client.create()
            for seq in range(40):
                await client.frame(seq)
            await predicted(client, range(40))
            await broken_off(server, client)
        async with resuming(server, created, 5) as (client, on):
            assert (on.resumed, on.next_seq) == (False, None)
            await is_still_served(client, 40)
            assert (await client.close()).received == 1
        await server.is_empty()
        reason = "not resumable"
        assert server.metric("ovoad_sessions_ended_total", reason=reason) == 1


async def test_flood_of_resumes_leaves_nothing(serve_undisturbed: Serve) -> None:
    """A client whose every connection breaks at once, in all places of the handshake."""
    async with serve_undisturbed(resume_s=0.2) as server:
        async with server.connect() as client:
            created = await client.create()
            client.break_off()
        for number in range(30):
            async with server.connect() as client:
                resume = {"token": created.resume_token, "last_seq": None}
                if number % 3 == 0:
                    await client.send({"type": "session.create", "vocabulary": {"labels": ["x"]}})
                elif number % 3 == 1:
                    created = await client.create(resume=resume)
                client.break_off()
        await until(lambda: len(server.hub.sessions) == 1)
