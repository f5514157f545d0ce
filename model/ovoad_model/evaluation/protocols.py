"""The two ways to prompt and to rank that a number can be reported under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ovoad_model.detector import Detector
from ovoad_model.evaluation.scored import ScoreKind
from ovoad_model.metrics import EvaluationError
from ovoad_model.vocabulary import Vocabulary

ProtocolName = Literal["standard", "paper"]


@dataclass(frozen=True)
class Protocol:
    """How labels become text, what background is, and what average precision ranks.

    templates and background are None where the encoder's or the scorer's own defaults hold.
    """

    name: ProtocolName
    score: ScoreKind
    templates: tuple[str, ...] | None
    background: tuple[str, ...] | None


STANDARD: Final = Protocol("standard", "probability", templates=None, background=None)
"""What the service answers: the encoder's own prompts, ranked by probability."""

PAPER: Final = Protocol(
    "paper",
    "similarity",
    templates=("a photo of action {}",),
    background=("a photo of action background",),
)
"""The paper's evaluation: one prompt, the class "background" prompted as any other and left out
of the mean, and the raw score ŷ = P_AC[-1] + α P_DNTR ranked (paper.md, Scoring)."""

PROTOCOLS: Final = {"standard": STANDARD, "paper": PAPER}


def embed_words(
    detector: Detector, labels: Sequence[str], protocol: Protocol, *, scorer: str
) -> Vocabulary:
    """Embed the labels as the protocol prompts them; refuse an empty or doubled label."""
    check_labels(labels)
    return detector.vocabulary(
        labels, templates=protocol.templates, background=protocol.background, scorer=scorer
    )


def check_labels(labels: Sequence[str]) -> None:
    """Refuse no labels, blank labels and two that differ in nothing but case and spacing."""
    if not labels:
        raise EvaluationError("found no labels, expected at least one")
    seen: dict[str, str] = {}
    for label in labels:
        folded = " ".join(label.casefold().split())
        if not folded:
            raise EvaluationError(f"found the label {label!r}, expected some words")
        if folded in seen:
            raise EvaluationError(
                f"found the labels {seen[folded]!r} and {label!r}, expected each label once"
            )
        seen[folded] = label
