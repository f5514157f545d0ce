"""Sessions of the load against small servers on loopback."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest
from websockets.asyncio.server import ServerConnection, serve

from ovoad_client.bench.load import Load, run_load
from ovoad_client.bench.result import Row
from ovoad_client.bench.session import SessionPlan
from ovoad_client.errors import RefusedError, UnreachableError
from ovoad_client.protocol import Error, unpack_frame

from .conftest import FakeServer, make_created, make_prediction

JPEGS = (b"\xff\xd8 one", b"\xff\xd8 two")


async def load(
    url: str,
    *,
    sessions: int = 2,
    fps: float = 0.0,
    seconds: float = 0.2,
    stop: asyncio.Event | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Row:
    """Run a short load."""
    policy = "realtime" if fps else "lossless"
    return await run_load(
        Load(sessions, fps, policy, seconds, warmup_s=0.05),  # type: ignore[arg-type]
        SessionPlan(url, ["waving"], "lossless", fps=0, inflight=None),
        JPEGS,
        stop=stop or asyncio.Event(),
        tell=tell,
        own_server=False,
    )


async def test_a_load_tells_rate_and_times_and_that_all_were_answered(server: FakeServer) -> None:
    told: list[str] = []
    row = await load(server.url, tell=told.append)
    assert row.opened == 2
    assert row.predictions > 0
    assert row.frames_per_s == pytest.approx(row.predictions / row.seconds)
    assert row.stages_ms["encode"].p50 == 9.0  # what the fake server says
    assert row.end_to_end.p50 <= row.end_to_end.p99 < 1000
    assert row.tally.sent == len(server.frames) == row.tally.answered
    assert row.tally.complaints == []
    assert row.generator_cpu > 0
    assert any(text.startswith("measuring ") for text in told)
    assert server.most_unanswered <= 3  # the server's max_inflight


async def test_a_pace_is_kept_and_timestamps_follow_it(server: FakeServer) -> None:
    row = await load(server.url, sessions=1, fps=50, seconds=0.5)
    assert 0 < row.frames_per_s < 75  # as fast as answers come would be thousands
    assert [time for _, time, _ in server.frames[:4]] == [0, 20, 40, 60]


async def test_drops_and_errors_are_counted_and_are_answers(server: FakeServer) -> None:
    server.drop_every = 2
    server.fail_on = 0
    row = await load(server.url, sessions=1, fps=100)
    assert row.dropped["busy"] > 0
    assert row.tally.complaints == []
    assert row.tally.lost == 0


async def test_a_drop_in_a_lossless_session_is_a_lost_frame(server: FakeServer) -> None:
    server.drop_every = 2
    row = await load(server.url)
    assert row.tally.lost > 0
    assert "frames of lossless sessions got no prediction" in row.tally.sentence()


async def test_a_broken_connection_leaves_frames_unanswered(server: FakeServer) -> None:
    server.break_after = 3
    row = await load(server.url, sessions=1)
    assert row.tally.missing > 0
    assert sum(row.tally.broken.values()) == 1


async def test_the_servers_own_count_is_compared(server: FakeServer) -> None:
    server.miscount = 1
    row = await load(server.url, sessions=3)
    assert row.tally.complaints == ["3 sessions were counted otherwise by the server"]


async def test_stop_ends_early_and_in_order(server: FakeServer) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.3, stop.set)
    async with asyncio.timeout(5):
        row = await load(server.url, seconds=600, stop=stop)
    assert 0 < row.seconds < 5
    assert row.tally.complaints == []


async def test_sessions_refused_for_want_of_room_are_counted(server: FakeServer) -> None:
    text = "found 64 sessions, expected fewer"
    server.refuse = Error(code="capacity", message=text, fatal=True, transient=True)
    row = await load(server.url, sessions=3)
    assert (row.opened, row.refused, row.predictions) == (0, {"capacity": 3}, 0)


async def test_another_refusal_is_an_error(server: FakeServer) -> None:
    text = "found scorer 'x', expected one of frame"
    server.refuse = Error(code="unknown_scorer", message=text, fatal=True, transient=False)
    with pytest.raises(RefusedError, match="found scorer 'x'"):
        await load(server.url)


async def test_a_server_that_is_not_there_is_told(free_url: str) -> None:
    with pytest.raises(UnreachableError, match="connection refused; is the server running"):
        await load(free_url)


# ---- a server that answers wrongly ---------------------------------------------------------------


@pytest.fixture
async def free_url() -> str:
    """Return an address where nobody listens."""
    async with serve(lambda socket: socket.close(), "127.0.0.1", 0) as listener:
        port = next(iter(listener.sockets)).getsockname()[1]
    return f"ws://127.0.0.1:{port}/v1/stream"


@pytest.fixture
async def wrong_url() -> AsyncIterator[str]:
    """Return a server that doubles the answer to frame 1 and leaves frame 2 without one."""

    async def handle(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(make_created(["waving"]).to_json())
        received = 0
        async for data in socket:
            if isinstance(data, str):
                closed = {"type": "session.closed", "reason": "closed by client", "errors": 0}
                closed |= {"received": received, "predicted": received, "dropped": {}}
                await socket.send(json.dumps(closed))
                return
            frame = unpack_frame(data)
            received += 1
            answer = make_prediction(frame.seq, frame.timestamp_ms, [0.5]).to_json()
            for _ in range({1: 2, 2: 0}.get(frame.seq, 1)):
                await socket.send(answer)

    async with serve(handle, "127.0.0.1", 0) as listener:
        port = next(iter(listener.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/v1/stream"


async def test_doubled_and_missing_answers_are_caught_on_the_wire(wrong_url: str) -> None:
    row = await load(wrong_url, sessions=1)
    assert (row.tally.doubled, row.tally.missing, row.tally.unknown) == (1, 1, 0)
    assert "1 frames were not answered, 1 answers came a second time" in row.tally.sentence()
