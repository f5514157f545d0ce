"""What the API's description says of `POST /v1/clips`. Knows no work."""

from typing import Any, Final

from ovoad_client import protocol
from ovoad_server.clips.schema import (
    ClipAnswer,
    ClipClosed,
    ClipFacts,
    ClipOpened,
    ClipProgress,
    ClipRequest,
)
from ovoad_server.description import errors
from ovoad_server.description_examples import EVENT, MODEL, PREDICTION, WINDOW

_EXAMPLE: Final = {"vocabulary": {"labels": ["riding a bicycle", "crossing the street"]}}


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose references to its own definitions are replaced by what they name."""
    definitions = schema.pop("$defs", {})

    def resolve(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return resolve(definitions[part["$ref"].rsplit("/", 1)[-1]])
            return {key: resolve(value) for key, value in part.items()}
        return [resolve(each) for each in part] if isinstance(part, list) else part

    resolved: dict[str, Any] = resolve(schema)
    return resolved


DESCRIPTION: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["request", "file"],
                    "additionalProperties": False,
                    "properties": {
                        "request": _inline(ClipRequest.model_json_schema()),
                        "file": {"type": "string", "format": "binary"},
                    },
                },
                "encoding": {"request": {"contentType": "application/json"}},
                "example": {"request": _EXAMPLE},
            }
        },
    }
}
_REASONS: Final = {
    400: "not multipart, a part missing, twice or unknown, a request that is not JSON",
    401: "no valid key",
    403: "a page of a foreign origin",
    408: "an upload slower than 8 KiB/s",
    413: "a file, its pictures, length or frames beyond the server's limits",
    415: "not multipart/form-data; not a video, or none that decodes",
    422: "a field of the request that is unknown or not allowed",
    429: "too many clips at once; Retry-After says when to come again",
    503: "no slot or room for it, or the server is about to stop; Retry-After says when",
}
_ANSWER: Final = ClipAnswer(
    opened=ClipOpened(
        clip=ClipFacts(
            name="street.mp4",
            bytes=1_843_200,
            width=640,
            height=360,
            fps=25.0,
            duration_ms=2520,
            frame_count=63,
        ),
        model=MODEL,
        labels=["riding a bicycle", "crossing the street"],
        fps=4.0,
        window=WINDOW,
    ),
    predictions=[PREDICTION],
    events=[EVENT],
    errors=[],
    closed=ClipClosed(frames=1, predicted=1, errors=0, complete=True),
)
_LINES: Final[tuple[protocol.Message, ...]] = (
    _ANSWER.opened,
    PREDICTION,
    ClipProgress(position_ms=280, predicted=1, share=0.11),
    EVENT,
    _ANSWER.closed,
)
RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "model": ClipAnswer,
        "description": "every sampled frame's prediction and all events; one message a line where "
        "the client accepts application/x-ndjson",
        "content": {
            "application/json": {"example": _ANSWER.model_dump(mode="json", exclude_none=True)},
            "application/x-ndjson": {
                "schema": {"type": "string"},
                "example": "".join(f"{message.to_json()}\n" for message in _LINES),
            },
        },
    },
    **{
        status: {**errors(status)[status], "description": reason}
        for status, reason in _REASONS.items()
    },
}
