"""docs/clips.md and the API's description say what the code does."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from ovoad_server.clips.decoder_process import MEMORY_BYTES, NICENESS
from ovoad_server.clips.description import RESPONSES
from ovoad_server.clips.schema import LEAST_FPS, MOST_FPS, ClipRequest
from ovoad_server.clips.scoring import INFLIGHT_BYTES
from ovoad_server.clips.upload import FIRST_S, LEAST_BYTES_PER_S, MOST_REQUEST_BYTES
from ovoad_server.settings import Settings

from .harness import WAIT_S, Serve

TEXT = (Path(__file__).parents[2] / "docs" / "clips.md").read_text(encoding="utf-8")


def test_every_status_is_in_the_document_and_in_the_description() -> None:
    rows = {int(found) for found in re.findall(r"^\| (\d{3}) \| `", TEXT, re.MULTILINE)}
    assert rows - {500} == {int(status) for status in RESPONSES} - {200}


def test_every_field_of_the_request_has_its_row() -> None:
    table = TEXT.split("| field of `request` |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(ClipRequest.model_fields)


def test_numbers_of_the_document_are_those_of_the_code() -> None:
    assert (LEAST_FPS, MOST_FPS) == (0.1, 60.0)
    assert (FIRST_S, LEAST_BYTES_PER_S, MOST_REQUEST_BYTES) == (30.0, 8 * 2**10, 4 * 2**20)
    assert (MEMORY_BYTES, NICENESS, INFLIGHT_BYTES) == (6 * 2**30, 10, 16 * 2**20)


def test_settings_that_the_document_names_exist() -> None:
    known = {f"OVOAD_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"OVOAD_[A-Z_]+", TEXT)) <= known


@pytest.mark.parametrize("status", ["200", "415", "503"])
async def test_description_names_the_parts_and_the_answers(serve: Serve, status: str) -> None:
    async with serve() as server, httpx.AsyncClient(timeout=WAIT_S, trust_env=False) as http:
        document: dict[str, Any] = (await http.get(f"{server.url}/openapi.json")).json()
    route = document["paths"]["/v1/clips"]["post"]
    form = route["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert sorted(form["properties"]) == ["file", "request"]
    assert "$ref" not in str(form)
    assert status in route["responses"]
