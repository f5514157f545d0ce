"""What ingress and encoder replicas say to each other. Knows no Ray.

Windows, words and scores travel as pickled bytes, so that Ray copies them without looking inside.
Both ends are the same program in one trusted cluster.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ovoad_server.engine.interface import WindowView


class AnotherModelError(Exception):
    """An encoder replica has another model than the one that the caller's windows are of."""


@dataclass(frozen=True)
class EmbeddedWords:
    """Words that a replica embedded: what the ingress tells its clients, and the vectors.

    key: a hash of `packed`, the pickled vocabulary. texts: found in the cache, embedded anew.
    """

    key: str
    labels: tuple[str, ...]
    warnings: tuple[str, ...]
    scorer: str
    packed: bytes
    texts: tuple[int, int]


@dataclass(frozen=True)
class ScoreRequest:
    """B windows to score, each against the words of its key.

    packed: vocabularies by key, for a replica that has asked for them.
    """

    fingerprint: str
    views: Sequence[WindowView]
    keys: Sequence[str]
    packed: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class UnknownWords:
    """Instead of scores: the replica does not have these words, send them along."""

    keys: frozenset[str]


def pack(message: object) -> bytes:
    """Return a message as bytes."""
    return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)


def unpack(data: bytes) -> Any:
    """Return the message that `pack` made bytes of."""
    return pickle.loads(data)
