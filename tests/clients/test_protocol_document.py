"""docs/protocol.md names every message, field, error and close code of the schema, and no other."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from ovoad_client import protocol

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table under a heading, its first two lines left out."""
    section = re.split(r"^## ", TEXT.split(f"## {heading}\n")[1], flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def models(union: Any) -> dict[str, set[str]]:
    """Return each message type of a union with its fields."""
    return {
        model.model_fields["type"].default: set(model.model_fields) - {"type"}
        for model in get_args(get_args(union)[0])
    }


def test_error_table_lists_exactly_the_codes() -> None:
    codes = [row[0].strip("`") for row in rows("Errors")]
    assert sorted(codes) == sorted(get_args(protocol.ErrorCode))
    assert all(len(row) == 3 and all(row) for row in rows("Errors"))


def test_close_table_lists_exactly_the_codes() -> None:
    codes = {int(row[0]) for row in rows("Close codes")}
    named = {value for name, value in vars(protocol).items() if name.startswith("CLOSE_")}
    assert codes == named | {1006}, "1006 is what a library says of a broken connection"


@pytest.mark.parametrize(
    ("heading", "union"),
    [
        ("From client to server", protocol.ClientMessage),
        ("From server to client", protocol.ServerMessage),
    ],
)
def test_message_tables_name_every_type(heading: str, union: Any) -> None:
    named = re.findall(r"`([a-z_.]+)", " ".join(row[0] for row in rows(heading)))
    assert sorted(named) == sorted(models(union))


@pytest.mark.parametrize(
    ("heading", "union"),
    [
        ("From client to server", protocol.ClientMessage),
        ("From server to client", protocol.ServerMessage),
    ],
)
def test_message_tables_name_every_field(heading: str, union: Any) -> None:
    for name, fields in models(union).items():
        (row,) = [row for row in rows(heading) if f"`{name}" in row[0]]
        found = set(re.findall(r"[a-z_0-9]+", " ".join(row)))
        assert fields <= found, f"{name} lacks {fields - found}"


@pytest.mark.parametrize("values", [protocol.Policy, protocol.DropReason])
def test_closed_sets_are_named(values: Any) -> None:
    for value in get_args(values):
        assert f"`{value}`" in TEXT


def test_numbers_in_the_text_are_the_schema_s() -> None:
    assert f"at most {protocol.MAX_LABEL_CHARACTERS} characters" in TEXT
    assert f"more than {protocol.MAX_TEMPLATES} of them" in TEXT
    assert f"0x{protocol.FRAME_MAGIC:04X}" in TEXT
    assert f'struct.pack("{protocol.FRAME_HEADER.format}"' in TEXT
    events = protocol.EventSettings()
    assert f"({events.enter}, {events.exit}, {events.min_duration_ms})" in TEXT
