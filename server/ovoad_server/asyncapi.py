"""Describe `GET /v1/stream` as an AsyncAPI 3.0 document, from the wire schema. Knows no session.

Directions are the server's: it receives what clients say and sends what they hear.
https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from pydantic.json_schema import models_json_schema

from ovoad_client import protocol
from ovoad_server import description_examples as examples

Json = dict[str, Any]
BINARY_FRAME: Final = "binary_frame"
OCTETS: Final = "application/octet-stream"
CLOSES: Final[Mapping[int, tuple[str, str]]] = {
    protocol.CLOSE_NORMAL: (
        "normal, idle or expired; the reason says which",
        "when you have more to send",
    ),
    protocol.CLOSE_PROTOCOL: (
        "protocol breach, told in an `error` before",
        "no: mend the client",
    ),
    protocol.CLOSE_TOO_LARGE: ("message too large", "no: send smaller frames"),
    protocol.CLOSE_SERVER_FAULT: ("server fault", "yes, with back-off"),
    protocol.CLOSE_RESTART: ("restart", "yes, with back-off"),
    protocol.CLOSE_CAPACITY: ("at capacity", "yes, after `retry_after_ms`"),
    protocol.CLOSE_UNAUTHORISED: ("not authorised", "no: get a key"),
    1006: ("connection broken, no close frame", "yes, with back-off"),
}
# Each operation: what the client says, and what may answer it.
_REQUESTS: Final[Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]]] = {
    "openSession": (
        "The first message, within 10 s; with `resume` it goes on with a broken session.",
        ("session.create",),
        ("session.created", "error"),
    ),
    "sendFrame": (
        "Every frame is answered once: a prediction, a drop notice, or an error with its seq.",
        (BINARY_FRAME, "frame"),
        ("prediction", "frame.dropped", "error"),
    ),
    "updateVocabulary": (
        "A barrier: frames before it are scored with the old words, frames after it with the new.",
        ("vocabulary.update",),
        ("vocabulary.updated", "error"),
    ),
    "resetSession": ("Forget all past frames.", ("session.reset",), ("session.was_reset",)),
    "ping": ("Answered at once, also while frames wait.", ("ping",), ("pong",)),
    "closeSession": (
        "Frames under way are answered first.",
        ("session.close",),
        ("session.closed",),
    ),
}
_NOTICES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "announceEvents": ("An action began or ended, decided on the server.", ("event",)),
    "announceRestart": ("The server will close soon.", ("goaway",)),
    "endSession": (
        "The last words: `session.closed` of an orderly end, a fatal `error` of any other.",
        ("session.closed", "error"),
    ),
}
# What the wire schema's validators check beyond its types.
_WORDS: Final[Json] = {
    "type": "string",
    "minLength": 1,
    "maxLength": protocol.MAX_LABEL_CHARACTERS,
    "pattern": r"\S",
}
_TEMPLATE: Final[Json] = {
    "type": "string",
    "maxLength": protocol.MAX_LABEL_CHARACTERS,
    "pattern": r"^(?:[^{]|\{(?!\}))*\{\}(?:[^{]|\{(?!\}))*$",
    "description": "with {} once, where the label goes",
}


def stream_document(
    host: str, *, version: str, key_required: bool, scheme: Literal["ws", "wss"] = "ws"
) -> Json:
    """Return the document of a server that is reached as `host` (name:port)."""
    return {
        "asyncapi": "3.0.0",
        "info": _info(version),
        "defaultContentType": "application/json",
        "servers": stream_servers(host, scheme, key_required=key_required),
        "channels": {"stream": _channel()},
        "operations": _operations(),
        "components": {
            "messages": _messages(),
            "schemas": _schemas(),
            "securitySchemes": _security_schemes(),
        },
    }


def _info(version: str) -> Json:
    return {
        "title": "ovoad stream",
        "version": version,
        "description": (
            "Frames in, the probability of each action out. Text messages are JSON objects with a "
            "`type`; unknown fields are refused; all times are milliseconds. The HTTP routes are "
            "described in /openapi.json."
        ),
        "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
    }


def stream_servers(host: str, scheme: Literal["ws", "wss"], *, key_required: bool) -> Json:
    """Return the document's member `servers`, the one that depends on who asks."""
    server: Json = {"host": host, "protocol": scheme}
    if key_required:
        names = _security_schemes()
        server["security"] = [{"$ref": f"#/components/securitySchemes/{name}"} for name in names]
    return {"this": server}


def _security_schemes() -> Json:
    return {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "programs: the header Authorization: Bearer KEY in the handshake",
        },
        "subprotocol": {
            "type": "httpApiKey",
            "in": "header",
            "name": "Sec-WebSocket-Protocol",
            "description": (
                "pages: beside ovoad.v1 they offer ovoad.key. + the key in base64url without "
                "padding; it is never echoed"
            ),
        },
    }


def _channel() -> Json:
    return {
        "address": "/v1/stream",
        "summary": (
            "One session a connection: session.create first, then frames; every frame is answered "
            f"once. The subprotocol {protocol.SUBPROTOCOL} may be offered."
        ),
        "servers": [{"$ref": "#/servers/this"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _names()},
        "bindings": {
            "ws": {
                "method": "GET",
                "headers": {
                    "type": "object",
                    "properties": {
                        "Sec-WebSocket-Protocol": {
                            "type": "string",
                            "examples": [protocol.SUBPROTOCOL],
                        },
                        "Authorization": {"type": "string", "examples": ["Bearer KEY"]},
                    },
                },
                "bindingVersion": "0.1.0",
            }
        },
        "x-close-codes": [
            {"code": code, "meaning": meaning, "reconnect": reconnect}
            for code, (meaning, reconnect) in CLOSES.items()
        ],
    }


def _operations() -> Json:
    channel = {"$ref": "#/channels/stream"}
    operations: Json = {}
    for name, (summary, said, heard) in _REQUESTS.items():
        operations[name] = {
            "action": "receive",
            "channel": channel,
            "summary": summary,
            "messages": _in_channel(said),
            "reply": {"channel": channel, "messages": _in_channel(heard)},
        }
    for name, (summary, heard) in _NOTICES.items():
        operations[name] = {
            "action": "send",
            "channel": channel,
            "summary": summary,
            "messages": _in_channel(heard),
        }
    return operations


def _in_channel(names: tuple[str, ...]) -> list[Json]:
    return [{"$ref": f"#/channels/stream/messages/{name}"} for name in names]


def _models() -> dict[str, type[protocol.Message]]:
    """Return the model of each message by its type."""
    unions = (protocol.ClientMessage, protocol.ServerMessage)
    models = [model for union in unions for model in get_args(get_args(union)[0])]
    return {model.model_fields["type"].default: model for model in models}


def _names() -> list[str]:
    return [BINARY_FRAME, *_models()]


def _messages() -> Json:
    messages: Json = {BINARY_FRAME: _binary_frame()}
    for name, model in _models().items():
        shown = [message for message in examples.MESSAGES if isinstance(message, model)]
        messages[name] = {
            "name": name,
            "title": name,
            "summary": (model.__doc__ or "").strip().splitlines()[0],
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
            "examples": [
                {"payload": message.model_dump(mode="json", exclude_none=True)} for message in shown
            ],
        }
    return messages


def _binary_frame() -> Json:
    """Describe the binary message, which no JSON schema can: a header, then the image's bytes."""
    frame = examples.FRAME
    size = protocol.FRAME_HEADER.size
    return {
        "name": BINARY_FRAME,
        "title": "binary frame",
        "summary": f"One frame: a little-endian header of {size} bytes, then JPEG, PNG or WebP.",
        "contentType": OCTETS,
        "payload": {
            "type": "string",
            "format": "binary",
            "contentMediaType": OCTETS,
            "minLength": size + 1,
            "description": (
                "magic u16, version u8, flags u8, seq u32, timestamp_ms i64, image bytes; "
                f'in Python: struct.pack("{protocol.FRAME_HEADER.format}", '
                f"0x{protocol.FRAME_MAGIC:04X}, {protocol.PROTOCOL_VERSION}, 0, seq, "
                "timestamp_ms) + image; seq and timestamp_ms strictly increase"
            ),
        },
        "x-byte-order": "little-endian",
        "x-layout": [
            {"name": "magic", "offset": 0, "type": "u16", "value": protocol.FRAME_MAGIC},
            {"name": "version", "offset": 2, "type": "u8", "value": protocol.PROTOCOL_VERSION},
            {"name": "flags", "offset": 3, "type": "u8", "value": 0},
            {"name": "seq", "offset": 4, "type": "u32"},
            {"name": "timestamp_ms", "offset": 8, "type": "i64"},
            {"name": "image", "offset": size, "type": "bytes"},
        ],
        "x-example-hex": protocol.pack_frame(frame.seq, frame.timestamp_ms, frame.image).hex(),
    }


def _schemas() -> Json:
    """Return the JSON schema of every model, by name, with what its validators check."""
    models = _models().values()
    _, document = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    schemas: Json = document["$defs"]
    for model in models:
        schema = schemas[model.__name__]
        schema["required"] = ["type", *schema.get("required", [])]
    schemas["Prediction"]["oneOf"] = [
        {"required": ["probabilities", "similarities"]},
        {"required": ["top"]},
    ]
    words = schemas["Vocabulary"]["properties"]
    words["labels"] |= {"items": _WORDS, "minItems": 1, "uniqueItems": True}
    _bound_list(words["templates"], _TEMPLATE)
    _bound_list(words["background"], _WORDS)
    return schemas


def _bound_list(optional: Json, items: Json) -> None:
    """Bound the items of a list that may be null."""
    (values,) = [choice for choice in optional["anyOf"] if choice.get("type") == "array"]
    values |= {"items": items, "minItems": 1}
