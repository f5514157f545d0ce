"""Golden wire messages, one file a message, and the texts of refusals.

tests/golden/client.TYPE.json and server.TYPE.json hold messages with every field that goes with
it; binary_frame.json holds one binary frame as hex. Other clients are checked against the same.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from ovoad_client.protocol import (
    ClientMessage,
    EventSettings,
    FrameMessage,
    ProtocolError,
    ServerMessage,
    describe,
    pack_frame,
    parse_client_message,
    parse_server_message,
    unpack_frame,
)

GOLDEN = Path(__file__).parents[1] / "golden"
CLIENT_FILES = sorted(GOLDEN.glob("client.*.json"))
SERVER_FILES = sorted(GOLDEN.glob("server.*.json"))
Parse = Callable[[str | bytes], Any]
CASES: list[tuple[Path, Parse]] = [
    *((path, parse_client_message) for path in CLIENT_FILES),
    *((path, parse_server_message) for path in SERVER_FILES),
]
IDS = [path.stem for path, _ in CASES]


def compact(path: Path) -> str:
    """Return a golden message as it goes over the wire."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


@pytest.mark.parametrize(("path", "parse"), CASES, ids=IDS)
def test_golden_message_survives_parsing_and_serialising(path: Path, parse: Parse) -> None:
    message = parse(compact(path))
    assert message.type in path.name
    assert message.to_json() == compact(path)
    assert parse(message.to_json()) == message


@pytest.mark.parametrize(("path", "parse"), CASES, ids=IDS)
def test_unknown_field_is_refused_and_named(path: Path, parse: Parse) -> None:
    content = {**json.loads(compact(path)), "surprise": 1}
    with pytest.raises(ProtocolError, match=r"found unknown field \S*surprise, expected only the"):
        parse(json.dumps(content))


@pytest.mark.parametrize(("path", "parse"), CASES, ids=IDS)
def test_unknown_field_in_an_inner_object_is_refused(path: Path, parse: Parse) -> None:
    content = json.loads(compact(path))
    inner = [value for value in content.values() if isinstance(value, dict)]
    for value in inner:
        value["surprise"] = 1
        with pytest.raises(ProtocolError, match="found unknown field"):
            parse(json.dumps(content))
        del value["surprise"]


def test_every_message_of_the_contract_has_a_golden_file() -> None:
    for union, files in ((ClientMessage, CLIENT_FILES), (ServerMessage, SERVER_FILES)):
        types = {model.model_fields["type"].default for model in get_args(get_args(union)[0])}
        assert {json.loads(compact(path))["type"] for path in files} == types


def test_golden_binary_frame_survives_parsing_and_packing() -> None:
    golden = json.loads((GOLDEN / "binary_frame.json").read_text(encoding="utf-8"))
    message = bytes.fromhex(golden["message_hex"])
    frame = unpack_frame(message)
    assert frame.seq == golden["seq"]
    assert frame.timestamp_ms == golden["timestamp_ms"]
    assert frame.image == bytes.fromhex(golden["image_hex"])
    assert pack_frame(frame.seq, frame.timestamp_ms, frame.image) == message


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "frame has 0 bytes, expected more than 16"),
        (pack_frame(1, 1, b""), "frame has 16 bytes, expected more than 16"),
        (b"\xff\xd8" + bytes(20), "frame starts with magic 0xD8FF, expected 0x564F"),
        (b"OV\x02" + bytes(20), "frame has version 2, expected 1"),
        (b"OV\x01\x80" + bytes(20), "frame has flags 128, expected 0"),
    ],
)
def test_bad_binary_frame_says_what_was_expected(data: bytes, text: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        unpack_frame(data)
    assert str(caught.value) == text
    assert caught.value.code == "bad_frame"


def create_with(**vocabulary: object) -> str:
    """Return a session.create with this vocabulary."""
    return json.dumps({"type": "session.create", "vocabulary": vocabulary})


@pytest.mark.parametrize("kind", ["session.create", "vocabulary.update"])
@pytest.mark.parametrize(
    ("vocabulary", "expected"),
    [
        ({"labels": []}, ": found no label, expected at least 1"),
        ({"labels": [""]}, ": found an empty label, expected words"),
        ({"labels": ["\t"]}, ": found an empty label, expected words"),
        (
            {"labels": ["a", "b", "a"]},
            ": found label 'a' twice, expected each label once",
        ),
        (
            {"labels": ["x" * 10_240]},
            ": found a label of 10240 characters, expected at most 256",
        ),
        (
            {"labels": ["a"], "templates": ["a person"]},
            ": found template 'a person', expected exactly one {} in at most 256 characters",
        ),
        (
            {"labels": ["a"], "templates": ["{} {}"]},
            ": found template '{} {}', expected exactly one {} in at most 256 characters",
        ),
        (
            {"labels": ["a"], "templates": []},
            ": found an empty list of templates, expected at least 1 or none",
        ),
        (
            {"labels": ["a"], "background": []},
            ": found an empty list of background concepts, expected at least 1 or none",
        ),
        (
            {"labels": "waving"},
            ".labels: found 'waving': input should be a valid array",
        ),
        (
            {"labels": ["a"], "templates": ["{}"] * 101},
            f".templates: found {str(['{}'] * 101)[:80]}: list should have at most 100 items after "
            "validation, not 101",
        ),
    ],
)
def test_what_is_wrong_with_the_words_is_a_bad_vocabulary(
    kind: str, vocabulary: dict[str, object], expected: str
) -> None:
    text, code = refusal(json.dumps({"type": kind, "vocabulary": vocabulary}))
    assert (text, code) == (f"{kind}.vocabulary{expected}", "bad_vocabulary")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"vocabulary":{}}', "field session.create.vocabulary.labels is missing"),
        ("{}", "field session.create.vocabulary is missing"),
        ('{"vocabulary":3}', "session.create.vocabulary: found 3: input should be an object"),
        (
            '{"vocabulary":{"labels":["a"],"surprise":1}}',
            "found unknown field session.create.vocabulary.surprise, "
            "expected only the fields of wire contract v1",
        ),
    ],
)
def test_vocabulary_of_another_shape_is_a_bad_vocabulary(text: str, expected: str) -> None:
    message = json.dumps({"type": "session.create", **json.loads(text)})
    assert refusal(message) == (expected, "bad_vocabulary")


TYPES = (
    "expected one of 'session.create', 'frame', 'vocabulary.update', 'session.reset', "
    "'session.close', 'ping'"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"type":"ping","nonce":7}', "ping.nonce: found 7: input should be a valid string"),
        (
            '{"type":"frame","seq":-1,"timestamp_ms":0,"image_base64":""}',
            "frame.seq: found -1: input should be greater than or equal to 0",
        ),
        ('{"type":"dance"}', f"found type 'dance', {TYPES}"),
        ('{"type":7}', f"found type '7', {TYPES}"),
        ('{"type":"pong"}', f"found type 'pong', {TYPES}"),
        ("{}", "message: found no field 'type', expected one that names the message"),
        ("7", "message: found 7: input should be an object"),
        (
            "not json",
            "message: found 'not json': invalid JSON: expected ident at line 1 column 2",
        ),
    ],
)
def test_refused_client_message_says_what_was_found(text: str, expected: str) -> None:
    assert refusal(text) == (expected, "bad_message")


def refusal(text: str) -> tuple[str, str]:
    """Return the text and the code with which a client's message is refused."""
    with pytest.raises(ProtocolError) as caught:
        parse_client_message(text)
    return str(caught.value), caught.value.code


LONG = "x" * 100_000


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        json.dumps(LONG),
        json.dumps({"type": LONG}),
        json.dumps({LONG: 1}),
        json.dumps({"type": "ping", LONG: 1}),
        json.dumps({"type": "ping", "nonce": LONG}),
        json.dumps({"type": "ping", "nonce": [LONG]}),
        json.dumps({"type": "frame", "image_base64": LONG}),
        json.dumps({"type": "session.create", "policy": LONG}),
        create_with(labels=[LONG]),
        create_with(labels=LONG),
        create_with(labels=["x" * 256, "x" * 256]),
        create_with(labels=["a"], templates=[LONG]),
        create_with(labels=["a"], background=[LONG]),
        create_with(labels=["a"], **{LONG: 1}),
    ],
    ids=range(15),
)
def test_refusal_is_short_whatever_was_sent(text: str) -> None:
    assert len(refusal(text)[0]) < 500


def test_a_message_of_many_mistakes_is_refused_in_one_line() -> None:
    labels = [1] * 500_000
    numbers = {"type": "session.create", "vocabulary": {"labels": labels}}
    text, code = refusal(json.dumps(numbers))
    assert (len(text) < 500, code) == (True, "bad_vocabulary")
    fields: dict[str, object] = {f"x{number}": 1 for number in range(100_000)}
    text, code = refusal(json.dumps(fields | {"type": "ping"}))
    assert (text, code) == ("found 100000 mistakes in one message, expected none", "bad_message")


def test_only_words_are_bad_words() -> None:
    assert refusal('{"type": "ping", "vocabulary": 1}')[1] == "bad_message"


def test_description_is_public_and_names_the_place() -> None:
    with pytest.raises(ValidationError) as caught:
        EventSettings.model_validate({"enter": 2})
    assert describe(caught.value) == "enter: found 2: input should be less than 1"


def test_events_must_end_below_where_they_start() -> None:
    text = json.dumps(
        {
            "type": "session.create",
            "vocabulary": {"labels": ["a"]},
            "events": {"enter": 0.3, "exit": 0.5, "min_duration_ms": 0},
        }
    )
    with pytest.raises(ProtocolError, match=r"found exit 0\.5 above enter 0\.3, expected exit <="):
        parse_client_message(text)


def test_image_that_is_not_base64_is_refused() -> None:
    message = FrameMessage(seq=1, timestamp_ms=1, image_base64="*")
    with pytest.raises(ProtocolError, match="found image_base64 that is not base64") as caught:
        message.image()
    assert caught.value.code == "bad_frame"
