"""Golden wire messages, one file a message, and the texts of refusals.

tests/golden/client.TYPE.json and server.TYPE.json hold messages with every field that goes with
it; binary_frame.json holds one binary frame as hex. Other clients are checked against the same.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from ovoad_client.protocol import (
    ClientMessage,
    FrameMessage,
    ProtocolError,
    ServerMessage,
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (create_with(labels=[]), "found no label, expected at least 1"),
        (create_with(labels=[""]), "found an empty label, expected words"),
        (create_with(labels=["\t"]), "found an empty label, expected words"),
        (create_with(labels=["a", "b", "a"]), "found label 'a' twice, expected each label once"),
        (
            create_with(labels=["x" * 10_240]),
            "found a label of 10240 characters, expected at most 256",
        ),
        (
            create_with(labels=["a"], templates=["a person"]),
            "found template 'a person', expected exactly one {} in at most 256 characters",
        ),
        (
            create_with(labels=["a"], templates=["{} {}"]),
            "found template '{} {}', expected exactly one {} in at most 256 characters",
        ),
        (
            create_with(labels=["a"], templates=[]),
            "found an empty list of templates, expected at least 1 or none",
        ),
        (
            create_with(labels=["a"], background=[]),
            "found an empty list of background concepts, expected at least 1 or none",
        ),
        (create_with(), "field session.create.vocabulary.labels is missing"),
        (create_with(labels="waving"), "found 'waving': input should be a valid"),
        ('{"type":"ping","nonce":7}', "found 7: input should be a valid string"),
        ('{"type":"frame","seq":-1,"timestamp_ms":0,"image_base64":""}', "found -1"),
        ('{"type":"dance"}', "dance"),
        ("{}", "type"),
        ("not json", "json"),
    ],
)
def test_refused_client_message_says_what_was_found(text: str, expected: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_client_message(text)
    assert expected in str(caught.value).lower() or expected in str(caught.value)
    assert caught.value.code == "bad_message"


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
