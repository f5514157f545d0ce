"""What server and worker process say to each other, and how: pickled messages behind their length.

Both ends are the same program on the same machine, joined by a socket pair that nobody else has.
"""

import pickle
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar

from ovoad_server.engine.interface import DetectorFacts, ScoreStep, Vocabulary, Window

Key = TypeVar("Key")
LENGTH: Final = struct.Struct("<Q")
Method = Literal["encode", "score", "probe", "beat", "embed", "drop"]


@dataclass(frozen=True)
class Setup:
    """The first message to a worker: what to build, and how.

    factory: "package.module:function", called with `arguments`, returns a detector.
    """

    factory: str
    arguments: Mapping[str, Any]
    decode_threads: int = 2
    max_pixels: int = 16_777_216


@dataclass(frozen=True)
class Ready:
    """The first message of a worker: its model, its golden answers, what batches took."""

    facts: DetectorFacts
    golden: list[float]
    costs: list[tuple[int, float]]


@dataclass(frozen=True)
class StartFailed:
    """The first message of a worker that cannot work: why, in one line."""

    reason: str


@dataclass(frozen=True)
class Call:
    """Something to do; answered by a Result with the same number, but for `drop`."""

    number: int
    method: Method
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Result:
    """The value of a call, or why there is none."""

    number: int
    value: Any = None
    fault: str | None = None


@dataclass(frozen=True)
class SentStep(Generic[Key]):
    """A ScoreStep on its way to whoever may hold its words under this key."""

    window: Window
    timestamp_ms: int
    words: Key


def with_words(
    steps: Sequence[SentStep[Key] | None], find: Callable[[Key], Vocabulary | None]
) -> list[ScoreStep | None]:
    """Return the steps with their words; None for those whose words are not found."""
    found: list[ScoreStep | None] = []
    for step in steps:
        words = None if step is None else find(step.words)
        if step is None or words is None:
            found.append(None)
        else:
            found.append(ScoreStep(step.window, step.timestamp_ms, words))
    return found


@dataclass(frozen=True)
class Embedded:
    """What the server keeps of words that the worker embedded; hits and misses of its cache."""

    labels: tuple[str, ...]
    warnings: tuple[str, ...]
    scorer: str
    text_counts: tuple[int, int]


def pack(message: object) -> bytes:
    """Return a message with its length in front."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(body)) + body


def receive(end: socket.socket) -> Any:
    """Read one message; raises EOFError once the other end is gone."""
    (length,) = LENGTH.unpack(_read(end, LENGTH.size))
    return pickle.loads(_read(end, length))


def _read(end: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        read = end.recv_into(view)
        if read == 0:
            raise EOFError("the other end is gone")
        view = view[read:]
    return data
