"""Bad input in a session, line by line: error text, close code, a neighbour who notices nothing."""

import base64
import json

import pytest

from ovoad_client import protocol

from .harness import (
    EXPECTED_FIELDS,
    EXPECTED_TYPES,
    ColourEncoder,
    Serve,
    create,
    error,
    is_still_served,
    picture,
    until,
    words,
)

# ---- bad frames ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "frame has 0 bytes, expected more than 16"),
        (b"abc", "frame has 3 bytes, expected more than 16"),
        (protocol.pack_frame(0, 0, b""), "frame has 16 bytes, expected more than 16"),
        (picture(), "frame starts with magic 0x5089, expected 0x564F"),
        (b"OV\x02" + bytes(20), "frame has version 2, expected 1"),
        (b"OV\x01\x80" + bytes(20), "frame has flags 128, expected 0"),
    ],
)
async def test_bad_header_is_told_and_the_session_goes_on(
    serve_undisturbed: Serve, data: bytes, text: str
) -> None:
    async with serve_undisturbed() as server, server.session() as client:
        await client.send(data)
        assert await client.receive() == error("bad_frame", text)
        await is_still_served(client, 0)
        closed = await client.close()
        assert (closed.received, closed.predicted, closed.errors) == (2, 1, 1)


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (b"no image", "found 8 bytes starting b'no image', expected JPEG, PNG or WebP"),
        (
            picture()[:-1],
            f"PNG image of {len(picture()) - 1} bytes is truncated, expected a whole one",
        ),
    ],
)
async def test_bad_image_is_told_and_the_session_goes_on(
    serve_undisturbed: Serve, image: bytes, text: str
) -> None:
    async with serve_undisturbed() as server, server.session() as client:
        await client.frame(0, image)
        assert await client.receive() == error("bad_image", text, seq=0)
        await is_still_served(client, 1)


async def test_image_of_too_many_pixels_is_told(serve_undisturbed: Serve) -> None:
    async with serve_undisturbed(max_pixels=256) as server, server.session() as client:
        await client.frame(0, picture(side=17))
        text = "image has 17x17 pixels, expected at most 256 in all"
        assert await client.receive() == error("image_too_large", text, seq=0)
        await is_still_served(client, 1)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            {"image_base64": "!"},
            error(
                "bad_frame",
                "found image_base64 that is not base64 (Only base64 data is allowed), expected "
                "base64 text",
                seq=5,
            ),
        ),
        (
            {"image_base64": ""},
            error("bad_image", "image has 0 bytes, expected JPEG, PNG or WebP", seq=5),
        ),
        (
            {"image_base64": "", "more": 1},
            error("bad_message", f"found unknown field frame.more, {EXPECTED_FIELDS}"),
        ),
        ({}, error("bad_message", "field frame.image_base64 is missing")),
        (
            {"image_base64": "", "seq": -1},
            error(
                "bad_message",
                "frame.seq: found -1: input should be greater than or equal to 0",
            ),
        ),
    ],
)
async def test_bad_frame_message_is_told_and_the_session_goes_on(
    serve_undisturbed: Serve, message: dict[str, object], expected: protocol.Error
) -> None:
    async with serve_undisturbed() as server, server.session() as client:
        await client.send({"type": "frame", "seq": 5, "timestamp_ms": 0, **message})
        assert await client.receive() == expected
        await is_still_served(client, 6)


@pytest.mark.parametrize(("seq", "timestamp_ms"), [(1, 500), (0, 500), (2, 250), (2, 249), (2, -1)])
async def test_seq_or_time_that_goes_back_is_told_and_the_session_goes_on(
    serve_undisturbed: Serve, seq: int, timestamp_ms: int
) -> None:
    async with serve_undisturbed() as server, server.session() as client:
        await is_still_served(client, 1)
        await client.frame(seq, timestamp_ms=timestamp_ms)
        text = (
            f"found seq {seq} at {timestamp_ms} ms after seq 1 at 250 ms, expected both to increase"
        )
        assert await client.receive() == error("out_of_order", text, seq=seq)
        await is_still_served(client, 2)


async def test_most_extreme_seq_and_timestamps_are_answered(serve_undisturbed: Serve) -> None:
    async with serve_undisturbed() as server, server.session() as client:
        for seq, timestamp_ms in ((0, -(2**63)), (1, 0), (protocol.MAX_SEQ, 2**63 - 1)):
            await client.frame(seq, timestamp_ms=timestamp_ms)
            assert (await client.expect(protocol.Prediction)).timestamp_ms == timestamp_ms
        await client.frame(protocol.MAX_SEQ, timestamp_ms=2**63 - 1)
        assert (await client.expect(protocol.Error)).code == "out_of_order"
        await client.send(protocol.VocabularyUpdate(vocabulary=protocol.Vocabulary(labels=["x"])))
        await client.expect(protocol.VocabularyUpdated)


async def test_eight_bad_frames_in_a_row_end_the_session(serve_undisturbed: Serve) -> None:
    async with serve_undisturbed() as server, server.session() as client:
        for seq in range(7):
            await client.frame(seq, b"no image")
            assert (await client.expect(protocol.Error)).seq == seq
        await is_still_served(client, 7)
        for seq in range(8, 16):
            await client.frame(seq, b"no image")
            assert (await client.expect(protocol.Error)).seq == seq
        text = "found 8 bad messages in a row, expected good frames"
        assert await client.receive() == error("too_many_bad_frames", text, fatal=True)
        assert await client.ended() == (protocol.CLOSE_PROTOCOL, "bad frames")


@pytest.mark.parametrize("kind", ["bad header", "out of order", "bad message"])
async def test_eight_bad_messages_of_each_kind_end_the_session(
    serve_undisturbed: Serve, kind: str
) -> None:
    bad: dict[str, bytes | str] = {
        "bad header": b"abc",
        "out of order": protocol.pack_frame(0, 0, picture()),
        "bad message": "{}",
    }
    async with serve_undisturbed() as server, server.session() as client:
        await is_still_served(client, 0)
        for _ in range(8):
            await client.send(bad[kind])
            assert not (await client.expect(protocol.Error)).fatal
        assert (await client.expect(protocol.Error)).code == "too_many_bad_frames"
        assert (await client.ended())[0] == protocol.CLOSE_PROTOCOL


async def test_frames_that_wait_when_a_session_is_ended_are_dropped_stale(
    serve_undisturbed: Serve, encoder: ColourEncoder
) -> None:
    async with serve_undisturbed() as server, server.session() as client:
        encoder.hold_text.clear()
        vocabulary = protocol.Vocabulary(labels=["x"])
        await client.send(protocol.VocabularyUpdate(vocabulary=vocabulary))
        await client.frame(0)
        for _ in range(8):
            await client.send("{}")
            await client.expect(protocol.Error)
        dropped = protocol.FrameDropped(seq=0, timestamp_ms=0, reason="stale")
        assert await client.receive() == dropped
        assert (await client.expect(protocol.Error)).code == "too_many_bad_frames"
        assert (await client.ended())[0] == protocol.CLOSE_PROTOCOL
        encoder.hold_text.set()


# ---- too large -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["binary", "base64"])
async def test_frame_above_the_limit_ends_the_session_with_1009(
    serve_undisturbed: Serve, form: str
) -> None:
    image = picture() + bytes(1025 - len(picture()))
    async with serve_undisturbed(max_frame_bytes=1024) as server, server.session() as client:
        await client.frame(0, image[:-1])
        await client.expect(protocol.Prediction)
        if form == "binary":
            await client.frame(1, image)
        else:
            text = base64.b64encode(image).decode()
            await client.send(protocol.FrameMessage(seq=1, timestamp_ms=250, image_base64=text))
        text = "frame has 1025 bytes, expected at most 1024"
        assert await client.receive() == error("frame_too_large", text, fatal=True)
        assert await client.ended() == (protocol.CLOSE_TOO_LARGE, "frame too large")


@pytest.mark.parametrize("message", [bytes(100_000), "x" * 100_000])
@pytest.mark.parametrize("before", [True, False])
async def test_message_above_the_socket_s_limit_is_not_even_read(
    serve_undisturbed: Serve, message: bytes | str, before: bool
) -> None:
    async with serve_undisturbed(max_frame_bytes=1024) as server, server.connect() as client:
        if not before:
            await client.create()
        await client.send(message)
        assert (await client.ended())[0] == protocol.CLOSE_TOO_LARGE


async def test_too_large_message_while_answers_are_due_is_no_fault(
    serve_undisturbed: Serve, encoder: ColourEncoder
) -> None:
    async with (
        serve_undisturbed(max_frame_bytes=1024, max_inflight=1) as server,
        server.session() as client,
    ):
        encoder.hold.clear()
        frames = [protocol.pack_frame(seq, seq * 250, picture()) for seq in (0, 1)]
        for message in (*frames, bytes(100_000)):
            await client.send(message)
        await until(lambda: client.socket.protocol.close_rcvd is not None)
        encoder.hold.set()
        assert (await client.ended())[0] == protocol.CLOSE_TOO_LARGE


# ---- out of turn ---------------------------------------------------------------------------------


async def test_second_create_is_told_and_the_session_goes_on(serve_undisturbed: Serve) -> None:
    async with serve_undisturbed() as server, server.session() as client:
        await client.send(create())
        text = "found a second session.create, expected frames"
        assert await client.receive() == error("out_of_turn", text)
        await is_still_served(client, 0)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("x", "message: found 'x': invalid JSON: expected value at line 1 column 1"),
        ("", "message: found '': invalid JSON: EOF while parsing a value at line 1 column 0"),
        ("{}", "message: found no field 'type', expected one that names the message"),
        ('{"type": "session.created"}', f"found type 'session.created', {EXPECTED_TYPES}"),
        (json.dumps({"type": "x" * 5000}), f"found type '{'x' * 80}', {EXPECTED_TYPES}"),
        (
            '{"type": "session.reset", "more": 1}',
            f"found unknown field session.reset.more, {EXPECTED_FIELDS}",
        ),
        (
            json.dumps({"type": "session.reset", "x" * 5000: 1}),
            f"found unknown field session.reset.{'x' * 80}, {EXPECTED_FIELDS}",
        ),
    ],
    ids=lambda value: value[:40],
)
async def test_bad_message_is_told_and_the_session_goes_on(
    serve_undisturbed: Serve, message: str, text: str
) -> None:
    async with serve_undisturbed() as server, server.session() as client:
        await client.send(message)
        assert await client.receive() == error("bad_message", text)
        await is_still_served(client, 0)


@pytest.mark.parametrize(
    ("vocabulary", "text"),
    [
        (words(), "vocabulary.update.vocabulary: found no label, expected at least 1"),
        (
            words("a", "a"),
            "vocabulary.update.vocabulary: found label 'a' twice, expected each label once",
        ),
        (
            words("a", templates=["{} {}"]),
            "vocabulary.update.vocabulary: found template '{} {}', expected exactly one {} in at "
            "most 256 characters",
        ),
        ({}, "field vocabulary.update.vocabulary.labels is missing"),
        (words(*map(str, range(1001))), "found 1001 labels, expected at most 1000"),
    ],
)
async def test_refused_update_leaves_the_old_words_in_force(
    serve_undisturbed: Serve, vocabulary: dict[str, object], text: str
) -> None:
    async with serve_undisturbed() as server, server.session() as client:
        await client.send({"type": "vocabulary.update", "vocabulary": vocabulary})
        assert await client.receive() == error("bad_vocabulary", text)
        await client.frame(0)
        prediction = await client.expect(protocol.Prediction)
        assert (prediction.vocabulary_version, prediction.similarities) == (1, [1.0, 0.0])
        await client.send({"type": "vocabulary.update", "vocabulary": words("green")})
        updated = await client.expect(protocol.VocabularyUpdated)
        assert updated.vocabulary_version == 2


async def test_text_that_is_not_utf_8_is_closed_with_1007(serve: Serve) -> None:
    async with serve() as server:
        async with server.session() as client:
            await client.socket.send(b"\xff\xfe", text=True)
            assert (await client.ended())[0] == 1007
        await server.is_empty()
