"""The OpenAPI document: examples for every route, one shape of error, the key; the other pages."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest

from ovoad_client import protocol
from ovoad_server import asyncapi, description_examples
from ovoad_server.description import ErrorAnswer, errors

from .harness import WAIT_S, Serve, Server

KEY = "correct-horse"
Json = dict[str, Any]


@pytest.fixture
async def server(serve: Serve) -> AsyncIterator[Server]:
    async with serve(api_key=KEY) as server:
        yield server


async def get(server: Server, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=server.url, timeout=WAIT_S, trust_env=False) as client:
        return await client.get(path, headers=headers)


@pytest.fixture
async def document(server: Server) -> Json:
    found: Json = (await get(server, "/openapi.json")).json()
    return found


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def examples(content: Json) -> list[Any]:
    """Return the examples of one media type."""
    several = [example["value"] for example in content.get("examples", {}).values()]
    return several + ([content["example"]] if "example" in content else [])


def test_document_has_title_tags_and_a_word_on_the_stream(document: Json) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "ovoad"
    assert "asyncapi.json" in document["info"]["description"]
    known = {tag["name"] for tag in document["tags"]}
    for path, _, operation in operations(document):
        assert operation["tags"], path
        assert set(operation["tags"]) <= known, path


def test_every_answer_has_an_example_that_fits_its_schema(document: Json) -> None:
    for path, method, operation in operations(document):
        for status, answer in operation["responses"].items():
            assert answer["description"], (path, method, status)
            for media_type, content in answer["content"].items():
                shown = examples(content)
                assert shown, (path, method, status, media_type)
                schema = {**content.get("schema", {}), "components": document["components"]}
                if media_type.endswith("json"):
                    for example in shown:
                        jsonschema_rs.Draft202012Validator(schema).validate(example)


def test_errors_have_one_shape(document: Json) -> None:
    """FastAPI's own 422 is nowhere; /readyz's 503 tells its reason as its 200 does."""
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path, method, operation in operations(document):
        assert "500" in operation["responses"], (path, method)
        for status, answer in operation["responses"].items():
            if status < "400" or (path, status) == ("/readyz", "503"):
                continue
            reference = answer["content"]["application/json"]["schema"]["$ref"]
            assert reference == "#/components/schemas/ErrorAnswer", (path, method, status)


def test_key_is_declared_where_it_is_asked_for(document: Json) -> None:
    scheme = document["components"]["securitySchemes"]["bearer"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path, method, operation in operations(document):
        guarded = not path.endswith("z")
        assert ("401" in operation["responses"]) is guarded, (path, method)
        assert operation.get("security") == ([{"bearer": []}] if guarded else None), path


def test_example_of_the_configuration_is_a_whole_one() -> None:
    text = description_examples.CONFIG.to_json()
    assert protocol.ServerConfig.model_validate_json(text) == description_examples.CONFIG


async def test_answers_are_those_described(server: Server, document: Json) -> None:
    for path in ("/healthz", "/readyz", "/v1/config", "/metrics"):
        for key in (KEY, "wrong"):
            answer = await get(server, path, authorization=f"Bearer {key}")
            told = document["paths"][path]["get"]["responses"][str(answer.status_code)]
            media_type = answer.headers["content-type"].split(";")[0]
            if media_type == "application/json":
                schema = told["content"][media_type]["schema"]
                jsonschema_rs.Draft202012Validator(
                    {**schema, "components": document["components"]}
                ).validate(answer.json())
            assert media_type in told["content"]


def test_errors_that_pass_tell_when_to_come_back() -> None:
    for status in (400, 429, 503):
        (answer,) = errors(status).values()
        told = ErrorAnswer.model_validate(answer["content"]["application/json"]["example"])
        assert (told.error.retry_after_ms is None) is (status == 400)


async def refused_upload(server: Server, body: bytes) -> str:
    """Return the code told to a client that sends this and then nothing; see to the message."""
    reader, writer = await asyncio.open_connection(*server.address.split(":"))
    writer.write(
        b"POST /v1/clips HTTP/1.1\r\nHost: here\r\nContent-Length: 5000\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + body
    )
    async with asyncio.timeout(WAIT_S):
        status = int((await reader.readline()).split()[1])
        answer = await reader.readuntil(b"}}")
    writer.close()
    found = ErrorAnswer.model_validate_json(answer.split(b"\r\n\r\n", 1)[1]).error
    (described,) = errors(status).values()
    shown = ErrorAnswer.model_validate(described["content"]["application/json"]["example"]).error
    assert found.code == shown.code
    assert re.sub(r"in \d+ s", "in 30 s", found.message) == shown.message
    return found.code


async def test_examples_of_refused_uploads_are_what_the_code_says(serve: Serve) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    async with serve(idle_timeout_s=0.1) as server:
        assert await refused_upload(server, head + b"%PDF-1.7" + bytes(4092)) == "not_a_video"
        video = head + b"\0\0\0\x18ftypisom"
        assert await refused_upload(server, video.ljust(4096, b"\0")) == "upload_too_slow"


# ---- the other documents -----------------------------------------------------------------------


async def test_stream_document_names_the_server_as_it_was_asked(server: Server) -> None:
    answer = await get(server, "/asyncapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json()["asyncapi"] == "3.0.0"
    assert answer.json()["servers"]["this"]["host"] == server.address
    assert KEY not in answer.text


async def test_stream_document_is_made_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncapi, "models_json_schema", None)  # what takes its time
    for host in ("one:1", "two:2"):
        answer = (await get(server, "/asyncapi.json", host=host)).json()
        assert answer["servers"]["this"]["host"] == host
        assert len(answer["servers"]["this"]["security"]) == 2
        assert "Prediction" in answer["components"]["schemas"]


@pytest.mark.parametrize("host", ["a b", "h/../x", '"'])
async def test_stream_document_repeats_no_strange_host(server: Server, host: str) -> None:
    answer = await get(server, "/asyncapi.json", host=host)
    assert answer.json()["servers"]["this"]["host"] == "127.0.0.1:8000"


async def test_reference_loads_nothing_from_elsewhere(server: Server) -> None:
    page = await get(server, "/docs")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name in ("docs.js", "docs.css", "vendor/swagger-ui/swagger-ui-bundle.js"):
        assert name in page.text
        assert (await get(server, f"/{name}")).status_code == 200
    assert (await get(server, "/redoc")).status_code == 404
