"""The AsyncAPI document: valid by AsyncAPI's own schema, and the same contract as the wire's."""

import json
import struct
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest
from pydantic import TypeAdapter

from ovoad_client import protocol
from ovoad_server import description_examples
from ovoad_server.asyncapi import CLOSES, stream_document

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = REPOSITORY / "tests" / "golden"
SPECIFICATION = REPOSITORY / "node_modules" / "@asyncapi" / "specs" / "schemas" / "3.0.0.json"
MESSAGES = sorted(
    path for path in GOLDEN.glob("*.json") if path.name.startswith(("client", "server"))
)
STRUCT = {"u8": "B", "u16": "H", "u32": "I", "i64": "q"}
Json = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Json:
    return stream_document("127.0.0.1:8000", version="1", key_required=True)


def schema_of(document: Json, kind: str) -> jsonschema_rs.Validator:
    """Return what checks a message's payload by the document alone."""
    (reference,) = document["components"]["messages"][kind]["payload"].values()
    return jsonschema_rs.Draft7Validator(
        {"$ref": reference, "components": {"schemas": document["components"]["schemas"]}}
    )


def paths(value: object, place: str = "") -> set[str]:
    """Return every field of a nested value by its path."""
    if isinstance(value, dict):
        inner = [paths(item, f"{place}.{name}") for name, item in value.items()]
        return set().union(*inner) if inner else {place}
    if isinstance(value, list) and value:
        return paths(value[0], f"{place}[]")
    return {f"{place}:{type(value).__name__}"}


@pytest.mark.parametrize("key_required", [False, True])
def test_document_is_valid_asyncapi(key_required: bool) -> None:
    if not SPECIFICATION.exists():
        pytest.skip("AsyncAPI's own schema is not installed: npm ci")
    document = stream_document("cam.example:8000", version="1", key_required=key_required)
    specification = json.loads(SPECIFICATION.read_text())
    faults = [
        f"{error.instance_path}: {error.message}"
        for error in jsonschema_rs.Draft7Validator(specification).iter_errors(document)
    ]
    assert faults == []


def test_every_reference_leads_somewhere(document: Json) -> None:
    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [found for inner in value.values() for found in references(inner)]
        if isinstance(value, list):
            return [found for inner in value for found in references(inner)]
        return []

    found = references(document)
    assert len(found) > 50
    for reference in found:
        part: Any = document
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]


def test_every_message_of_the_wire_is_described_and_used(document: Json) -> None:
    unions = (protocol.ClientMessage, protocol.ServerMessage)
    models = [model for union in unions for model in get_args(get_args(union)[0])]
    types = {model.model_fields["type"].default for model in models}
    assert set(document["components"]["messages"]) == types | {"binary_frame"}
    used = {
        reference["$ref"].split("/")[-1]
        for operation in document["operations"].values()
        for part in (operation, operation.get("reply", {"messages": []}))
        for reference in part["messages"]
    }
    assert used == types | {"binary_frame"}


def test_directions_are_the_server_s(document: Json) -> None:
    clients = {
        model.model_fields["type"].default
        for model in get_args(get_args(protocol.ClientMessage)[0])
    }
    for operation in document["operations"].values():
        names = {reference["$ref"].split("/")[-1] for reference in operation["messages"]}
        if operation["action"] == "receive":
            assert names <= clients | {"binary_frame"}
        else:
            assert not names & clients


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
def test_golden_message_fits_its_schema(document: Json, path: Path) -> None:
    message = json.loads(path.read_text())
    check = schema_of(document, message["type"])
    check.validate(message)
    assert not check.is_valid({**message, "surprise": 1})
    assert not check.is_valid({name: message[name] for name in message if name != "type"})


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
def test_examples_show_every_field_of_the_golden_message(document: Json, path: Path) -> None:
    message = json.loads(path.read_text())
    shown = document["components"]["messages"][message["type"]]["examples"]
    golden = paths(message)
    if message == {**message, "warnings": []}:
        golden = {place for place in golden if not place.startswith(".warnings")}
    assert golden <= set().union(*(paths(example["payload"]) for example in shown))


def test_examples_are_valid_messages(document: Json) -> None:
    wire: TypeAdapter[Any] = TypeAdapter(protocol.ClientMessage | protocol.ServerMessage)
    for kind, message in document["components"]["messages"].items():
        for example in message.get("examples", []):
            assert example["payload"]["type"] == kind
            schema_of(document, kind).validate(example["payload"])
            wire.validate_json(json.dumps(example["payload"]))


LABEL = "x" * protocol.MAX_LABEL_CHARACTERS
VOCABULARIES: list[Json] = [
    {"labels": ["a"]},
    {"labels": []},
    {"labels": [""]},
    {"labels": ["  \n"]},
    {"labels": ["a", "a"]},
    {"labels": [LABEL]},
    {"labels": [LABEL + "x"]},
    {"labels": [1]},
    {"labels": ["a"], "templates": []},
    {"labels": ["a"], "templates": ["a person {}"]},
    {"labels": ["a"], "templates": ["{}"]},
    {"labels": ["a"], "templates": ["two\nlines {} here"]},
    {"labels": ["a"], "templates": ["none"]},
    {"labels": ["a"], "templates": ["{} and {}"]},
    {"labels": ["a"], "templates": ["{{}}"]},
    {"labels": ["a"], "templates": ["{}{"]},
    {"labels": ["a"], "templates": [LABEL + "{}"]},
    {"labels": ["a"], "templates": ["{}"] * 101},
    {"labels": ["a"], "templates": None},
    {"labels": ["a"], "background": []},
    {"labels": ["a"], "background": ["a street"]},
    {"labels": ["a"], "background": [" "]},
    {"labels": ["a"], "background": ["a"] * 101},
]
CREATES: list[Json] = [
    {"top_k": 0},
    {"top_k": 1},
    {"top_k": 1001},
    {"policy": "best"},
    {"scorer": "none"},
    {"events": {"enter": 0.5, "exit": 0.0}},
    {"events": {"enter": 0.0}},
    {"events": {"min_duration_ms": -1}},
    {"resume": {"token": ""}},
    {"resume": {"token": "a", "last_seq": 2**32}},
    {"resume": {"token": "a", "last_seq": 2**32 - 1}},
]


@pytest.mark.parametrize(
    "fields", [*({"vocabulary": words} for words in VOCABULARIES), *CREATES], ids=str
)
def test_document_takes_and_refuses_what_the_server_does(document: Json, fields: Json) -> None:
    message = {"type": "session.create", "vocabulary": {"labels": ["a"]}, **fields}
    try:
        protocol.parse_client_message(json.dumps(message))
        taken = True
    except protocol.ProtocolError:
        taken = False
    assert schema_of(document, "session.create").is_valid(message) is taken


def test_layout_of_the_binary_frame_is_the_schema_s(document: Json) -> None:
    frame = document["components"]["messages"]["binary_frame"]
    golden = json.loads((GOLDEN / "binary_frame.json").read_text())
    data = bytes.fromhex(golden["message_hex"])
    found = {}
    for field in frame["x-layout"]:
        if field["type"] == "bytes":
            found[field["name"]] = data[field["offset"] :].hex()
        else:
            (found[field["name"]],) = struct.unpack_from(
                "<" + STRUCT[field["type"]], data, field["offset"]
            )
        if "value" in field:
            assert found[field["name"]] == field["value"]
    expected = (golden["seq"], golden["timestamp_ms"], golden["image_hex"])
    assert (found["seq"], found["timestamp_ms"], found["image"]) == expected
    shown = protocol.unpack_frame(bytes.fromhex(frame["x-example-hex"]))
    assert shown == description_examples.FRAME
    assert f'"{protocol.FRAME_HEADER.format}"' in frame["payload"]["description"]


def test_close_codes_are_those_of_the_contract_s_table(document: Json) -> None:
    text = (REPOSITORY / "docs" / "protocol.md").read_text(encoding="utf-8")
    table = text.split("## Close codes\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    expected = {int(row[0]): (row[1], row[2]) for row in rows[1:] if row[0].isdigit()}
    assert dict(CLOSES) == expected
    told = document["channels"]["stream"]["x-close-codes"]
    assert {row["code"]: (row["meaning"], row["reconnect"]) for row in told} == expected


def test_key_is_described_where_there_is_one() -> None:
    open_to_all = stream_document("h", version="1", key_required=False)
    guarded = stream_document("h", version="1", key_required=True, scheme="wss")
    assert "security" not in open_to_all["servers"]["this"]
    assert len(guarded["servers"]["this"]["security"]) == 2
    assert (guarded["servers"]["this"]["protocol"], guarded["servers"]["this"]["host"]) == (
        "wss",
        "h",
    )
