"""What a clip's request says and what its answer consists of, beside the wire schema's messages.

Times are milliseconds from the clip's first frame. Unknown fields are refused.
"""

from typing import Final, Literal

from pydantic import Field, ValidationError

from ovoad_client import protocol
from ovoad_server.clips.refusals import ClipRefusedError

LEAST_FPS: Final = 0.1
MOST_FPS: Final = 60.0


class ClipRequest(protocol.Message):
    """What to look for in a clip, and how often."""

    vocabulary: protocol.Vocabulary
    scorer: protocol.ScorerName | None = None
    fps: float | None = Field(default=None, ge=LEAST_FPS, le=MOST_FPS)
    events: protocol.EventSettings | None = None
    top_k: int | None = Field(default=None, ge=1, le=1000)


class ClipFacts(protocol.Message):
    """What the file's header says; a rate, length or count that it does not tell is left out."""

    name: str
    bytes: int
    width: int
    height: int
    fps: float | None = None
    duration_ms: int | None = None
    frame_count: int | None = None


class ClipOpened(protocol.Message):
    """The first line: what is scored, and by what. fps is that of the sampled frames."""

    type: Literal["clip.opened"] = "clip.opened"
    clip: ClipFacts
    model: protocol.ModelInfo
    labels: list[str]
    fps: float
    window: protocol.WindowShape
    warnings: list[str] = Field(default_factory=list)


class ClipProgress(protocol.Message):
    """How far decoding has come, about once a second; share is of the length, where known."""

    type: Literal["clip.progress"] = "clip.progress"
    position_ms: int
    predicted: int
    share: float | None = None


class ClipClosed(protocol.Message):
    """The last line: frames = predicted + errors. A file that was cut short is not `complete`."""

    type: Literal["clip.closed"] = "clip.closed"
    frames: int
    predicted: int
    errors: int
    complete: bool
    warnings: list[str] = Field(default_factory=list)


class ClipError(protocol.Message):
    """The last line of an answer that broke off after it had begun."""

    type: Literal["error"] = "error"
    code: str
    message: str
    fatal: Literal[True] = True
    transient: bool
    retry_after_ms: int | None = None


class ClipAnswer(protocol.Message):
    """The answer as one JSON object; errors are those of single frames."""

    opened: ClipOpened
    predictions: list[protocol.Prediction]
    events: list[protocol.Event]
    errors: list[protocol.Error]
    closed: ClipClosed


def parse_request(data: bytes) -> ClipRequest:
    """Parse the part `request`; raises ClipRefusedError: 400 for what is no JSON, else 422."""
    try:
        return ClipRequest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            message = f"found a part request that is not JSON ({first['ctx']['error']})"
            raise ClipRefusedError(400, "bad_request", message) from error
        code = "bad_vocabulary" if first["loc"][:1] == ("vocabulary",) else "bad_request"
        raise ClipRefusedError(422, code, protocol.describe(error)) from error
