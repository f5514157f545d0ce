"""Tests of the blocking client: a server on loopback in a thread, errors, interrupts, threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import pytest

from ovoad_client.errors import (
    BrokenError,
    FrameError,
    RefusedError,
    SilenceError,
    UnreachableError,
    UsageError,
)
from ovoad_client.notices import Reconnected
from ovoad_client.protocol import Policy, Prediction, SessionClosed, VocabularyUpdated
from ovoad_client.sources import read_frames
from ovoad_client.sync import SyncStream, connect

from .scripted import AT_ONCE, LABELS, Peer, playing

if TYPE_CHECKING:
    from tests.clients.conftest import FakeServer, MakeVideo

JPEG = b"\xff\xd8 a picture \xff\xd9"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Frame:
    """A frame as `answers` takes them."""

    timestamp_ms: int
    jpeg: bytes = JPEG


async def beside(work: Callable[[], Result]) -> Result:
    """Run blocking work in a thread while the test's loop serves."""
    return await asyncio.to_thread(work)


async def test_frames_are_answered_one_by_one(server: FakeServer) -> None:
    def work() -> tuple[list[str], SyncStream]:
        with connect(server.url, ["waving"]) as stream:
            kinds = []
            for number in range(3):
                assert stream.send(JPEG, timestamp_ms=40 * number) == number
                kinds.append(str(next(stream).type))
                assert stream.latency_ms is not None
            assert stream.connected
            return kinds, stream

    kinds, stream = await beside(work)
    assert kinds == ["prediction"] * 3
    assert (stream.counts.sent, stream.counts.predicted, stream.unanswered) == (3, 3, 0)
    assert len(stream.latencies_ms) == 3
    assert stream.ended
    assert isinstance(stream.closed, SessionClosed)


@pytest.mark.parametrize("policy", ["realtime", "lossless"])
async def test_answers_are_those_of_all_frames(server: FakeServer, policy: Policy) -> None:
    def work() -> list[int]:
        with connect(server.url, ["waving"], policy=policy) as stream:
            frames = (Frame(40 * number) for number in range(20))
            messages = list(stream.answers(frames))
            again = list(stream.answers([Frame(10_000)]))
            assert [message.type for message in again] == ["prediction"]
            return [message.seq for message in messages if isinstance(message, Prediction)]

    assert await beside(work) == list(range(20))
    assert server.most_unanswered == (1 if policy == "realtime" else server.most_unanswered)


async def test_answers_of_a_video(server: FakeServer, make_video: MakeVideo) -> None:
    video = str(make_video(frames=5, fps=20.0))

    def work() -> list[int]:
        with connect(server.url, ["waving"]) as stream:
            messages = list(stream.answers(read_frames(video)))
        return [message.timestamp_ms for message in messages if isinstance(message, Prediction)]

    assert await beside(work) == [0, 50, 100, 150, 200]


async def test_answers_raise_what_the_frames_raise(server: FakeServer) -> None:
    def frames() -> Iterator[Frame]:
        yield Frame(0)
        raise ValueError("no more")

    def work() -> None:
        with connect(server.url, ["waving"]) as stream:
            with pytest.raises(ValueError, match="no more"):
                list(stream.answers(frames()))
            with pytest.raises(FrameError, match="expected more than 0"):
                list(stream.answers([Frame(0)]))
            assert [message.type for message in stream.answers([Frame(1)])] == ["prediction"]

    await beside(work)


async def test_answers_that_end_in_an_error_take_no_message_from_those_after_them(
    server: FakeServer,
) -> None:
    def frames() -> Iterator[Frame]:
        yield Frame(0)
        raise ValueError("no more")

    def work() -> list[object]:
        with connect(server.url, ["waving"]) as stream:
            with pytest.raises(ValueError, match="no more"):
                list(stream.answers(frames()))
            server_loop.call_soon_threadsafe(server.hold.set)
            return [getattr(message, "seq", None) for message in stream.answers([Frame(1)])]

    server_loop = asyncio.get_running_loop()
    server.hold.clear()
    assert await beside(work) == [0, 1]


async def test_answers_may_be_left_early(server: FakeServer) -> None:
    def work() -> int:
        with connect(server.url, ["waving"]) as stream:
            for _ in stream.answers(Frame(number) for number in range(1000)):
                break
            return stream.counts.sent

    assert await beside(work) < 1000, "the sending goes on until the caller's thread runs again"


async def test_all_requests_have_their_replies(server: FakeServer) -> None:
    def work() -> None:
        with connect(server.url, ["waving"]) as stream:
            assert isinstance(stream.update_vocabulary(["jumping"]), VocabularyUpdated)
            assert stream.reset().type == "session.was_reset"
            assert stream.ping() > 0
            stream.send(JPEG, timestamp_ms=0)
            stream.wait_for_answers(below=1)
            assert stream.close().predicted == 1
            kinds = [message.type for message in stream]
            assert kinds[-2:] == ["prediction", "session.closed"]

    await beside(work)


async def test_errors_reach_the_caller(server: FakeServer) -> None:
    def work() -> None:
        with pytest.raises(UnreachableError), connect("127.0.0.1:1", ["a"]):
            pass
        with pytest.raises(UsageError, match="found label 'a' twice"), connect("h", ["a", "a"]):
            pass
        with connect(server.url, ["a"]) as stream:
            stream.send(JPEG, timestamp_ms=5)
            with pytest.raises(FrameError, match="timestamp_ms 5, expected more than 5"):
                stream.send(JPEG, timestamp_ms=5)
            server.refuse_updates = True
            with pytest.raises(RefusedError, match="found 1001 labels"):
                stream.update_vocabulary(["b"])
        with pytest.raises(BrokenError, match="has been left, expected an open one"):
            stream.send(JPEG, timestamp_ms=6)

    await beside(work)


async def test_the_callers_exception_ends_the_session_at_once(server: FakeServer) -> None:
    server.silent = True

    def work() -> float:
        start_s = time.monotonic()
        with contextlib.suppress(ZeroDivisionError), connect(server.url, ["a"]) as stream:
            stream.send(JPEG, timestamp_ms=0)
            raise ZeroDivisionError
        assert stream.ended
        assert stream.closed is None
        return time.monotonic() - start_s

    assert await beside(work) < 5


async def test_a_failed_session_is_told_on_leaving(server: FakeServer) -> None:
    server.break_after = 0

    def work() -> None:
        with connect(server.url, ["a"], reconnect=None) as stream:
            stream.send(JPEG, timestamp_ms=0)

    with pytest.raises(BrokenError, match=r"fault in the server \(1011\)"):
        await beside(work)


async def test_who_never_reads_is_told_and_not_held_for_ever(server: FakeServer) -> None:
    def work() -> None:
        with connect(server.url, ["a"], policy="lossless", timeout_s=0.3) as stream:
            for number in range(1000):
                stream.send(JPEG, timestamp_ms=number)

    with pytest.raises(SilenceError, match=r"wait unread, expected them to be read"):
        await beside(work)


async def test_a_call_inside_a_callback_is_refused(server: FakeServer) -> None:
    streams: list[SyncStream] = []
    complaints: list[str] = []

    def tap(text: str) -> None:
        if streams:
            with pytest.raises(UsageError) as caught:
                streams[0].ping()
            complaints.append(str(caught.value))

    def work() -> None:
        with connect(server.url, ["a"], tap=tap) as stream:
            streams.append(stream)
            stream.send(JPEG, timestamp_ms=0)
            next(stream)

    await beside(work)
    assert "it would wait for itself" in complaints[0]


async def test_one_thread_may_read_while_another_sends_and_leaves(server: FakeServer) -> None:
    def work() -> list[str]:
        pool = concurrent.futures.ThreadPoolExecutor()
        with pool, connect(server.url, ["a"]) as stream:
            reading = pool.submit(lambda: [str(message.type) for message in stream])
            for number in range(50):
                stream.wait_for_answers(below=1)
                stream.send(JPEG, timestamp_ms=number)
            stream.close()
            return reading.result(10)

    assert await beside(work) == ["prediction"] * 50 + ["session.closed"]


async def test_breaks_are_mended_meanwhile() -> None:
    async def breaks(peer: Peer) -> None:
        await peer.open()
        await peer.expect_frames(0)
        await peer.cut()

    async def begins_anew(peer: Peer) -> None:
        await peer.open()
        await peer.expect_frames(0)
        await peer.predict(0)
        await peer.end(received=1, predicted=1)

    async with playing(breaks, begins_anew) as server:

        def work() -> list[object]:
            with connect(server.url, LABELS, policy="lossless", reconnect=AT_ONCE) as stream:
                return list(stream.answers([Frame(0)]))

        messages = await beside(work)
    assert any(isinstance(message, Reconnected) for message in messages)
    assert isinstance(messages[-1], Prediction)


@pytest.fixture
def ctrl_c_interrupts() -> Iterator[None]:
    """Let Ctrl-C do what it does in a terminal: a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_ctrl_c_ends_a_waiting_call_and_the_session(fake_server_thread: FakeServer) -> None:
    fake_server_thread.silent = True
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    start_s = time.monotonic()

    def watch() -> None:
        with connect(fake_server_thread.url, ["a"]) as stream:
            for _ in stream.answers(Frame(number) for number in range(10)):
                raise AssertionError("a silent server answers nothing")

    with pytest.raises(KeyboardInterrupt):
        watch()
    assert time.monotonic() - start_s < 5
    assert not [thread for thread in threading.enumerate() if thread.name == "ovoad loop"]


@pytest.fixture
def fake_server_thread() -> Iterator[FakeServer]:
    """Return a fake server whose loop runs in a thread, for tests that block the main one."""
    from websockets.asyncio.server import serve

    from .conftest import FakeServer as Fake

    fake = Fake()
    ready, done = threading.Event(), threading.Event()

    async def run() -> None:
        fake.hold.set()
        async with serve(fake.handle, "127.0.0.1", 0, process_request=fake.check_key) as listener:
            port = next(iter(listener.sockets)).getsockname()[1]
            fake.url = f"ws://127.0.0.1:{port}/v1/stream"
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    ready.wait()
    yield fake
    done.set()
    thread.join()
