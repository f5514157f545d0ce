"""Bad first messages, line by line: error text, close code, and a neighbour who notices nothing."""

import pytest

from ovoad_client import protocol

from .harness import (
    EXPECTED_FIELDS,
    EXPECTED_TYPES,
    Serve,
    create,
    error,
    is_still_served,
    picture,
    words,
)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("hello", "message: found 'hello': invalid JSON: expected value at line 1 column 1"),
        ("[]", "message: found []: input should be an object"),
        ("{}", "message: found no field 'type', expected one that names the message"),
        (
            '{"type": "session.created"}',
            f"found type 'session.created', {EXPECTED_TYPES}",
        ),
        ('{"type": 7}', f"found type '7', {EXPECTED_TYPES}"),
        (create(more=1), f"found unknown field session.create.more, {EXPECTED_FIELDS}"),
        (
            create(policy="fast"),
            "session.create.policy: found 'fast': input should be 'realtime' or 'lossless'",
        ),
        (
            create(scorer="best"),
            "session.create.scorer: found 'best': input should be 'frame', 'average', 'cluster' "
            "or 'ovoad'",
        ),
        (
            create(top_k=0),
            "session.create.top_k: found 0: input should be greater than or equal to 1",
        ),
        (
            create(events={"enter": 0.2, "exit": 0.5}),
            "session.create.events: found exit 0.5 above enter 0.2, expected exit <= enter",
        ),
    ],
)
async def test_bad_create_is_told_and_ends_the_connection(
    serve_undisturbed: Serve, message: str, text: str
) -> None:
    async with serve_undisturbed() as server, server.connect() as client:
        await client.send(message)
        assert await client.receive() == error("bad_message", text, fatal=True)
        assert await client.ended() == (protocol.CLOSE_PROTOCOL, "bad_message")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ('{"type": "session.create"}', "field session.create.vocabulary is missing"),
        (
            create(vocabulary=words("red", more=1)),
            f"found unknown field session.create.vocabulary.more, {EXPECTED_FIELDS}",
        ),
        (
            create(vocabulary=words()),
            "session.create.vocabulary: found no label, expected at least 1",
        ),
        (
            create(vocabulary=words("red", " ")),
            "session.create.vocabulary: found an empty label, expected words",
        ),
        (
            create(vocabulary=words("red", "blue", "red")),
            "session.create.vocabulary: found label 'red' twice, expected each label once",
        ),
        (
            create(vocabulary=words("x" * 10_000)),
            "session.create.vocabulary: found a label of 10000 characters, expected at most 256",
        ),
        (
            create(vocabulary=words("red", 3)),
            "session.create.vocabulary.labels.1: found 3: input should be a valid string",
        ),
        (
            create(vocabulary=words("red", templates=["a photo"])),
            "session.create.vocabulary: found template 'a photo', expected exactly one {} in at "
            "most 256 characters",
        ),
        (
            create(vocabulary=words("red", templates=["{} and {}"])),
            "session.create.vocabulary: found template '{} and {}', expected exactly one {} in at "
            "most 256 characters",
        ),
        (
            create(vocabulary=words("red", templates=[])),
            "session.create.vocabulary: found an empty list of templates, expected at least 1 or "
            "none",
        ),
        (
            create(vocabulary=words("red", background=[])),
            "session.create.vocabulary: found an empty list of background concepts, expected at "
            "least 1 or none",
        ),
        (
            create(vocabulary=words("red", background=[""])),
            "session.create.vocabulary: found an empty label, expected words",
        ),
        (
            create(vocabulary=words("red", templates=["{}" + "x" * 255])),
            f"session.create.vocabulary: found template '{{}}{'x' * 78}', expected exactly one "
            "{} in at most 256 characters",
        ),
        (
            create(vocabulary=words("red", background=["x" * 257])),
            "session.create.vocabulary: found a label of 257 characters, expected at most 256",
        ),
        (
            create(vocabulary=["red"]),
            "session.create.vocabulary: found ['red']: input should be an object",
        ),
    ],
)
async def test_bad_words_in_create_are_told_and_end_the_connection(
    serve_undisturbed: Serve, message: str, text: str
) -> None:
    async with serve_undisturbed() as server, server.connect() as client:
        await client.send(message)
        assert await client.receive() == error("bad_vocabulary", text, fatal=True)
        assert await client.ended() == (protocol.CLOSE_PROTOCOL, "bad_vocabulary")


async def test_more_prompts_than_allowed_are_refused(serve_undisturbed: Serve) -> None:
    templates = [f"{number} {{}}" for number in range(11)]
    many = {"labels": [str(number) for number in range(1000)], "templates": templates}
    async with serve_undisturbed() as server, server.connect() as client:
        await client.send({"type": "session.create", "vocabulary": many})
        text = "found 11000 prompts (labels times templates), expected at most 10000"
        assert await client.receive() == error("bad_vocabulary", text, fatal=True)
        assert await client.ended() == (protocol.CLOSE_PROTOCOL, "bad_vocabulary")


async def test_more_labels_than_allowed_are_refused(serve_undisturbed: Serve) -> None:
    async with serve_undisturbed() as server, server.connect() as client:
        await client.send(create(vocabulary=words(*map(str, range(1001)))))
        assert await client.receive() == error(
            "bad_vocabulary", "found 1001 labels, expected at most 1000", fatal=True
        )
        assert await client.ended() == (protocol.CLOSE_PROTOCOL, "bad_vocabulary")
        async with server.session([str(number) for number in range(1000)]) as allowed:
            await is_still_served(allowed, 0)


async def test_scorer_that_is_not_at_hand_is_refused(serve_undisturbed: Serve) -> None:
    async with serve_undisturbed() as server, server.connect() as client:
        await client.send(create(scorer="ovoad"))
        text = "found scorer ovoad, expected one of average, frame, cluster"
        assert await client.receive() == error("unknown_scorer", text, fatal=True)
        assert await client.ended() == (protocol.CLOSE_PROTOCOL, "unknown_scorer")


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (protocol.Ping(), "ping"),
        (protocol.SessionClose(), "session.close"),
        (protocol.FrameMessage(seq=0, timestamp_ms=0, image_base64=""), "frame"),
        (protocol.pack_frame(0, 0, picture()), "a binary message"),
    ],
)
async def test_first_message_must_be_create(
    serve_undisturbed: Serve, message: protocol.Message | bytes, what: str
) -> None:
    async with serve_undisturbed() as server, server.connect() as client:
        await client.send(message)
        text = f"found {what} first, expected session.create"
        assert await client.receive() == error("out_of_turn", text, fatal=True)
        assert await client.ended() == (protocol.CLOSE_PROTOCOL, "out_of_turn")


async def test_silence_before_create_is_ended(serve_undisturbed: Serve) -> None:
    async with serve_undisturbed(create_timeout_s=0.5) as server, server.connect() as client:
        assert await client.receive() == error(
            "create_timeout", "found no message in 0.5 s, expected session.create", fatal=True
        )
        assert await client.ended() == (protocol.CLOSE_PROTOCOL, "create_timeout")
