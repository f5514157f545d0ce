"""The model as one object: frames to features, windows and words to scores.

Knows no session and no server: windows and vocabularies are owned by the caller.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ovoad_model.arrays import Float32Array, Frame
from ovoad_model.encoder import Encoder
from ovoad_model.errors import UnknownScorerError
from ovoad_model.probabilities import label_probabilities
from ovoad_model.scorers import Scorer, ScorerName, WindowEmbedding
from ovoad_model.text_cache import TextCache
from ovoad_model.vocabulary import Vocabulary, build_vocabulary
from ovoad_model.window import FPS, NEIGHBOURS, PAST, Window, WindowView, stack_views


@dataclass(frozen=True)
class Scores:
    """The answer for one window.

    probabilities [C] and background sum to 1; similarities [C] are the raw dot products.
    assignment [8, K] and foreground [8] (0 to 1), from scorer `ovoad` alone: each neighbour's
    groups, and how much it belongs to the best label.
    """

    probabilities: Float32Array
    background: float
    similarities: Float32Array
    assignment: Float32Array | None = None
    foreground: Float32Array | None = None


@dataclass(frozen=True)
class DetectorFacts:
    """What a detector is: its encoder's and its default scorer's facts, its window's grid."""

    encoder: str
    fingerprint: str
    scorers: tuple[ScorerName, ...]  # the default first
    languages: tuple[str, ...]
    templates: tuple[str, ...]
    background: tuple[str, ...]
    feature_width: int
    lanes: int  # frames that may be encoded side by side, each in a call of its own
    least_side: int  # pixels that a frame's shorter side needs: of the encoder's input
    fps: float = FPS
    past: int = PAST
    neighbours: int = NEIGHBOURS


class Detector:
    """An encoder, its scorers and a text cache behind the four calls that a server needs."""

    def __init__(
        self, encoder: Encoder, scorers: Sequence[Scorer], *, text_cache: TextCache | None = None
    ) -> None:
        """The first scorer is the default; without a cache all texts are embedded anew."""
        self.encoder = encoder
        self.text_cache = text_cache
        self._scorers: dict[str, Scorer] = {scorer.name: scorer for scorer in scorers}
        self.scorer_names: tuple[ScorerName, ...] = tuple(scorer.name for scorer in scorers)

    def vocabulary(
        self,
        labels: Sequence[str],
        *,
        templates: Sequence[str] | None = None,
        background: Sequence[str] | None = None,
        scorer: str | None = None,
        anew: bool = False,
    ) -> Vocabulary:
        """Embed a user's words for one scorer; slow for many new words, quick for known ones.

        anew: past the cache, so that what the encoder says now is seen.

        The embeddings are laid out column by column: read so, a product with one vector takes
        half the time (benchmarks/label_cost.py).
        """
        words = build_vocabulary(
            labels,
            encoder=self.encoder,
            scorer=self._scorer(scorer or self.scorer_names[0]),
            embed_text=self.encoder.encode_text if anew else self._embed_text,
            templates=templates,
            background=background,
        )
        return replace(words, embeddings=np.asfortranarray(words.embeddings))

    def open_window(self) -> Window:
        """Return an empty window for features of this encoder."""
        return Window(self.encoder.feature_width)

    def encode(self, frames: Sequence[Frame]) -> Float32Array:
        """Encode B frames into features [B, F]."""
        return self.encoder.encode_frames(frames)

    def score(
        self, views: Sequence[WindowView], vocabularies: Sequence[Vocabulary]
    ) -> list[Scores]:
        """Score B windows, each against its own vocabulary.

        Batched by scorer, and those of one vocabulary (the same object) by vocabulary.
        """
        scores: list[Scores | None] = [None] * len(views)
        for name in {vocabulary.scorer for vocabulary in vocabularies}:
            rows = [row for row, words in enumerate(vocabularies) if words.scorer == name]
            embedded = self._scorer(name).embed_windows(stack_views([views[row] for row in rows]))
            for indices in _same_objects([vocabularies[row] for row in rows]):
                words = vocabularies[rows[indices[0]]]
                similarities = embedded.embedding[indices] @ words.embeddings.T
                for index, row_similarities in zip(indices, similarities, strict=True):
                    scores[rows[index]] = self._score_one(words, embedded, index, row_similarities)
        return [score for score in scores if score is not None]

    def _embed_text(self, texts: Sequence[str]) -> Float32Array:
        if self.text_cache is None:
            return self.encoder.encode_text(texts)
        return self.text_cache.embed(self.encoder, texts)

    def _score_one(
        self,
        words: Vocabulary,
        embedded: WindowEmbedding,
        index: int,
        similarities: Float32Array,
    ) -> Scores:
        """Make the scores of one window [index] from its similarities [C + N]."""
        scorer = self._scorer(words.scorer)
        count = len(words.labels)
        probabilities, background = label_probabilities(
            similarities[:count],
            similarities[count:],
            temperature=scorer.temperature,
            floor=scorer.background_floor,
        )
        if embedded.assignment is None or embedded.groups is None:
            return Scores(probabilities, background, similarities[:count])
        row = slice(index, index + 1)
        best = words.embeddings[[int(np.argmax(similarities[:count]))]]
        foreground = scorer.foreground(embedded.assignment[row], embedded.groups[row], best)
        return Scores(
            probabilities,
            background,
            similarities[:count],
            embedded.assignment[index],
            foreground[0],
        )

    @property
    def facts(self) -> DetectorFacts:
        """What it is."""
        encoder = self.encoder
        return DetectorFacts(
            encoder=encoder.name,
            fingerprint=encoder.fingerprint,
            scorers=self.scorer_names,
            languages=encoder.languages,
            templates=encoder.templates,
            background=self.background,
            feature_width=encoder.feature_width,
            lanes=encoder.lanes,
            least_side=encoder.input_size,
        )

    @property
    def text_counts(self) -> tuple[int, int]:
        """Texts found in the cache and texts embedded anew, so far."""
        cache = self.text_cache
        return (0, 0) if cache is None else (cache.hits, cache.misses)

    @property
    def background(self) -> tuple[str, ...]:
        """The default background concepts of the default scorer."""
        return self._scorer(self.scorer_names[0]).background

    def _scorer(self, name: str) -> Scorer:
        try:
            return self._scorers[name]
        except KeyError:
            raise UnknownScorerError(name, self.scorer_names) from None


def _same_objects(vocabularies: Sequence[Vocabulary]) -> list[list[int]]:
    """Group the places that hold one and the same vocabulary."""
    places: dict[int, list[int]] = {}
    for place, words in enumerate(vocabularies):
        places.setdefault(id(words), []).append(place)
    return list(places.values())
