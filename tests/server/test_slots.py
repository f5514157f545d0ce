"""How many sessions there may be, and who gets in where no slot is left."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import ConnectionClosed

from ovoad_client import protocol
from ovoad_model.detector import Detector
from ovoad_server.engine.capacity import CostModel
from ovoad_server.hub import Hub
from ovoad_server.refusals import RefusedError
from ovoad_server.settings import Settings
from ovoad_server.slots import FIRST_RETRY_MS, LONGEST_RETRY_MS, Slots

from .harness import Client, Serve, Server, is_still_served, make_hub, until
from .resume_parts import PARK_S, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hub(detector: Detector) -> Hub:
    return make_hub(detector, Settings(max_sessions=8, promised_fps=4, max_batch=4))


@pytest.fixture
def slots(hub: Hub, clock: Clock) -> Slots:
    return Slots(hub.settings, hub.engine, now_s=clock)


def costing(frame_ms: float) -> CostModel:
    """Return a model whose batches cost this much a frame."""
    return CostModel.from_trial([(4, 4 * frame_ms)] * 50)


# ---- how many ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capacity_fps", "total"),
    [(1000, 8), (38, 8), (37, 7), (20, 4), (10, 2), (9, 1), (4, 1), (0.01, 1)],
)
def test_slots_keep_the_promise_with_something_to_spare(
    hub: Hub, slots: Slots, capacity_fps: float, total: int
) -> None:
    hub.engine.cost = costing(1000 / capacity_fps)
    assert hub.engine.capacity_fps == pytest.approx(capacity_fps)
    assert slots.total == total == max(1, min(8, int(0.85 * capacity_fps / 4)))


def test_slots_follow_the_cost(hub: Hub, slots: Slots) -> None:
    hub.engine.cost = costing(25)
    assert slots.total == 8
    for _ in range(200):
        hub.engine.cost.learn(4, 400)
    assert slots.total == 2


def test_without_a_promise_or_a_measurement_slots_are_fixed(
    detector: Detector, hub: Hub, slots: Slots
) -> None:
    assert not hub.engine.cost.known
    assert slots.total == 8
    fixed = make_hub(detector, Settings(max_sessions=8, promised_fps=0))
    fixed.engine.cost = costing(10_000)
    assert fixed.slots.total == 8


# ---- taking and giving ---------------------------------------------------------------------------


def test_the_first_session_is_always_admitted(hub: Hub, slots: Slots) -> None:
    hub.engine.cost = costing(60_000)
    assert slots.take(parked=0)
    with pytest.raises(RefusedError):
        slots.take(parked=0)


def test_refusal_tells_what_is_promised_and_what_the_machine_can_do(hub: Hub, slots: Slots) -> None:
    hub.engine.cost = costing(100)
    assert slots.take(parked=0)
    assert slots.take(parked=0)
    with pytest.raises(RefusedError) as refused:
        slots.take(parked=0)
    assert refused.value.to_message() == protocol.Error(
        code="capacity",
        message="found 2 sessions open, expected fewer than 2 (the machine scores 10.0 frames/s "
        "and each is promised 4); try again later",
        fatal=True,
        transient=True,
        retry_after_ms=FIRST_RETRY_MS,
    )
    assert refused.value.close_code == protocol.CLOSE_CAPACITY


def test_sessions_that_are_in_stay_when_the_machine_slows_down(hub: Hub, slots: Slots) -> None:
    hub.engine.cost = costing(10)
    for _ in range(8):
        assert slots.take(parked=0)
    hub.engine.cost = costing(100)
    with pytest.raises(RefusedError):
        slots.take(parked=0)
    for _ in range(6):
        slots.give()
        with pytest.raises(RefusedError):
            slots.take(parked=0)
    slots.give()
    assert slots.take(parked=0)


def retry_after_ms(slots: Slots) -> int:
    after_ms = slots.refusal().retry_after_ms
    assert after_ms is not None
    return after_ms


def test_retry_after_follows_the_time_between_ends(slots: Slots, clock: Clock) -> None:
    for _ in range(8):
        slots.take(parked=0)
    slots.give()
    assert retry_after_ms(slots) == FIRST_RETRY_MS, "one end has no interval"
    clock.now_s += 20
    slots.give()
    assert retry_after_ms(slots) == 20_000
    clock.now_s += 10
    slots.give()
    assert retry_after_ms(slots) == 18_000


@pytest.mark.parametrize(("between_s", "after_ms"), [(0.0, 1000), (0.5, 1000), (4000, 60_000)])
def test_retry_after_is_a_second_at_least_and_a_minute_at_most(
    slots: Slots, clock: Clock, between_s: float, after_ms: int
) -> None:
    for _ in range(2):
        slots.take(parked=0)
    for _ in range(2):
        clock.now_s += between_s
        slots.give()
    assert retry_after_ms(slots) == after_ms <= LONGEST_RETRY_MS


def test_connection_that_never_had_a_session_is_no_end_of_one(slots: Slots, clock: Clock) -> None:
    for _ in range(5):
        slots.take(parked=0)
        clock.now_s += 1
        slots.give_back()
    assert (slots.used, retry_after_ms(slots)) == (0, FIRST_RETRY_MS)


def test_visitors_are_let_in_only_where_they_may_be_back_for_a_session(slots: Slots) -> None:
    for _ in range(8):
        assert slots.take(parked=0)
    assert not slots.take(parked=2)
    assert not slots.take(parked=2)
    with pytest.raises(RefusedError):
        slots.take(parked=2)
    slots.leave()
    assert not slots.take(parked=2)
    assert slots.used == 8


async def test_until_free_waits_for_the_last_slot(slots: Slots) -> None:
    assert await slots.until_free(timeout_s=0.0)
    slots.take(parked=0)
    slots.take(parked=0)
    assert not await slots.until_free(timeout_s=0.0)
    slots.give()
    assert not await slots.until_free(timeout_s=0.0)
    slots.give_back()
    assert await slots.until_free(timeout_s=0.0)


# ---- over the wire -------------------------------------------------------------------------------


async def refused(client: Client) -> protocol.Error:
    """The connection is refused for want of a slot."""
    error = await client.expect(protocol.Error)
    assert (error.code, error.fatal, error.transient) == ("capacity", True, True)
    assert await client.ended() == (protocol.CLOSE_CAPACITY, "capacity")
    return error


@contextlib.asynccontextmanager
async def parked(server: Server, *, goodbye: bool) -> AsyncIterator[protocol.SessionCreated]:
    """A session whose client closed its connection, or whose connection broke."""
    before = server.hub.parked
    async with server.connect() as client:
        created = await client.create()
        if goodbye:
            await client.socket.close(1001)
        else:
            client.break_off()
        await until(lambda: server.hub.parked == before + 1)
    yield created


async def test_measured_capacity_refuses_who_would_break_the_promise(serve: Serve) -> None:
    async with serve(promised_fps=4.0) as server:
        server.hub.engine.cost = costing(100)
        async with server.session() as one, server.session() as other:
            async with server.connect() as client:
                error = await refused(client)
                assert error.retry_after_ms == FIRST_RETRY_MS
                assert "the machine scores 10.0 frames/s and each is promised 4" in error.message
            assert server.metric("ovoad_slots") == 2
            assert server.metric("ovoad_slots_used") == 2
            await is_still_served(one, 0)
            await is_still_served(other, 0)
        await server.is_empty()
        assert server.metric("ovoad_sessions_rejected_total", reason="capacity") == 1


async def test_parked_session_keeps_its_slot_and_gets_it_back(serve: Serve) -> None:
    async with serve(max_sessions=1, resume_s=PARK_S) as server:
        async with parked(server, goodbye=False) as created:
            assert (server.hub.slots.used, server.metric("ovoad_sessions_active")) == (1, 0)
            async with server.connect() as newcomer:
                await newcomer.send({"type": "session.create", "vocabulary": {"labels": ["x"]}})
                await refused(newcomer)
            async with server.connect() as guesser:
                resume = {"token": "guess", "last_seq": None}
                fields = {"vocabulary": {"labels": ["x"]}, "resume": resume}
                await guesser.send({"type": "session.create", **fields})
                await refused(guesser)
            async with server.connect() as client:
                resume = {"token": created.resume_token, "last_seq": None}
                assert (await client.create(resume=resume)).resumed
                await is_still_served(client, 0)
                await client.close()
        await server.is_empty()


async def test_session_whose_client_said_goodbye_gives_way(serve: Serve) -> None:
    async with (
        serve(max_sessions=2, resume_s=PARK_S) as server,
        parked(server, goodbye=False) as broken,
        parked(server, goodbye=True) as left,
        server.session() as newcomer,
    ):
        await is_still_served(newcomer, 0)
        assert broken.resume_token in server.hub.sessions
        assert left.resume_token not in server.hub.sessions
        async with server.connect() as another:
            await another.send({"type": "session.create", "vocabulary": {"labels": ["x"]}})
            await refused(another)


async def test_as_many_give_way_as_it_takes_once_there_are_fewer_slots(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        serve(max_sessions=3, resume_s=PARK_S) as server,
        parked(server, goodbye=True) as first,
        parked(server, goodbye=True) as second,
        parked(server, goodbye=False) as broken,
    ):
        monkeypatch.setattr(Slots, "total", 2)  # the machine was seen to be slower
        async with server.session() as newcomer:
            await is_still_served(newcomer, 0)
            assert list(server.hub.sessions).count(broken.resume_token) == 1
            assert {first.resume_token, second.resume_token}.isdisjoint(server.hub.sessions)


async def test_client_that_said_goodbye_finds_its_session_at_full_house(serve: Serve) -> None:
    """A page that is loaded anew: its own return must not push its session out."""
    async with (
        serve(max_sessions=1, resume_s=PARK_S) as server,
        parked(server, goodbye=True) as created,
        server.connect() as client,
    ):
        resume = {"token": created.resume_token, "last_seq": None}
        assert (await client.create(resume=resume)).resumed
        await is_still_served(client, 0)


async def test_visitors_that_say_nothing_push_nobody_out(serve: Serve) -> None:
    async with (
        serve(max_sessions=2, resume_s=PARK_S, create_timeout_s=0.2) as server,
        server.session() as neighbour,
        parked(server, goodbye=True) as created,
    ):
        async with server.connect() as silent, server.connect() as second:
            await refused(second)
            error = await silent.expect(protocol.Error)
            assert error.code == "create_timeout"
        assert created.resume_token in server.hub.sessions
        await is_still_served(neighbour, 0)


async def test_visitor_gets_the_slot_that_was_freed_meanwhile(serve: Serve) -> None:
    async with (
        serve(max_sessions=2, resume_s=PARK_S) as server,
        parked(server, goodbye=False),
        contextlib.AsyncExitStack() as stack,
    ):
        other = await stack.enter_async_context(server.session())
        visitor = await stack.enter_async_context(server.connect())
        await other.close()
        await until(lambda: server.hub.slots.used == 1)
        await visitor.create()
        await is_still_served(visitor, 0)


async def test_of_200_clients_at_once_eight_are_served_and_the_others_told(
    serve_undisturbed: Serve,
) -> None:
    async with serve_undisturbed(max_sessions=9) as server, contextlib.AsyncExitStack() as stack:

        async def join() -> Client | None:
            client = await stack.enter_async_context(server.connect(open_timeout=30))
            with contextlib.suppress(ConnectionClosed):  # it may be told before it can say a word
                await client.send({"type": "session.create", "vocabulary": {"labels": ["red"]}})
            first = await client.receive()
            if isinstance(first, protocol.SessionCreated):
                return client
            assert isinstance(first, protocol.Error)
            assert (first.code, first.retry_after_ms) == ("capacity", FIRST_RETRY_MS)
            assert await client.ended() == (protocol.CLOSE_CAPACITY, "capacity")
            return None

        clients = await asyncio.gather(*(join() for _ in range(200)))
        served = [client for client in clients if client is not None]
        assert len(served) == 8
        assert server.metric("ovoad_sessions_rejected_total", reason="capacity") == 192
        assert server.hub.slots.used == 9
        for client in served:
            await client.frame(0)
        for client in served:
            assert (await client.expect(protocol.Prediction)).seq == 0
        await asyncio.gather(*(client.close() for client in served))
        await until(lambda: server.hub.slots.used == 1)
