"""A user's words made ready for scoring: labels, background and their embeddings.

Knows encoders by their interface alone; embedding goes through a cache that it is given.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ovoad_model.arrays import Float32Array, unit
from ovoad_model.encoder import Encoder
from ovoad_model.scorers import Scorer

LOGGER: Final = logging.getLogger(__name__)
LABELS_AT_ONCE: Final = 128
PROGRESS_S: Final = 5.0

EmbedText = Callable[[Sequence[str]], Float32Array]
"""Sentences, C of them, to unit vectors [C, D]; usually an encoder behind a cache."""


@dataclass(frozen=True)
class Vocabulary:
    """Embedded words, in the space of one scorer.

    labels: C words as the user wrote them. embeddings [C + N, E]: the labels, then N background
    concepts. warnings: what the encoder cannot do with some of the words.
    """

    labels: tuple[str, ...]
    scorer: str
    embeddings: Float32Array
    warnings: tuple[str, ...]


def build_vocabulary(
    labels: Sequence[str],
    *,
    encoder: Encoder,
    scorer: Scorer,
    embed_text: EmbedText,
    templates: Sequence[str] | None = None,
    background: Sequence[str] | None = None,
) -> Vocabulary:
    """Embed labels through every template (unit mean) and background concepts as they stand."""
    text = np.concatenate(
        [
            embed_labels(labels, templates or encoder.templates, embed_text),
            embed_text(background or scorer.background),
        ]
    )
    warnings = tuple(w for w in map(encoder.warnings_for, labels) if w is not None)
    return Vocabulary(tuple(labels), scorer.name, scorer.embed_text(text), warnings)


def embed_labels(
    labels: Sequence[str], templates: Sequence[str], embed_text: EmbedText
) -> Float32Array:
    """Embed each label as the unit mean of its T prompts' unit vectors: [C, D].

    Some labels at a time, so that the prompts' vectors take no memory that grows with C; the log
    says every 5 s how far it is.
    """
    parts: list[Float32Array] = []
    said_s = time.monotonic()
    for start in range(0, len(labels), LABELS_AT_ONCE):
        some = labels[start : start + LABELS_AT_ONCE]
        prompts = [template.replace("{}", label) for label in some for template in templates]
        vectors = embed_text(prompts).reshape(len(some), len(templates), -1)
        parts.append(unit(vectors.mean(axis=1)))
        if time.monotonic() - said_s > PROGRESS_S:
            said_s = time.monotonic()
            LOGGER.info("embedded %d of %d labels", start + len(some), len(labels))
    return np.concatenate(parts)
