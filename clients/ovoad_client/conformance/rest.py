"""Checks of the HTTP routes: what they answer, to whom, and the one shape of errors."""

import functools
from typing import Any

from pydantic import ValidationError

from ovoad_client.conformance.check import Check
from ovoad_client.conformance.findings import MismatchError, NotCheckedError, equal, expect
from ovoad_client.conformance.target import Answer, Target
from ovoad_client.protocol import ServerConfig

BOUNDARY = "ovoad-conformance"


async def _is_alive(target: Target) -> None:
    answer = await target.fetch("/healthz", with_key=False)
    equal((answer.status, answer.json()), (200, {"status": "alive"}), "status and body")


async def _tells_readiness(target: Target) -> None:
    answer = await target.fetch("/readyz", with_key=False)
    found: Any = answer.json()
    expect(isinstance(found, dict), found, "an object")
    equal(sorted(found), ["ready", "reason"], "fields")
    equal(answer.status, 200 if found["ready"] is True else 503, f"{found}: status")


async def _grants_as_configured(target: Target) -> None:
    answer = await target.fetch("/v1/config")
    equal(answer.status, 200, "status")
    try:
        config = ServerConfig.model_validate_json(answer.body)
    except ValidationError as error:
        raise MismatchError(f"{error.error_count()} mistakes in /v1/config", "its schema") from None
    async with target.session() as wire:
        created = wire.created
    expect(created.model.scorer in config.scorers, created.model.scorer, f"one of {config.scorers}")
    granted = (created.model, created.limits, created.window)
    equal(granted, (config.model, config.limits, config.window), "session.created grants")


async def _tells_metrics(target: Target) -> None:
    answer = await target.fetch("/metrics")
    equal(answer.status, 200, "status")
    kind = answer.headers.get("content-type", "")
    expect(kind.startswith("text/plain"), f"content-type {kind!r}", "Prometheus's text/plain")
    expect(b"# TYPE ovoad_" in answer.body, "no metric named ovoad_…", "some")


async def _asks_for_the_key(target: Target, *, path: str) -> None:
    if target.api_key is None:
        raise NotCheckedError("no --api-key was given")
    answer = await target.fetch(path, with_key=False)
    _is_error(answer, 401, "unauthorised")
    equal(answer.headers.get("www-authenticate"), "Bearer", "header WWW-Authenticate")


async def _tells_unknown_paths(target: Target) -> None:
    _is_error(await target.fetch("/v1/no-such-route"), 404, "not_found")


async def _tells_wrong_methods(target: Target) -> None:
    answer = await target.fetch("/healthz", method="DELETE")
    _is_error(answer, 405, "method_not_allowed")
    expect("GET" in answer.headers.get("allow", ""), answer.headers.get("allow"), "Allow: GET")


async def _wants_a_websocket(target: Target) -> None:
    _is_error(await target.fetch("/v1/stream"), 404, "not_found")


async def _describes_itself(target: Target, *, path: str, field: str, version: str) -> None:
    answer = await target.fetch(path)
    equal(answer.status, 200, "status")
    document: Any = answer.json()
    found = str(document.get(field, "")) if isinstance(document, dict) else ""
    expect(found.startswith(version), f"{field} {found!r}", f"{version}…")


async def _refuses_what_is_no_clip(target: Target, *, body: bytes, content_type: str) -> None:
    document: Any = (await target.fetch("/openapi.json")).json()
    if "/v1/clips" not in document.get("paths", {}):
        raise NotCheckedError("the server takes no clips")
    answer = await target.fetch("/v1/clips", method="POST", body=body, content_type=content_type)
    expect(400 <= answer.status < 500, f"status {answer.status}", "one from 400 to 499")
    _is_error(answer, answer.status, None)


def _is_error(answer: Answer, status: int, code: str | None) -> None:
    """Expect the one shape of errors: {"error": {"code", "message"}}."""
    equal(answer.status, status, "status")
    body: Any = answer.json()
    error = body.get("error") if isinstance(body, dict) else None
    texts = error if isinstance(error, dict) else {}
    fits = all(isinstance(texts.get(name), str) and texts[name] for name in ("code", "message"))
    expect(fits, body, '{"error": {"code", "message"}}')
    if code is not None:
        equal(texts["code"], code, "error code")


def _form(name: str, content: bytes) -> bytes:
    """Return a multipart body with one file and a request for one label."""
    request = b'{"vocabulary": {"labels": ["riding a bicycle"]}}'
    head = b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    boundary = BOUNDARY.encode()
    file = head % (boundary, b"file", b'; filename="%s"' % name.encode(), content)
    return file + head % (boundary, b"request", b"", request) + b"--%s--\r\n" % boundary


_FORM = f"multipart/form-data; boundary={BOUNDARY}"
CHECKS = (
    Check("http.healthz", "the process is alive, no key needed", _is_alive),
    Check("http.readyz", "ready with 200 or not with 503, and why", _tells_readiness),
    Check("http.config", "what session.created grants", _grants_as_configured),
    Check("http.metrics", "Prometheus's text", _tells_metrics),
    *(
        Check(
            f"http.key{path.replace('/', '.')}",
            "401 without the key",
            functools.partial(_asks_for_the_key, path=path),
        )
        for path in ("/v1/config", "/metrics")
    ),
    Check("http.not_found", "404 in the one shape of errors", _tells_unknown_paths),
    Check("http.wrong_method", "405 in it, with Allow", _tells_wrong_methods),
    Check("http.stream", "404 in it without an upgrade", _wants_a_websocket),
    Check(
        "http.openapi",
        "the routes are described",
        functools.partial(_describes_itself, path="/openapi.json", field="openapi", version="3."),
    ),
    Check(
        "http.asyncapi",
        "the stream is described",
        functools.partial(
            _describes_itself, path="/asyncapi.json", field="asyncapi", version="3.0."
        ),
    ),
    *(
        Check(
            f"http.clips.refuses.{name}",
            "a 4xx in the one shape of errors",
            functools.partial(_refuses_what_is_no_clip, body=body, content_type=content_type),
        )
        for name, body, content_type in (
            ("json", b"{}", "application/json"),
            ("text", _form("clip.mp4", b"this is no video\n" * 10), _FORM),
            ("empty", _form("clip.mp4", b""), _FORM),
        )
    ),
)
