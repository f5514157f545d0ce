"""Tests of new words, resets and pings whose connection breaks."""

from __future__ import annotations

import asyncio

import pytest

from ovoad_client.client import connect
from ovoad_client.errors import RefusedError
from ovoad_client.protocol import (
    Error,
    Policy,
    SessionClosed,
    SessionReset,
    SessionWasReset,
    VocabularyUpdate,
    VocabularyUpdated,
)

from .scripted import AT_ONCE, LABELS, Peer, kinds, playing, read_all, send


def updated(version: int, labels: list[str], *, from_seq: int = 0) -> VocabularyUpdated:
    return VocabularyUpdated(vocabulary_version=version, labels=labels, from_seq=from_seq)


@pytest.mark.parametrize("policy", ["lossless", "realtime"])
async def test_requests_that_a_break_swallowed_are_repeated_in_their_place(policy: Policy) -> None:
    async def breaks(peer: Peer) -> None:
        await peer.open()
        for _ in range(5):  # two frames, new words, a reset, a ping
            await peer.hear()
        await peer.cut()

    async def resumes(peer: Peer) -> None:
        await peer.open(next_seq=0)
        heard = [await peer.hear() for _ in range(5 if policy == "lossless" else 3)]
        frames = [0, 1] if policy == "lossless" else []
        assert [one if isinstance(one, int) else one.type for one in heard] == [
            *frames[:1],
            *("vocabulary.update", "session.reset"),
            *frames[1:],
            "ping",
        ]
        await peer.say(updated(2, ["sitting"], from_seq=1), SessionWasReset())
        await peer.socket.send('{"type":"pong"}')
        await peer.predict(*frames)
        await peer.end(received=len(frames), predicted=len(frames))

    async with (
        playing(breaks, resumes) as server,
        connect(server.url, LABELS, policy=policy, reconnect=AT_ONCE) as stream,
    ):
        await send(stream, 0)
        async with asyncio.TaskGroup() as tasks:
            words = tasks.create_task(stream.update_vocabulary(["sitting"]))
            tasks.create_task(stream.reset())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await send(stream, 1)
            tasks.create_task(stream.ping())
        assert words.result().labels == ["sitting"]


async def test_request_that_a_later_frame_proves_is_not_repeated() -> None:
    async def breaks(peer: Peer) -> None:
        await peer.open()
        assert isinstance(await peer.hear(), VocabularyUpdate)
        await peer.expect_frames(0)
        await peer.cut()

    async def resumes(peer: Peer) -> None:
        await peer.open(next_seq=1)
        await peer.say(updated(2, ["sitting"]))
        await peer.predict(0)
        await peer.end(received=1, predicted=1)

    async with (
        playing(breaks, resumes) as server,
        connect(server.url, LABELS, reconnect=AT_ONCE) as stream,
    ):
        asking = asyncio.create_task(stream.update_vocabulary(["sitting"]))
        await asyncio.sleep(0)
        await send(stream, 0)
        assert (await asking).vocabulary_version == 2


async def test_words_taken_twice_leave_the_next_update_its_own_reply() -> None:
    async def breaks(peer: Peer) -> None:
        await peer.open()
        assert isinstance(await peer.hear(), VocabularyUpdate)
        await peer.cut()

    async def had_taken_them(peer: Peer) -> None:
        await peer.open(next_seq=0)
        await peer.say(updated(2, ["a"]))
        assert isinstance(await peer.hear(), VocabularyUpdate)
        assert isinstance(await peer.hear(), VocabularyUpdate)
        await peer.say(updated(3, ["a"]), updated(4, ["b"]))
        await peer.end(received=0, predicted=0)

    async with (
        playing(breaks, had_taken_them) as server,
        connect(server.url, LABELS, reconnect=AT_ONCE) as stream,
    ):
        assert (await stream.update_vocabulary(["a"])).vocabulary_version == 2
        reply = await stream.update_vocabulary(["b"])
        assert (reply.vocabulary_version, reply.labels) == (4, ["b"])
        await stream.close()
        messages, _ = await read_all(stream)
    assert [m.vocabulary_version for m in messages if isinstance(m, VocabularyUpdated)] == [2, 3, 4]


async def test_a_fresh_session_begins_with_the_newest_words_that_were_taken() -> None:
    async def takes_words_and_breaks(peer: Peer) -> None:
        await peer.open()
        assert isinstance(await peer.hear(), VocabularyUpdate)
        await peer.say(updated(2, ["sitting"]))
        assert isinstance(await peer.hear(), SessionReset)
        await peer.cut()

    async def begins_anew(peer: Peer) -> None:
        assert peer.create.vocabulary.labels == ["sitting"]
        assert peer.create.vocabulary.background == ["an empty room"]
        await peer.open()
        assert isinstance(await peer.hear(), SessionReset)
        await peer.say(SessionWasReset())
        assert isinstance(await peer.hear(), VocabularyUpdate)
        await peer.say(updated(2, ["standing"]))
        await peer.end(received=0, predicted=0)

    async with (
        playing(takes_words_and_breaks, begins_anew) as server,
        connect(server.url, LABELS, reconnect=AT_ONCE) as stream,
    ):
        await stream.update_vocabulary(["sitting"], background=["an empty room"])
        await stream.reset()
        reply = await stream.update_vocabulary(["standing"])
        assert reply.vocabulary_version == 2
        await stream.close()
        messages, _ = await read_all(stream)
    assert kinds(messages) == [
        *("vocabulary.updated", "client.reconnecting", "session.created", "client.reconnected"),
        *("session.was_reset", "vocabulary.updated", "session.closed"),
    ]


async def test_request_still_open_when_the_stream_ends_fails_with_the_reason() -> None:
    async def breaks(peer: Peer) -> None:
        await peer.open()
        await peer.hear()
        await peer.refuse("superseded", 1008)

    async with playing(breaks) as server, connect(server.url, LABELS) as stream:
        with pytest.raises(RefusedError, match="another client took the session over"):
            await stream.reset()


async def test_session_closed_is_the_last_word() -> None:
    async def closes(peer: Peer) -> None:
        await peer.open()
        await peer.end(received=0, predicted=0)

    async with playing(closes) as server, connect(server.url, LABELS) as stream:
        await stream.close()
        messages, _ = await read_all(stream)
    assert [type(message) for message in messages] == [SessionClosed]


async def test_refusal_told_before_a_break_is_not_taken_for_the_next_updates_reply() -> None:
    refusal = Error(code="bad_vocabulary", message="found 11", fatal=False, transient=False)

    async def refuses_and_breaks(peer: Peer) -> None:
        await peer.open()
        await peer.hear()
        await peer.say(refusal)
        await peer.hear()
        await peer.cut()

    async def replays_the_refusal(peer: Peer) -> None:
        await peer.open(next_seq=0)
        await peer.say(refusal)
        assert isinstance(await peer.hear(), VocabularyUpdate)
        await peer.say(updated(2, ["sitting"]))
        await peer.end(received=0, predicted=0)

    async with (
        playing(refuses_and_breaks, replays_the_refusal) as server,
        connect(server.url, LABELS, reconnect=AT_ONCE) as stream,
    ):
        with pytest.raises(RefusedError, match="found 11"):
            await stream.update_vocabulary([str(number) for number in range(11)])
        assert (await stream.update_vocabulary(["sitting"])).labels == ["sitting"]
        await stream.close()
        messages, _ = await read_all(stream)
    assert kinds(messages).count("error") == 1
