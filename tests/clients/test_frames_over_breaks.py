"""Tests of frames whose connection breaks: each ends once, is sent again or named lost."""

from __future__ import annotations

import asyncio

from ovoad_client.client import connect
from ovoad_client.notices import Reconnected, Reconnecting
from ovoad_client.protocol import (
    Event,
    FrameDropped,
)

from .scripted import AT_ONCE, LABELS, Peer, ends, kinds, playing, read_all, send, session_closed

START = Event(kind="start", label="waving", timestamp_ms=10, probability=0.7, start_ms=0)


async def test_lossless_sends_again_in_order_what_the_server_lacks() -> None:
    async def breaks(peer: Peer) -> None:
        await peer.open()
        await peer.expect_frames(0, 1, 2, 3, 4)
        await peer.predict(0, 1)
        await peer.cut()

    async def resumes(peer: Peer) -> None:
        assert peer.create.resume is not None
        assert (peer.create.resume.token, peer.create.resume.last_seq) == ("token 1", 1)
        await peer.open(next_seq=3, token="token 2")
        await peer.predict(2)
        await peer.expect_frames(3, 4, 5)
        await peer.predict(3, 4, 5)
        await peer.end(received=6, predicted=6)

    async with (
        playing(breaks, resumes) as server,
        connect(server.url, LABELS, policy="lossless", reconnect=AT_ONCE) as stream,
    ):
        await send(stream, 0, 1, 2, 3, 4)
        async for message in stream:
            if isinstance(message, Reconnected):
                assert message == Reconnected(resumed=True, sent_again=(3, 4))
                break
        await send(stream, 5)
        closed = await stream.close()
        messages, _ = await read_all(stream)
    assert ends(messages) == [2, 3, 4, 5]
    assert stream.created.resume_token == "token 2"
    assert (stream.counts.sent, stream.counts.predicted, stream.counts.lost) == (6, 6, 0)
    assert (stream.counts.sent_again, stream.counts.reconnects) == (2, 1)
    assert stream.counts.differences(closed) == []


async def test_realtime_names_the_frames_that_the_server_lacks() -> None:
    async def breaks(peer: Peer) -> None:
        await peer.open()
        await peer.expect_frames(0, 1, 2)
        await peer.predict(0)
        await peer.cut()

    async def resumes(peer: Peer) -> None:
        await peer.open(next_seq=2)
        await peer.say(FrameDropped(seq=1, timestamp_ms=10, reason="busy"))
        await peer.expect_frames(3)
        await peer.predict(3)
        closed = session_closed("closed by client", received=3, predicted=2)
        await peer.hear()
        dropped = closed.dropped.model_copy(update={"busy": 1})
        await peer.say(closed.model_copy(update={"dropped": dropped}))

    async with (
        playing(breaks, resumes) as server,
        connect(server.url, LABELS, reconnect=AT_ONCE) as stream,
    ):
        await send(stream, 0, 1, 2)
        await stream.wait_for_answers(below=1)
        await send(stream, 3)
        closed = await stream.close()
        messages, _ = await read_all(stream)
    assert kinds(messages) == [
        *("prediction", "client.reconnecting", "session.created", "client.reconnected"),
        *("client.frames_lost", "frame.dropped", "prediction", "session.closed"),
    ]
    assert ends(messages) == [0, 2, 1, 3]
    assert (stream.counts.sent, stream.counts.lost) == (4, 1)
    assert stream.counts.differences(closed) == []


async def test_a_fresh_session_gets_all_unanswered_frames_of_a_lossless_stream() -> None:
    async def breaks(peer: Peer) -> None:
        await peer.open()
        await peer.expect_frames(0, 1, 2)
        await peer.predict(0)
        await peer.cut()

    async def begins_anew(peer: Peer) -> None:
        await peer.open(token="token 2")
        await peer.expect_frames(1, 2)
        await peer.predict(1)
        await peer.cut()

    async def resumes(peer: Peer) -> None:
        assert peer.create.resume is not None
        assert (peer.create.resume.token, peer.create.resume.last_seq) == ("token 2", 1)
        await peer.open(next_seq=3)
        await peer.predict(2)
        await peer.end(received=2, predicted=2)

    async with (
        playing(breaks, begins_anew, resumes) as server,
        connect(server.url, LABELS, policy="lossless", reconnect=AT_ONCE) as stream,
    ):
        await send(stream, 0, 1, 2)
        await stream.wait_for_answers(below=1)
        closed = await stream.close()
        messages, _ = await read_all(stream)
    assert ends(messages) == [0, 1, 2]
    notices = [message for message in messages if isinstance(message, Reconnected)]
    assert notices == [Reconnected(False, (1, 2)), Reconnected(True, ())]
    assert stream.counts.predicted == 3
    assert stream.counts.differences(closed) == [], "the fresh session counts from nothing"


async def test_a_fresh_session_that_answered_nothing_is_not_told_of_an_older_ones_frames() -> None:
    async def breaks(peer: Peer) -> None:
        await peer.open()
        await peer.expect_frames(0, 1)
        await peer.predict(0)
        await peer.cut()

    async def begins_anew(peer: Peer) -> None:
        assert peer.create.resume is not None
        assert peer.create.resume.last_seq == 0
        await peer.open(token="token 2")
        await peer.cut()

    async def resumes(peer: Peer) -> None:
        assert peer.create.resume is not None
        assert (peer.create.resume.token, peer.create.resume.last_seq) == ("token 2", None)
        await peer.open(next_seq=0)
        await peer.end(received=0, predicted=0)

    async with (
        playing(breaks, begins_anew, resumes) as server,
        connect(server.url, LABELS, reconnect=AT_ONCE) as stream,
    ):
        await send(stream, 0, 1)
        resumed = False
        while not resumed:
            message = await anext(stream)
            resumed = isinstance(message, Reconnected) and message.resumed
        assert stream.counts.differences(await stream.close()) == []
    assert stream.counts.lost == 1


async def test_replayed_answers_and_events_are_told_once() -> None:
    async def breaks(peer: Peer) -> None:
        await peer.open()
        await peer.expect_frames(0, 1, 2)
        await peer.predict(0, 2)
        await peer.say(START)
        await peer.cut()

    async def replays(peer: Peer) -> None:
        assert peer.create.resume is not None
        assert peer.create.resume.last_seq == 0
        await peer.open(next_seq=3)
        await peer.predict(2)
        await peer.say(START)
        await peer.predict(1)
        await peer.say(START.model_copy(update={"kind": "end", "timestamp_ms": 20}))
        await peer.end(received=3, predicted=3)

    texts: list[str] = []
    async with (
        playing(breaks, replays) as server,
        connect(server.url, LABELS, reconnect=AT_ONCE, tap=texts.append) as stream,
    ):
        await send(stream, 0, 1, 2)
        await stream.wait_for_answers(below=1)
        closed = await stream.close()
        messages, _ = await read_all(stream)
    assert ends(messages) == [0, 2, 1]
    assert [message.kind for message in messages if isinstance(message, Event)] == ["start", "end"]
    assert stream.counts.differences(closed) == []
    assert sum('"prediction"' in text for text in texts) == 3
    assert sum('"session.created"' in text for text in texts) == 2


async def test_a_break_in_the_middle_of_sending_loses_nothing() -> None:
    """The link breaks again and again while one task sends and another reads."""
    frames = range(40)
    got: list[int] = []

    async def takes_three(peer: Peer) -> None:
        resume = peer.create.resume
        await peer.open(next_seq=None if resume is None else len(got), token=f"token {len(got)}")
        if resume is not None:
            answered = -1 if resume.last_seq is None else resume.last_seq
            await peer.predict(*range(answered + 1, len(got)))
        for _ in range(3):
            seq = await peer.hear()
            assert seq == len(got)
            got.append(seq)
        await peer.predict(got[-3])
        await peer.cut()

    async def takes_the_rest(peer: Peer) -> None:
        assert peer.create.resume is not None
        answered = peer.create.resume.last_seq
        assert answered is not None
        await peer.open(next_seq=len(got))
        await peer.predict(*range(answered + 1, len(got)))
        while len(got) < len(frames):
            seq = await peer.hear()
            assert seq == len(got)
            got.append(seq)
            await peer.predict(seq)
        await peer.end(received=len(frames), predicted=len(frames))

    async with (
        playing(takes_three, takes_three, takes_three, takes_the_rest) as server,
        connect(server.url, LABELS, policy="lossless", reconnect=AT_ONCE) as stream,
    ):
        reading = asyncio.create_task(read_all(stream))
        await send(stream, *frames)
        closed = await stream.close()
        messages, failure = await reading
    assert failure is None
    assert ends(messages) == list(frames)
    assert stream.counts.reconnects == 3
    assert stream.counts.differences(closed) == []


async def test_a_silent_connection_is_left_for_a_new_one() -> None:
    async def is_silent(peer: Peer) -> None:
        await peer.open()
        await peer.expect_frames(0)
        await peer.socket.wait_closed()

    async def answers(peer: Peer) -> None:
        await peer.open(next_seq=1)
        await peer.predict(0)
        await peer.end(received=1, predicted=1)

    async with (
        playing(is_silent, answers) as server,
        connect(server.url, LABELS, timeout_s=0.05, reconnect=AT_ONCE) as stream,
    ):
        await send(stream, 0)
        messages = [await anext(stream)]
        await stream.close()
    assert isinstance(messages[0], Reconnecting)
    assert messages[0].why == "waited 0.05 s for an answer to frame 0"
    assert stream.counts.predicted == 1


async def test_frames_without_an_answer_at_the_end_are_lost_frames() -> None:
    async def ends_the_session(peer: Peer) -> None:
        await peer.open()
        await peer.expect_frames(0, 1)
        await peer.predict(0)
        await peer.say(session_closed("expired", received=1, predicted=1))
        await peer.socket.close(1000)

    async with playing(ends_the_session) as server, connect(server.url, LABELS) as stream:
        await send(stream, 0, 1)
        messages, failure = await read_all(stream)
    assert failure is None
    assert kinds(messages) == ["prediction", "client.frames_lost", "session.closed"]
    assert (stream.counts.sent, stream.counts.lost) == (2, 1)
