"""What the OpenAPI and AsyncAPI documents say beyond the code: examples, errors, tags, the key.

Knows no session. The documents are served at `/openapi.json`, `/asyncapi.json` and, to be read by
people, `/docs`.
"""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from ovoad_client import protocol
from ovoad_server.asyncapi import stream_document, stream_servers
from ovoad_server.description_examples import CONFIG
from ovoad_server.page import HOST

Responses = dict[int | str, dict[str, Any]]
VERSION: Final = str(protocol.PROTOCOL_VERSION)
USUAL_HOST: Final = "127.0.0.1:8000"
SUMMARY: Final = "Real-time open-vocabulary online action detection"
DESCRIPTION: Final = """\
Frames in, the probability of each action out. Live video goes over the WebSocket `GET /v1/stream`,
which OpenAPI cannot describe: its messages are in [asyncapi.json](asyncapi.json).

Every error of these routes is `{"error": {"code", "message"}}`: `code` is stable, `message` says
what was found and what was expected."""
TAGS: Final = [
    {"name": "stream", "description": "What a session on `GET /v1/stream` would be granted."},
    {"name": "clips", "description": "Whole videos, scored frame by frame."},
    {"name": "health", "description": "For probes; these need no key."},
    {"name": "monitoring", "description": "For Prometheus."},
]
BEARER: Final = HTTPBearer(
    scheme_name="bearer",
    description="A key of the server, where it has any; without one it is ignored.",
    auto_error=False,
)
METRICS_TYPE: Final = "text/plain"
_METRICS: Final = """\
# HELP ovoad_sessions_active Sessions with a connection.
# TYPE ovoad_sessions_active gauge
ovoad_sessions_active 3.0
"""
# Each status: when it comes, its code, and an example of its message.
_ERRORS: Final[Mapping[int, tuple[str, str, str]]] = {
    400: (
        "A body that cannot be read",
        "bad_request",
        "found a body that breaks off, expected its last boundary",
    ),
    401: (
        "No valid key",
        "unauthorised",
        "found no valid API key, expected the header Authorization: Bearer KEY",
    ),
    403: (
        "A page of another origin",
        "origin",
        "found a page of another origin, expected one of OVOAD_ALLOWED_ORIGINS",
    ),
    408: (
        "An upload that is too slow",
        "upload_too_slow",
        "found 4096 bytes in 30 s and then none, expected 8192 bytes a second",
    ),
    413: (
        "More bytes than allowed",
        "clip_too_large",
        "found 2147483649 bytes or more, expected at most 2147483648",
    ),
    415: (
        "Not a video",
        "not_a_video",
        "found a file that starts b'%PDF-1.7', expected a video (MP4, QuickTime, Matroska, WebM, "
        "AVI, MPEG, FLV, Ogg or ASF)",
    ),
    422: (
        "A field that is not allowed",
        "bad_vocabulary",
        "vocabulary: found no label, expected at least 1",
    ),
    429: (
        "Too many at once; see `Retry-After`",
        "capacity",
        "found 4 clips under way, expected fewer than 4; try again later",
    ),
    500: ("A fault of the server's own", "internal", "the server failed; its log says why"),
    503: (
        "No room, or about to stop; see `Retry-After`",
        "capacity",
        "found 18 sessions open, expected fewer than 18; try again later",
    ),
}
_RETRIES: Final = {429: 5000, 503: 5000}  # milliseconds


class ErrorFacts(BaseModel):
    """A stable code, what was found and expected, and when to come back where that is worth it."""

    code: str
    message: str
    retry_after_ms: int | None = None


class ErrorAnswer(BaseModel):
    """The one shape of every error."""

    error: ErrorFacts


def errors(*statuses: int) -> Responses:
    """Return `responses` of a route that can answer these statuses; 422 is FastAPI's no more."""
    responses: Responses = {}
    for status in statuses:
        when, code, message = _ERRORS[status]
        facts = ErrorFacts(code=code, message=message, retry_after_ms=_RETRIES.get(status))
        example = ErrorAnswer(error=facts).model_dump(exclude_none=True)
        responses[status] = {
            "model": ErrorAnswer,
            "description": when,
            "content": {"application/json": {"example": example}},
        }
    return responses


def answers(example: object, *, media_type: str = "application/json") -> Responses:
    """Return `responses` of a route with an example of its good answer."""
    if isinstance(example, BaseModel):
        example = example.model_dump(mode="json", exclude_none=True)
    return {200: {"content": {media_type: {"example": example}}}}


ALIVE: Final[Responses] = answers({"status": "alive"})
READY: Final[Responses] = answers({"ready": True, "reason": "golden images score as at the start"})
NOT_READY: Final[dict[str, Any]] = {
    "description": "The model does not answer as it should; `reason` says why",
    "content": {
        "application/json": {
            "example": {
                "ready": False,
                "reason": "the worker was lost and is being started anew",
            }
        }
    },
}
GRANTED: Final[Responses] = {**answers(CONFIG), **errors(401, 503)}
METRICS: Final[Responses] = {
    200: {"content": {METRICS_TYPE: {"schema": {"type": "string"}, "example": _METRICS}}},
    **errors(401, 503),
}


def add_stream_document(app: FastAPI, *, key_required: bool) -> None:
    """Serve `/asyncapi.json`; it names this server as the client does, and is made once."""
    document = stream_document(USUAL_HOST, version=VERSION, key_required=key_required)

    @app.get("/asyncapi.json", include_in_schema=False)
    async def asyncapi(request: Request) -> JSONResponse:
        asked = request.headers.get("host", "")
        servers = stream_servers(
            asked if HOST.fullmatch(asked) else USUAL_HOST,
            "wss" if request.url.scheme == "https" else "ws",
            key_required=key_required,
        )
        return JSONResponse({**document, "servers": servers})
