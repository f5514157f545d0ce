"""The encoder's small parts: crop, joint space, words that it cannot read."""

import numpy as np
import pytest

from ovoad_model.embedded.joint_space import DEVIATION, JointSpace
from ovoad_model.embedded.language import english_warning
from ovoad_model.embedded.preprocess import centre_square, square_batch


def tiny_space() -> JointSpace:
    """Three classes, four phrases along the axes; the last class has two phrases."""
    return JointSpace(
        phrases=np.eye(4, dtype=np.float32),
        places=np.array([0, 1, 2, 3]),
        first_place=np.array([0, 1, 2]),
        centre=np.full(3, 0.2, np.float32),
        basis=np.eye(3, dtype=np.float32),
        cohort_mean=np.array([0.1, 0, 0], np.float32),
        cohort_root=np.diag(np.array([0.05, 0.1, 0.2], np.float32)),
        phrase_sharpness=20.0,
        class_sharpness=10.0,
    )


def test_the_centre_of_a_wide_frame_is_kept() -> None:
    frame = np.zeros((10, 30, 3), np.uint8)
    frame[:, 10:20] = 200
    assert centre_square(frame).shape == (10, 10, 3)
    assert (square_batch([frame], size=4) == 200).all()


def test_shrinking_takes_the_mean_of_the_area() -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 200).astype(np.uint8)
    small = square_batch([np.repeat(board[..., None], 3, axis=2)], size=16)
    assert (small == 100).all()


def test_frames_that_are_views_work() -> None:
    frame = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    flipped = frame[:, ::-1]
    found = square_batch([flipped], size=8)
    np.testing.assert_array_equal(found, square_batch([flipped.copy()], size=8))


def test_a_sentence_spreads_over_the_classes_that_it_fits() -> None:
    spread = tiny_space().distributions(np.eye(4, dtype=np.float32))
    np.testing.assert_allclose(spread.sum(axis=1), 1, atol=1e-6)
    assert spread.argmax(axis=1).tolist() == [0, 1, 2, 2]
    assert spread[0, 0] > spread[2, 2]  # one of two phrases fits less than one of one


def test_similarity_is_highest_where_frame_and_sentence_share_a_class() -> None:
    space = tiny_space()
    frames = space.place_frames(10 * np.eye(3, dtype=np.float32))
    sentences = space.place_sentences(np.eye(4, dtype=np.float32))
    assert (sentences @ frames.T).argmax(axis=1).tolist() == [0, 1, 2, 2]
    for vectors in (frames, sentences):
        assert vectors.shape[1] == space.width == 6
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_similarity_is_in_deviations_above_the_cohort() -> None:
    space = tiny_space()
    logits = np.array([[0.3, 0.1, 0.0]], np.float32)
    frame = np.exp(logits[0] / 2) / np.linalg.norm(np.exp(logits[0] / 2))
    words = space.sentence_coordinates(np.eye(4, dtype=np.float32))
    spread = np.linalg.norm(frame * np.array([0.05, 0.1, 0.2]))
    expected = (words @ frame - 0.1 * frame[0]) / spread
    found = space.place_sentences(np.eye(4, dtype=np.float32)) @ space.place_frames(logits)[0]
    np.testing.assert_allclose(found / DEVIATION, expected, rtol=1e-4)


def test_extreme_logits_stay_finite() -> None:
    logits = np.array([[1e4, -1e4, 0], [0, 0, 0]], np.float32)
    assert np.isfinite(tiny_space().place_frames(logits)).all()


@pytest.mark.parametrize("label", ["骑自行车", "ركوب الدراجة", "езда на велосипеде", "자전거 타기"])
def test_words_in_other_scripts_are_warned_of(label: str) -> None:
    assert english_warning(label) == (
        f"label {label!r} is not in a language that encoder embedded speaks (en)"
    )


@pytest.mark.parametrize("label", ["123", "🚲", "...", ""])
def test_labels_without_letters_are_warned_of(label: str) -> None:
    warning = english_warning(label)
    assert warning is not None
    assert "has no letters" in warning


@pytest.mark.parametrize("label", ["riding a bicycle", "doing a crêpe flip", "taijiquan (太极拳)"])
def test_latin_words_are_not_warned_of(label: str) -> None:
    assert english_warning(label) is None
