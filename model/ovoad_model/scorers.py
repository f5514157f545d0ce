"""The paper's training-free scorers: CLIP-I, CLIP-II and CLIP-III (paper.md, Scoring).

Stateless functions of window batches; know no session and no vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np

from ovoad_model.arrays import BoolArray, Float32Array, unit
from ovoad_model.encoder import Encoder
from ovoad_model.window import NEIGHBOURS, SLOTS, WindowBatch

ScorerName = Literal["frame", "average", "cluster", "ovoad"]
CLUSTERS: Final = 4
CLUSTER_ROUNDS: Final = 10

Pool = Callable[[Float32Array, BoolArray], Float32Array]
"""From a window's frames [B, 32, D], unit vectors, and their mask [B, 32] to one vector [B, D]."""


@dataclass(frozen=True)
class WindowEmbedding:
    """What a scorer makes of B windows.

    embedding [B, E]: its dot product with a label's text embedding [E] is the similarity.
    assignment [B, 8, K] and groups [B, K, E], from scorer `ovoad` alone: which group each
    neighbour belongs to, and the groups' embeddings.
    """

    embedding: Float32Array
    assignment: Float32Array | None = None
    groups: Float32Array | None = None


class Scorer(Protocol):
    """Turns windows into embeddings, and text embeddings [C, D] into its own space [C, E]."""

    @property
    def name(self) -> ScorerName:
        """Which of the scorers it is."""

    @property
    def temperature(self) -> float:
        """Calibrated: probabilities are softmax(similarity / temperature)."""

    @property
    def background(self) -> tuple[str, ...]:
        """Default background concepts: whole sentences, put into no template."""

    @property
    def background_floor(self) -> float:
        """Calibrated similarity that a label must clear though no background concept fits."""

    def embed_windows(self, windows: WindowBatch) -> WindowEmbedding:
        """Embed B windows; each row depends on its own window alone."""

    def embed_text(self, text: Float32Array) -> Float32Array:
        """Map text embeddings [C, D] to the space of the window embeddings [C, E]."""

    def foreground(
        self, assignment: Float32Array, groups: Float32Array, text: Float32Array
    ) -> Float32Array:
        """Tell from embed_windows' groups and one text [B, E] each how much frames show it: [B, 8].

        Called for scorers that give an assignment.
        """


@dataclass(frozen=True)
class TrainingFreeScorer:
    """One of the paper's CLIP-I, CLIP-II, CLIP-III: frames' embeddings, pooled over the window."""

    name: ScorerName
    encoder: Encoder
    pool: Pool
    slots: int  # how many of the newest slots the pool looks at

    @property
    def temperature(self) -> float:
        """The encoder's."""
        return self.encoder.temperature

    @property
    def background(self) -> tuple[str, ...]:
        """The encoder's."""
        return self.encoder.background

    @property
    def background_floor(self) -> float:
        """The encoder's."""
        return self.encoder.background_floor

    def embed_windows(self, windows: WindowBatch) -> WindowEmbedding:
        """Project the frames and pool them: [B, D], unit norm."""
        features, mask = windows.neighbours, windows.neighbours_mask
        if self.slots > features.shape[1]:
            features = np.concatenate([windows.past, features], axis=1)
            mask = np.concatenate([windows.past_mask, mask], axis=1)
        frames = self.encoder.project(features[:, -self.slots :])
        return WindowEmbedding(self.pool(frames, mask[:, -self.slots :]))

    def embed_text(self, text: Float32Array) -> Float32Array:
        """Return the text embeddings as they are."""
        return text

    def foreground(
        self, assignment: Float32Array, groups: Float32Array, text: Float32Array
    ) -> Float32Array:
        """There are no groups here."""
        raise NotImplementedError(f"scorer {self.name} gives no assignment")


def frame_scorer(encoder: Encoder) -> TrainingFreeScorer:
    """CLIP-I: the current frame alone."""
    return TrainingFreeScorer("frame", encoder, _last, slots=1)


def average_scorer(encoder: Encoder) -> TrainingFreeScorer:
    """CLIP-II: the mean of the neighbours' embeddings (2 s), missing frames left out."""
    return TrainingFreeScorer("average", encoder, _masked_unit_mean, slots=NEIGHBOURS)


def cluster_scorer(encoder: Encoder) -> TrainingFreeScorer:
    """CLIP-III: k-means over the window's frames, mean of the current frame's cluster.

    Free in the paper, chosen here: spherical k-means, K = 4, ten rounds, started by farthest-first
    from the current frame, so that the result is a function of the window alone.
    """
    return TrainingFreeScorer("cluster", encoder, _mean_of_last_cluster, slots=SLOTS)


def _last(frames: Float32Array, mask: BoolArray) -> Float32Array:
    """The newest frame's embedding: [B, D]."""
    return frames[:, -1]


def _mean_of_last_cluster(frames: Float32Array, mask: BoolArray) -> Float32Array:
    """Mean of the cluster that holds the newest frame, scaled to unit norm: [B, D]."""
    return _masked_unit_mean(frames, _same_cluster_as_last(frames, mask))


def _masked_unit_mean(frames: Float32Array, mask: BoolArray) -> Float32Array:
    """Mean of unit vectors [B, T, D] where mask [B, T], scaled to unit norm: [B, D]."""
    summed = mask.astype(np.float32)[:, None] @ frames
    return unit(summed[:, 0])


def _same_cluster_as_last(frames: Float32Array, mask: BoolArray) -> BoolArray:
    """Cluster unit vectors [B, T, D]; tell which share the last frame's cluster: [B, T]."""
    centres = _farthest_first(frames, mask)
    cluster = np.argmax(frames @ centres.transpose(0, 2, 1), axis=-1)
    for _ in range(CLUSTER_ROUNDS):
        member = (cluster[:, None] == np.arange(CLUSTERS)[:, None]) & mask[:, None]
        summed = member.astype(np.float32) @ frames
        centres = np.where(member.any(axis=-1, keepdims=True), unit(summed), centres)
        moved = np.argmax(frames @ centres.transpose(0, 2, 1), axis=-1)
        if np.array_equal(moved, cluster):
            break
        cluster = moved
    same: BoolArray = (cluster == cluster[:, -1:]) & mask
    return same


def _farthest_first(frames: Float32Array, mask: BoolArray) -> Float32Array:
    """Choose K starting centres [B, K, D]: the last frame, then ever the least similar one."""
    rows = np.arange(len(frames))
    centres = [frames[:, -1]]
    nearest = (frames @ centres[0][..., None])[..., 0]
    for _ in range(CLUSTERS - 1):
        pick = np.argmin(np.where(mask, nearest, np.float32(np.inf)), axis=-1)
        centres.append(frames[rows, pick])
        nearest = np.maximum(nearest, (frames @ centres[-1][..., None])[..., 0])
    return np.stack(centres, axis=1)
