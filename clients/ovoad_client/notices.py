"""What a stream tells of itself, between the server's messages. Never on the wire."""

from dataclasses import dataclass
from typing import Literal

from ovoad_client.protocol import ServerMessage


@dataclass(frozen=True)
class Reconnecting:
    """The connection broke, or an attempt failed; the next attempt comes after `wait_s`."""

    why: str
    attempt: int  # 1: the first since the stream last worked
    wait_s: float
    type: Literal["client.reconnecting"] = "client.reconnecting"


@dataclass(frozen=True)
class Reconnected:
    """The stream goes on; the session.created before this says more.

    resumed: window, words and events continue; else the session is a fresh one, whose window
    warms up again. sent_again: seqs of the frames that the server had not got (lossless).
    """

    resumed: bool
    sent_again: tuple[int, ...]
    type: Literal["client.reconnected"] = "client.reconnected"


@dataclass(frozen=True)
class FramesLost:
    """Frames that get no answer: a break swallowed them, or the session ended before them."""

    seqs: tuple[int, ...]
    type: Literal["client.frames_lost"] = "client.frames_lost"


Notice = Reconnecting | Reconnected | FramesLost
StreamMessage = ServerMessage | Notice
