"""What a run is trained on, in few bytes: tells whether a checkpoint goes on with the same data."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from ovoad_model.encoder import Encoder
from ovoad_model.training.captions import Caption
from ovoad_model.training.feature_store import FeatureStore

BLOCK_BYTES: Final = 64 * 1024
BLOCKS: Final = 16
DIGITS: Final = 16


def describe_data(
    encoder: Encoder, captions: Sequence[Caption], store: FeatureStore
) -> dict[str, object]:
    """Name the encoder, the captions and the content of every feature file that they use."""
    videos = sorted({caption.video for caption in captions})
    features = hashlib.sha256()
    for video in videos:
        content = content_digest(store.path(video))
        features.update(repr((video, store.length(video), content)).encode())
    return {
        "encoder": encoder.fingerprint[:DIGITS],
        "captions": digest_lines(repr((c.video, c.start_ms, c.end_ms, c.text)) for c in captions),
        "videos": len(videos),
        "frames": sum(store.length(video) for video in videos),
        "features": features.hexdigest()[:DIGITS],
    }


def content_digest(path: Path) -> str:
    """Digest a file's size and content: all of it up to 1 MiB, of longer ones 16 spread blocks.

    The blocks are 64 KiB each, the first at the file's start and the last at its end.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        if size <= BLOCKS * BLOCK_BYTES:
            digest.update(stream.read())
        else:
            for block in range(BLOCKS):
                stream.seek((size - BLOCK_BYTES) * block // (BLOCKS - 1))
                digest.update(stream.read(BLOCK_BYTES))
    return digest.hexdigest()


def digest_lines(lines: Iterator[str]) -> str:
    """Digest texts in their order."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()[:DIGITS]


def differences(found: str, expected: str) -> str:
    """Say in one line where two runs' descriptions (JSON objects) differ: "name X, expected Y"."""
    left, right = _flat(_members(found)), _flat(_members(expected))
    return "; ".join(
        f"{name} {left.get(name, 'absent')}, expected {right.get(name, 'none')}"
        for name in dict.fromkeys([*right, *left])
        if left.get(name) != right.get(name)
    )


def _members(text: str) -> Mapping[str, object]:
    try:
        members = json.loads(text)
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}


def _flat(members: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """{"a": {"b": 1}} as {"a.b": "1"}."""
    flat: dict[str, str] = {}
    for name, value in members.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = str(value)
    return flat
