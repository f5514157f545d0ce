"""What an archive's decoder says to its worker: kinds of records behind a fixed header.

A record is HEADER, then `size` bytes: JSON, or for a frame its RGB pixels [height, width, 3]. The
worker asks for one file at a time: a line of JSON, a Request.
"""

import json
import struct
from dataclasses import asdict, dataclass
from typing import Final

HEADER: Final = struct.Struct("<cQqII")  # kind, size, timestamp_ms, height, width
OPENED: Final = b"O"  # JSON: Header
FRAME: Final = b"F"
ENDED: Final = b"E"  # nothing more of this file
REFUSED: Final = b"X"  # JSON: Refused


@dataclass(frozen=True)
class Request:
    """Which file to decode, and how many frames of each second are wanted."""

    path: str
    fps: float


@dataclass(frozen=True)
class Header:
    """What the file's header says; a length that it does not tell is None."""

    width: int
    height: int
    duration_ms: int | None


@dataclass(frozen=True)
class Refused:
    """Why there are no (more) frames."""

    reason: str


def pack_json(kind: bytes, record: Header | Refused) -> bytes:
    """Return a record that holds JSON."""
    body = json.dumps(asdict(record)).encode()
    return HEADER.pack(kind, len(body), 0, 0, 0) + body
