"""The shared softmax: labels and background."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovoad_model.probabilities import label_probabilities

NO_FLOOR = float("-inf")
similarity = st.floats(-1, 1, width=32)


def share(
    labels: list[float], concepts: list[float], *, floor: float = NO_FLOOR
) -> tuple[list[float], float]:
    probabilities, background = label_probabilities(
        np.array(labels, np.float32),
        np.array(concepts, np.float32),
        temperature=0.1,
        floor=floor,
    )
    return probabilities.tolist(), background


@given(st.lists(similarity, min_size=1, max_size=50), st.lists(similarity, min_size=1, max_size=20))
def test_labels_and_background_sum_to_one(labels: list[float], concepts: list[float]) -> None:
    probabilities, background = share(labels, concepts, floor=0.1)
    assert sum(probabilities) + background == pytest.approx(1, abs=1e-5)
    assert min(probabilities) >= 0
    assert background >= 0


def test_one_label_alone_is_not_certain() -> None:
    probabilities, background = share([0.3], [0.3])
    assert probabilities == pytest.approx([0.5])
    assert background == pytest.approx(0.5)


def test_two_synonyms_share() -> None:
    probabilities, _ = share([0.3, 0.3], [-1.0])
    assert probabilities == pytest.approx([0.5, 0.5], abs=1e-3)


def test_saying_a_concept_twice_changes_nothing() -> None:
    once, twice = share([0.2], [0.1, 0.3]), share([0.2], [0.1, 0.3, 0.1, 0.3])
    assert once[0] == pytest.approx(twice[0])


def test_a_label_must_clear_the_floor() -> None:
    below = share([0.0], [-1.0], floor=0.1)
    above = share([0.4], [-1.0], floor=0.1)
    assert below[1] > 0.5 > above[1]


def test_tiny_temperatures_do_not_overflow() -> None:
    probabilities, background = label_probabilities(
        np.array([1, -1], np.float32), np.array([-1], np.float32), temperature=1e-4, floor=NO_FLOOR
    )
    assert probabilities.tolist() == [1, 0]
    assert background == 0
