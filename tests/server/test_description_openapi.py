"""The OpenAPI document: examples for every route, one shape of error, the key; the other pages."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest

from ovoad_client import protocol
from ovoad_server import description_examples
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


# ---- the other documents -----------------------------------------------------------------------


async def test_stream_document_names_the_server_as_it_was_asked(server: Server) -> None:
    answer = await get(server, "/asyncapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json()["asyncapi"] == "3.0.0"
    assert answer.json()["servers"]["this"]["host"] == server.address
    assert KEY not in answer.text


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
