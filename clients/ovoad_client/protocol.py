"""The wire schema, version 1: every message as a pydantic model, and the binary frame header.

Knows no transport and no model. All times are milliseconds. Unknown fields are refused.
"""

import base64
import binascii
import struct
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

PROTOCOL_VERSION: Final = 1
SUBPROTOCOL: Final = "ovoad.v1"
FRAME_MAGIC: Final = 0x564F  # "OV" read as little-endian bytes
FRAME_HEADER: Final = struct.Struct("<HBBIq")  # magic, version, flags, seq, timestamp_ms
MAX_LABEL_CHARACTERS: Final = 256
MAX_LABELS: Final = 100_000  # of the contract; a server grants fewer
MAX_TEMPLATES: Final = 100
MAX_BACKGROUND: Final = 100
MAX_SEQ: Final = 2**32 - 1
_MAX_MISTAKES: Final = 100  # listing more takes pydantic seconds

CLOSE_NORMAL: Final = 1000
CLOSE_PROTOCOL: Final = 1008
CLOSE_TOO_LARGE: Final = 1009
CLOSE_SERVER_FAULT: Final = 1011
CLOSE_RESTART: Final = 1012
CLOSE_CAPACITY: Final = 1013
CLOSE_UNAUTHORISED: Final = 4401

Policy = Literal["realtime", "lossless"]
DropReason = Literal["busy", "rate", "stale"]
ScorerName = Literal["frame", "average", "cluster", "ovoad"]
ErrorCode = Literal[
    "bad_message",
    "bad_frame",
    "bad_image",
    "image_too_large",
    "frame_too_large",
    "out_of_order",
    "too_many_bad_frames",
    "bad_vocabulary",
    "unknown_scorer",
    "out_of_turn",
    "create_timeout",
    "unauthorised",
    "capacity",
    "restarting",
    "superseded",
    "internal",
]
Seq = Annotated[int, Field(ge=0, le=MAX_SEQ)]
TimestampMs = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


class ProtocolError(Exception):
    """A message that breaks the wire contract; `code` is the wire's error code."""

    def __init__(self, message: str, *, code: ErrorCode = "bad_message") -> None:
        super().__init__(message)
        self.code: ErrorCode = code


class Message(BaseModel):
    """Base of all wire messages: frozen, unknown fields refused, no silent conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def to_json(self) -> str:
        """Return the message as JSON text, fields that are None left out."""
        return self.model_dump_json(exclude_none=True)


# ---- client to server --------------------------------------------------------------------------


def _check_label(label: str) -> None:
    if not label.strip():
        raise ValueError("found an empty label, expected words")
    if len(label) > MAX_LABEL_CHARACTERS:
        raise ValueError(
            f"found a label of {len(label)} characters, expected at most {MAX_LABEL_CHARACTERS}"
        )


class Vocabulary(Message):
    """What to look for: labels in plain words; templates each hold one "{}"."""

    labels: Annotated[list[str], FailFast()] = Field(
        max_length=MAX_LABELS, examples=[["riding a bicycle", "crossing the street"]]
    )
    templates: list[str] | None = Field(default=None, max_length=MAX_TEMPLATES)
    background: list[str] | None = Field(default=None, max_length=MAX_BACKGROUND)

    @model_validator(mode="after")
    def _labels_are_usable(self) -> "Vocabulary":
        if not self.labels:
            raise ValueError("found no label, expected at least 1")
        seen: set[str] = set()
        for label in self.labels:
            _check_label(label)
            if label in seen:
                raise ValueError(f"found label {label!r} twice, expected each label once")
            seen.add(label)
        return self

    @model_validator(mode="after")
    def _templates_and_background_are_usable(self) -> "Vocabulary":
        if self.templates is not None:
            if not self.templates:
                raise ValueError("found an empty list of templates, expected at least 1 or none")
            for template in self.templates:
                if template.count("{}") != 1 or len(template) > MAX_LABEL_CHARACTERS:
                    raise ValueError(
                        f"found template {template[:80]!r}, expected exactly one {{}} in at most "
                        f"{MAX_LABEL_CHARACTERS} characters"
                    )
        if self.background is not None:
            if not self.background:
                raise ValueError(
                    "found an empty list of background concepts, expected at least 1 or none"
                )
            for concept in self.background:
                _check_label(concept)
        return self


class EventSettings(Message):
    """Hysteresis of start and end events: probabilities to enter and to leave, least duration."""

    enter: float = Field(default=0.5, gt=0, lt=1)
    exit: float = Field(default=0.3, ge=0, lt=1)
    min_duration_ms: int = Field(default=500, ge=0, le=60_000)

    @model_validator(mode="after")
    def _exit_is_not_above_enter(self) -> "EventSettings":
        if self.exit > self.enter:
            raise ValueError(
                f"found exit {self.exit} above enter {self.enter}, expected exit <= enter"
            )
        return self


class Resume(Message):
    """Ask to go on with a session whose connection broke."""

    token: str = Field(min_length=1, max_length=128)
    last_seq: Seq | None = None


class SessionCreate(Message):
    """The first message of a connection, within 10 s."""

    type: Literal["session.create"] = "session.create"
    vocabulary: Vocabulary
    policy: Policy = "realtime"
    scorer: ScorerName | None = None
    top_k: int | None = Field(default=None, ge=1, le=1000)
    events: EventSettings | None = None
    resume: Resume | None = None


class FrameMessage(Message):
    """One frame as text, for clients that cannot send binary messages."""

    type: Literal["frame"] = "frame"
    seq: Seq
    timestamp_ms: TimestampMs
    image_base64: str = Field(repr=False)

    def image(self) -> bytes:
        """Decode the image bytes; raises ProtocolError where they are not base64."""
        try:
            return base64.b64decode(self.image_base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProtocolError(
                f"found image_base64 that is not base64 ({error}), expected base64 text",
                code="bad_frame",
            ) from error


class VocabularyUpdate(Message):
    """Replace the words from the next frame on."""

    type: Literal["vocabulary.update"] = "vocabulary.update"
    vocabulary: Vocabulary


class SessionReset(Message):
    """Forget all past frames."""

    type: Literal["session.reset"] = "session.reset"


class SessionClose(Message):
    """Answer what is under way, then end."""

    type: Literal["session.close"] = "session.close"


class Ping(Message):
    """Ask for a pong at once."""

    type: Literal["ping"] = "ping"
    nonce: str | None = Field(default=None, max_length=128)


ClientMessage = Annotated[
    SessionCreate | FrameMessage | VocabularyUpdate | SessionReset | SessionClose | Ping,
    Field(discriminator="type"),
]


# ---- server to client --------------------------------------------------------------------------


class ModelInfo(Message):
    """Which encoder and scorer answer; the fingerprint changes when scores could."""

    encoder: str
    scorer: ScorerName
    fingerprint: str


class Limits(Message):
    """What the server grants a session."""

    max_frame_bytes: int
    max_pixels: int
    max_labels: int
    max_inflight: int
    max_fps: float
    idle_timeout_ms: int
    max_session_ms: int


class WindowShape(Message):
    """The window's grid: frames per second, past and neighbouring slots."""

    fps: float
    past: int
    neighbours: int


class SessionCreated(Message):
    """The session is open; send frames."""

    type: Literal["session.created"] = "session.created"
    session_id: str
    protocol: Literal[1] = PROTOCOL_VERSION
    model: ModelInfo
    labels: list[str]
    vocabulary_version: int
    policy: Policy
    limits: Limits
    window: WindowShape
    resume_token: str
    resumed: bool
    next_seq: Seq | None = None
    warnings: list[str] = Field(default_factory=list)


class ServerConfig(Message):
    """What `session.created` would grant, without a session: the answer of /v1/config."""

    protocol: Literal[1] = PROTOCOL_VERSION
    model: ModelInfo
    scorers: list[ScorerName]
    languages: list[str]
    templates: list[str]
    background: list[str]
    limits: Limits
    window: WindowShape
    events: EventSettings


class WindowState(Message):
    """What the window held: filled slots, oldest to newest, empty slots inside, still filling."""

    frames: int
    span_ms: int
    gaps: int
    warming_up: bool


class Timing(Message):
    """Milliseconds by stage; total runs from receipt to the finished score."""

    queue: float
    decode: float
    encode: float
    score: float
    total: float


class RankedLabel(Message):
    """One of the best labels of a prediction."""

    label: str
    probability: float
    similarity: float


class Grouping(Message):
    """What the `ovoad` scorer saw: groups of the neighbouring frames, and their foreground."""

    assignment: list[list[float]]
    foreground: list[float]


class Prediction(Message):
    """The answer to one frame; probabilities of all labels and of none sum to 1."""

    type: Literal["prediction"] = "prediction"
    seq: Seq
    timestamp_ms: TimestampMs
    vocabulary_version: int
    probabilities: list[float] | None = None
    background: float
    similarities: list[float] | None = None
    top: list[RankedLabel] | None = None
    window: WindowState
    timing_ms: Timing
    backlog: int
    grouping: Grouping | None = None


class FrameDropped(Message):
    """A frame that gets no prediction, and why."""

    type: Literal["frame.dropped"] = "frame.dropped"
    seq: Seq
    timestamp_ms: TimestampMs
    reason: DropReason


class Event(Message):
    """An action began or ended."""

    type: Literal["event"] = "event"
    kind: Literal["start", "end"]
    label: str
    timestamp_ms: TimestampMs
    probability: float
    start_ms: TimestampMs | None = None


class VocabularyUpdated(Message):
    """New words are in force from frame `from_seq` on."""

    type: Literal["vocabulary.updated"] = "vocabulary.updated"
    vocabulary_version: int
    labels: list[str]
    from_seq: Seq
    warnings: list[str] = Field(default_factory=list)


class SessionWasReset(Message):
    """The window is empty again."""

    type: Literal["session.was_reset"] = "session.was_reset"


class Pong(Message):
    """The answer to a ping."""

    type: Literal["pong"] = "pong"
    nonce: str | None = None


class Error(Message):
    """What was found and what was expected; after a fatal one the connection closes."""

    type: Literal["error"] = "error"
    code: ErrorCode
    message: str
    fatal: bool
    transient: bool
    seq: Seq | None = None
    retry_after_ms: int | None = None


class GoAway(Message):
    """The server will close soon; connect again elsewhere or later."""

    type: Literal["goaway"] = "goaway"
    reason: str
    time_left_ms: int


class DroppedCounts(Message):
    """Dropped frames by reason."""

    busy: int = 0
    rate: int = 0
    stale: int = 0


class SessionClosed(Message):
    """The last message: received = predicted + dropped + errors."""

    type: Literal["session.closed"] = "session.closed"
    reason: str
    received: int
    predicted: int
    dropped: DroppedCounts
    errors: int


ServerMessage = Annotated[
    SessionCreated
    | Prediction
    | FrameDropped
    | Event
    | VocabularyUpdated
    | SessionWasReset
    | Pong
    | Error
    | GoAway
    | SessionClosed,
    Field(discriminator="type"),
]

_CLIENT_MESSAGE: Final[TypeAdapter[Any]] = TypeAdapter(ClientMessage)
_SERVER_MESSAGE: Final[TypeAdapter[Any]] = TypeAdapter(ServerMessage)


def describe(error: ValidationError) -> str:
    """Turn the first of pydantic's complaints into one line of ours, of bounded length."""
    if error.error_count() > _MAX_MISTAKES:
        return f"found {error.error_count()} mistakes in one message, expected none"
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part)[:80] for part in first["loc"])[:200] or "message"
    if first["type"] == "extra_forbidden":
        return f"found unknown field {place}, expected only the fields of wire contract v1"
    if first["type"] == "missing":
        return f"field {place} is missing"
    if first["type"] == "value_error":
        return f"{place}: {first['ctx']['error']}"
    if first["type"] == "union_tag_invalid":
        tag = first["ctx"]["tag"][:80]
        return f"found type {tag!r}, expected one of {first['ctx']['expected_tags']}"
    if first["type"] == "union_tag_not_found":
        return f"{place}: found no field 'type', expected one that names the message"
    found = repr(first["input"])[:80]
    return f"{place}: found {found}: {first['msg'][:1].lower()}{first['msg'][1:]}"


def _refused(error: ValidationError) -> ProtocolError:
    text = describe(error)
    if error.error_count() > _MAX_MISTAKES:
        return ProtocolError(text)
    place = error.errors(include_url=False, include_input=False)[0]["loc"][:2]
    about_words = place in (("session.create", "vocabulary"), ("vocabulary.update", "vocabulary"))
    return ProtocolError(text, code="bad_vocabulary" if about_words else "bad_message")


def parse_client_message(text: str | bytes) -> "ClientMessage":
    """Parse a text message from a client; raises ProtocolError."""
    try:
        message: ClientMessage = _CLIENT_MESSAGE.validate_json(text)
    except ValidationError as error:
        raise _refused(error) from error
    return message


def parse_server_message(text: str | bytes) -> "ServerMessage":
    """Parse a text message from a server; raises ProtocolError."""
    try:
        message: ServerMessage = _SERVER_MESSAGE.validate_json(text)
    except ValidationError as error:
        raise _refused(error) from error
    return message


# ---- the binary frame --------------------------------------------------------------------------


@dataclass(frozen=True)
class BinaryFrame:
    """One frame: 16-byte header, then JPEG, PNG or WebP bytes."""

    seq: int
    timestamp_ms: int
    image: bytes


def pack_frame(seq: int, timestamp_ms: int, image: bytes) -> bytes:
    """Return the binary message of one frame."""
    return FRAME_HEADER.pack(FRAME_MAGIC, PROTOCOL_VERSION, 0, seq, timestamp_ms) + image


def unpack_frame(data: bytes) -> BinaryFrame:
    """Parse a binary message; raises ProtocolError with code bad_frame."""
    if len(data) <= FRAME_HEADER.size:
        raise ProtocolError(
            f"frame has {len(data)} bytes, expected more than {FRAME_HEADER.size}",
            code="bad_frame",
        )
    magic, version, flags, seq, timestamp_ms = FRAME_HEADER.unpack_from(data)
    if magic != FRAME_MAGIC:
        raise ProtocolError(
            f"frame starts with magic 0x{magic:04X}, expected 0x{FRAME_MAGIC:04X}", code="bad_frame"
        )
    if version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"frame has version {version}, expected {PROTOCOL_VERSION}", code="bad_frame"
        )
    if flags != 0:
        raise ProtocolError(f"frame has flags {flags}, expected 0", code="bad_frame")
    return BinaryFrame(seq, timestamp_ms, data[FRAME_HEADER.size :])
