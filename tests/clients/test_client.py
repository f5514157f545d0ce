"""Tests of the streaming client against a server on loopback."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from ovoad_client import stream as stream_module
from ovoad_client.client import Stream, connect
from ovoad_client.errors import (
    BrokenError,
    FrameError,
    RefusedError,
    SilenceError,
    UnauthorisedError,
    UnreachableError,
    UsageError,
)
from ovoad_client.notices import StreamMessage
from ovoad_client.protocol import (
    Error,
    EventSettings,
    FrameDropped,
    Prediction,
    SessionClosed,
    VocabularyUpdated,
)

if TYPE_CHECKING:
    from tests.clients.conftest import FakeServer

LABELS = ["waving", "jumping"]
IMAGE = b"\xff\xd8 not looked at by the fake server"


async def test_every_frame_is_answered_and_the_counts_agree(server: FakeServer) -> None:
    server.drop_every, server.fail_on = 4, 1
    texts: list[str] = []
    messages: list[StreamMessage] = []
    async with connect(server.url, LABELS, tap=texts.append) as stream:
        for index in range(8):
            assert await stream.send(IMAGE, timestamp_ms=index * 40) == index
        closed = await stream.close()
        messages = [message async for message in stream]
    assert closed.received == 8
    assert stream.counts.differences(closed) == []
    assert [type(message) for message in messages].count(Prediction) == 5
    assert [m.seq for m in messages if isinstance(m, FrameDropped)] == [3, 7]
    assert [m.seq for m in messages if isinstance(m, Error)] == [1]
    assert messages[-1] == closed
    assert len(texts) == len(messages) + 1
    assert '"session.created"' in texts[0]
    assert len(stream.latencies_ms) == 5
    assert server.frames[2] == (2, 80, IMAGE)


async def test_what_is_asked_for_reaches_the_server(server: FakeServer) -> None:
    server.warnings = ["label 'waving' is close to background"]
    async with connect(
        server.url,
        LABELS,
        templates=["a person {}"],
        background=["an empty room"],
        policy="lossless",
        scorer="cluster",
        top_k=1,
        events=EventSettings(enter=0.6, exit=0.2, min_duration_ms=100),
    ) as stream:
        assert stream.created.policy == "lossless"
        assert stream.created.warnings == server.warnings
    create = server.creates[0]
    assert create.vocabulary.templates == ["a person {}"]
    assert create.vocabulary.background == ["an empty room"]
    assert (create.policy, create.scorer, create.top_k) == ("lossless", "cluster", 1)
    assert create.events == EventSettings(enter=0.6, exit=0.2, min_duration_ms=100)
    assert server.subprotocols == ["ovoad.v1"]
    assert server.extensions == [None]  # no compression


async def test_leaving_the_block_closes_the_session(server: FakeServer) -> None:
    async with connect(server.url, LABELS) as stream:
        await stream.send(IMAGE, timestamp_ms=0)
    assert stream.closed is not None
    assert stream.closed.reason == "closed by client"
    with pytest.raises(BrokenError, match=r"the session has ended \(closed by client\)"):
        await stream.send(IMAGE, timestamp_ms=1)


async def test_lossless_keeps_to_the_frames_in_flight_that_the_server_grants(
    server: FakeServer,
) -> None:
    async with connect(server.url, LABELS, policy="lossless") as stream:
        server.hold.clear()
        for index in range(3):
            await stream.send(IMAGE, timestamp_ms=index)
        fourth = asyncio.create_task(stream.send(IMAGE, timestamp_ms=3))
        assert await stream.ping() > 0  # a round trip: the fourth has had its chance
        assert not fourth.done()
        assert len(server.frames) == 3
        server.hold.set()
        assert await fourth == 3
        closed = await stream.close()
    assert closed.predicted == 4


async def test_words_can_be_changed_in_the_middle(server: FakeServer) -> None:
    async with connect(server.url, LABELS) as stream:
        await stream.send(IMAGE, timestamp_ms=0)
        updated = await stream.update_vocabulary(["sitting"])
        assert updated.vocabulary_version == 2
        assert updated.labels == ["sitting"]
        await stream.reset()
        await stream.close()
        kinds = [message.type async for message in stream]
    assert kinds.count("vocabulary.updated") == 1
    assert kinds.count("session.was_reset") == 1


async def test_a_refused_update_tells_why_and_the_session_goes_on(server: FakeServer) -> None:
    server.refuse_updates = True
    async with connect(server.url, LABELS) as stream:
        with pytest.raises(RefusedError, match="found 1001 labels, expected at most 1000"):
            await stream.update_vocabulary(["sitting"])
        await stream.send(IMAGE, timestamp_ms=0)
        assert (await stream.close()).predicted == 1


async def test_frames_that_the_server_would_refuse_are_not_sent(server: FakeServer) -> None:
    async with connect(server.url, LABELS) as stream:
        with pytest.raises(FrameError, match="frame has 200001 bytes, the server takes at most"):
            await stream.send(b"x" * 200_001, timestamp_ms=0)
        await stream.send(IMAGE, timestamp_ms=40)
        with pytest.raises(FrameError, match="timestamp_ms 40, expected more than 40"):
            await stream.send(IMAGE, timestamp_ms=40)
        assert await stream.send(IMAGE, timestamp_ms=41) == 1


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([], "found no label, expected at least 1"),
        (["a", "a"], "found label 'a' twice, expected each label once"),
        ([" "], "found an empty label, expected words"),
        (["x" * 300], "found a label of 300 characters, expected at most 256"),
    ],
)
async def test_bad_labels_are_refused_before_connecting(labels: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        async with connect("ws://127.0.0.1:1", labels):
            pass
    assert str(caught.value) == text


async def test_bad_top_k_is_refused_before_connecting() -> None:
    with pytest.raises(UsageError) as caught:
        async with connect("ws://127.0.0.1:1", LABELS, top_k=0):
            pass
    assert str(caught.value) == "top_k: found 0: input should be greater than or equal to 1"


async def test_refused_connection_says_how_to_start_a_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    expected = (
        f"cannot reach ws://127.0.0.1:{port}/v1/stream: connection refused; "
        "is the server running\\? start it with: ovoad serve"
    )
    with pytest.raises(UnreachableError, match=expected):
        async with connect(f"127.0.0.1:{port}", LABELS):
            pass


async def test_a_port_that_does_not_answer_is_given_up() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        pytest.raises(UnreachableError, match=r"no answer within 0\.1 s"),
    ):
        async with connect(f"127.0.0.1:{mute.getsockname()[1]}", LABELS, open_timeout_s=0.1):
            pass


async def test_a_server_of_another_kind_is_told() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(UnreachableError, match="found HTTP status 404, expected a WebSocket"):
            async with connect(f"127.0.0.1:{port}", LABELS):
                pass


@pytest.mark.parametrize("by_close_code", [False, True])
@pytest.mark.parametrize(
    ("key", "text"),
    [(None, "no API key was given"), ("wrong", "the API key is not the server's")],
)
async def test_wrong_keys_are_told(
    server: FakeServer, by_close_code: bool, key: str | None, text: str
) -> None:
    server.api_key, server.key_by_close_code = "right", by_close_code
    with pytest.raises(UnauthorisedError, match=f"{text}; pass --api-key or set OVOAD_API_KEY"):
        async with connect(server.url, LABELS, api_key=key):
            pass


async def test_the_right_key_opens(server: FakeServer) -> None:
    server.api_key = "right"
    async with connect(server.url, LABELS, api_key="right") as stream:
        assert stream.created.labels == LABELS


@pytest.mark.parametrize("key", ["schlüssel", "two words", "line\n"])
async def test_a_key_that_no_header_can_carry_is_refused(server: FakeServer, key: str) -> None:
    with pytest.raises(UsageError, match="found an API key with blanks or unusual characters"):
        async with connect(server.url, LABELS, api_key=key):
            pass


async def test_unauthorised_error_message_counts_as_a_wrong_key(server: FakeServer) -> None:
    server.refuse = Error(code="unauthorised", message="found none", fatal=True, transient=False)
    with pytest.raises(UnauthorisedError, match="no API key was given"):
        async with connect(server.url, LABELS):
            pass


async def test_a_refused_session_tells_the_servers_reason(server: FakeServer) -> None:
    text = "found 64 sessions, expected fewer than 64"
    server.refuse = Error(code="capacity", message=text, fatal=True, transient=True)
    with pytest.raises(RefusedError, match=rf"server refused: {text} \(capacity\)") as caught:
        async with connect(server.url, LABELS):
            pass
    assert caught.value.code == "capacity"


async def test_an_unexpected_first_message_is_told(server: FakeServer) -> None:
    server.first_text = '{"type":"pong"}'
    with pytest.raises(BrokenError, match=r"found pong as the first message"):
        async with connect(server.url, LABELS):
            pass


async def test_a_connection_closed_in_the_middle_is_told(server: FakeServer) -> None:
    server.break_after = 1
    async with connect(server.url, LABELS, reconnect=None) as stream:
        await stream.send(IMAGE, timestamp_ms=0)
        await stream.send(IMAGE, timestamp_ms=1)
        with pytest.raises(
            BrokenError, match=r"fault in the server \(1011\); frames with no answer: 1"
        ):
            async for _ in stream:
                pass
        with pytest.raises(BrokenError) as caught:
            await stream.close()
        assert caught.value.close_code == 1011


async def test_a_message_out_of_contract_ends_the_session(server: FakeServer) -> None:
    server.garbage_after = 0
    async with connect(server.url, LABELS) as stream:
        await stream.send(IMAGE, timestamp_ms=0)
        with pytest.raises(BrokenError, match="found a server message out of contract: "):
            [message async for message in stream]


async def test_a_session_that_the_server_ends_is_read_to_its_end(server: FakeServer) -> None:
    server.end_after = 1
    async with connect(server.url, LABELS) as stream:
        await stream.send(IMAGE, timestamp_ms=0)
        await stream.send(IMAGE, timestamp_ms=1)
        messages = [message async for message in stream]
    assert isinstance(messages[-1], SessionClosed)
    assert messages[-1].reason == "idle"


async def test_silence_is_not_waited_for_without_end(server: FakeServer) -> None:
    server.silent = True
    async with connect(server.url, LABELS, timeout_s=0.05, reconnect=None) as stream:
        await stream.send(IMAGE, timestamp_ms=0)
        with pytest.raises(SilenceError, match=r"waited 0\.05 s for an answer to frame 0"):
            [message async for message in stream]


async def test_unread_messages_are_bounded_and_the_error_says_so(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "MAX_UNREAD_MESSAGES", 2)

    async def send_all(stream: Stream) -> None:
        for index in range(20):
            await stream.send(IMAGE, timestamp_ms=index)

    async with connect(server.url, LABELS, policy="lossless", timeout_s=0.1) as stream:
        with pytest.raises(SilenceError, match="2 messages wait unread, expected them to be read"):
            await send_all(stream)
        closed = await stream.close()  # lifts the bound, so that nothing is lost
        messages = [message async for message in stream]
    assert len(messages) == closed.predicted + 1


async def test_differing_counts_are_told(server: FakeServer) -> None:
    server.miscount = 1
    async with connect(server.url, LABELS) as stream:
        await stream.send(IMAGE, timestamp_ms=0)
        closed = await stream.close()
    assert stream.counts.differences(closed) == [
        "the server counted 2 received, this client 1",
    ]


async def test_an_error_inside_the_block_is_not_hidden(server: FakeServer) -> None:
    async def fail_inside() -> None:
        async with connect(server.url, LABELS) as stream:
            await stream.send(IMAGE, timestamp_ms=0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_inside()


async def test_updates_in_a_row_are_answered_in_turn(server: FakeServer) -> None:
    async with connect(server.url, LABELS) as stream:
        replies: tuple[VocabularyUpdated, ...] = await asyncio.gather(
            stream.update_vocabulary(["a"]), stream.update_vocabulary(["b"])
        )
    assert [reply.labels for reply in replies] == [["a"], ["b"]]
