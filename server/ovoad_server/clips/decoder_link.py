"""What the decoder's process says to the server: kinds of records behind a fixed header.

A record is HEADER, then `size` bytes: JSON, or for a frame its RGB pixels [height, width, 3].
"""

import json
import struct
from dataclasses import asdict, dataclass
from typing import Final

HEADER: Final = struct.Struct("<cQqII")  # kind, size, timestamp_ms, height, width
OPENED: Final = b"O"  # JSON: Opened
FRAME: Final = b"F"
POSITION: Final = b"P"  # timestamp_ms alone: it gets on
ENDED: Final = b"E"  # JSON: Ended
REFUSED: Final = b"X"  # JSON: Refused


@dataclass(frozen=True)
class Task:
    """What to decode, and its bounds."""

    descriptor: int  # of the file
    container: str
    fps: float
    threads: int
    max_pixels: int
    least_side: int  # that a frame's shorter side keeps where it comes smaller; 0: it comes whole
    max_frames: int
    max_duration_s: float
    output: int = -1  # the pipe's; whoever starts the process sets this and the next
    server_pid: int = 0


@dataclass(frozen=True)
class Opened:
    """What the file's header says of its frames, upright."""

    width: int
    height: int
    fps: float | None
    duration_ms: int | None
    frame_count: int | None


@dataclass(frozen=True)
class Ended:
    """All frames were read; expected is how many the header had promised, or FFmpeg's estimate."""

    frames: int
    expected: int | None
    last_ms: int  # of the last frame


@dataclass(frozen=True)
class Refused:
    """Why there are no (more) frames."""

    status: int
    code: str
    message: str


def pack_json(kind: bytes, record: Opened | Ended | Refused) -> bytes:
    """Return a record that holds JSON."""
    body = json.dumps(asdict(record)).encode()
    return HEADER.pack(kind, len(body), 0, 0, 0) + body
