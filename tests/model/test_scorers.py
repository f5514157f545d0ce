"""The training-free scorers against plain loops, masks and batches."""

from collections.abc import Sequence

import numpy as np
import pytest

from ovoad_model.arrays import Float32Array, Frame, unit
from ovoad_model.scorers import (
    TrainingFreeScorer,
    average_scorer,
    cluster_scorer,
    frame_scorer,
)
from ovoad_model.window import NEIGHBOURS, PAST, WindowBatch

WIDTH = 6


class PlainEncoder:
    """Fake encoder whose joint space is that of its features."""

    name = "plain"
    fingerprint = "0"
    input_size = 1
    feature_width = WIDTH
    embedding_width = WIDTH
    temperature = 1.0
    languages = ("en",)
    templates = ("{}",)
    background = ("nothing",)
    background_floor = float("-inf")
    lanes = 1

    def encode_frames(self, frames: Sequence[Frame]) -> Float32Array:
        raise NotImplementedError

    def project(self, features: Float32Array) -> Float32Array:
        return unit(features)

    def encode_text(self, texts: Sequence[str]) -> Float32Array:
        raise NotImplementedError

    def warnings_for(self, text: str) -> str | None:
        return None


FRAME = frame_scorer(PlainEncoder())
AVERAGE = average_scorer(PlainEncoder())
CLUSTER = cluster_scorer(PlainEncoder())
ALL = pytest.mark.parametrize("scorer", [FRAME, AVERAGE, CLUSTER], ids=lambda scorer: scorer.name)


def windows(seed: int = 0, count: int = 5, *, keep: float = 0.7) -> WindowBatch:
    """Random windows with random gaps; the newest frame is there."""
    random = np.random.default_rng(seed)
    mask = random.random((count, PAST + NEIGHBOURS)) < keep
    mask[:, -1] = True
    features = random.normal(size=(*mask.shape, WIDTH)).astype(np.float32) * mask[..., None]
    return WindowBatch(features[:, :PAST], mask[:, :PAST], features[:, PAST:], mask[:, PAST:])


def take(batch: WindowBatch, rows: slice) -> WindowBatch:
    return WindowBatch(
        batch.past[rows], batch.past_mask[rows], batch.neighbours[rows], batch.neighbours_mask[rows]
    )


def test_frame_is_the_current_frame_alone() -> None:
    batch = windows()
    expected = [v / np.linalg.norm(v) for v in batch.neighbours[:, -1]]
    np.testing.assert_allclose(FRAME.embed_windows(batch).embedding, expected, 1e-5)


def test_average_is_the_mean_of_the_neighbours_that_are_there() -> None:
    batch = windows()
    rows = []
    for frames, mask in zip(batch.neighbours, batch.neighbours_mask, strict=True):
        there = [f / np.linalg.norm(f) for f, kept in zip(frames, mask, strict=True) if kept]
        mean = np.mean(there, axis=0)
        rows.append(mean / np.linalg.norm(mean))
    np.testing.assert_allclose(AVERAGE.embed_windows(batch).embedding, rows, rtol=1e-4, atol=1e-6)


def test_cluster_averages_only_frames_like_the_current_one() -> None:
    random = np.random.default_rng(3)
    kinds = np.eye(WIDTH, dtype=np.float32)[:3]
    features = np.repeat(kinds, [12, 12, 8], axis=0)[None] + random.normal(
        scale=0.02, size=(1, 32, WIDTH)
    ).astype(np.float32)
    features[0, 3] = kinds[2]  # one early frame of the current kind
    mask = np.ones((1, 32), np.bool_)
    batch = WindowBatch(features[:, :PAST], mask[:, :PAST], features[:, PAST:], mask[:, PAST:])
    found = CLUSTER.embed_windows(batch).embedding[0]
    rows = [3, *range(24, 32)]
    assert found @ unit(features[0, rows]).mean(axis=0) > 0.99
    assert found @ kinds[2] > 0.99


@ALL
def test_a_batch_equals_its_windows_one_by_one(scorer: TrainingFreeScorer) -> None:
    batch = windows(count=9)
    together = scorer.embed_windows(batch).embedding
    for row in range(9):
        alone = scorer.embed_windows(take(batch, slice(row, row + 1))).embedding[0]
        np.testing.assert_allclose(together[row], alone, atol=1e-6)


@ALL
def test_masked_slots_do_not_matter(scorer: TrainingFreeScorer) -> None:
    batch = windows()
    noise = np.random.default_rng(9).normal(size=batch.past.shape).astype(np.float32)
    past = np.where(batch.past_mask[..., None], batch.past, noise)
    noisy = WindowBatch(past, batch.past_mask, batch.neighbours, batch.neighbours_mask)
    np.testing.assert_allclose(
        scorer.embed_windows(noisy).embedding, scorer.embed_windows(batch).embedding, atol=1e-6
    )


@ALL
def test_embeddings_are_unit_vectors_even_of_one_frame(scorer: TrainingFreeScorer) -> None:
    embedding = scorer.embed_windows(windows(keep=0.0)).embedding
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
