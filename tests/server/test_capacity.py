"""What batches cost, learned from their times, and how many frames and sessions that allows."""

import random

import pytest

from ovoad_server.engine.capacity import CostModel


def learned(fixed_ms: float, frame_ms: float, sizes: list[int]) -> CostModel:
    return CostModel.from_trial((size, fixed_ms + frame_ms * size) for size in sizes)


def test_without_a_batch_nothing_is_known() -> None:
    model = CostModel()
    assert not model.known
    assert model.batch_ms(4) == 0
    assert model.largest_batch(within_ms=100, at_most=16) == 16
    assert model.frames_per_s(4) == float("inf")


@pytest.mark.parametrize(("fixed_ms", "frame_ms"), [(5, 10), (0.5, 4), (40, 2), (0, 7), (9, 0)])
def test_cost_of_a_batch_is_learned_from_batches_of_many_sizes(
    fixed_ms: float, frame_ms: float
) -> None:
    order = random.Random(1)
    model = learned(fixed_ms, frame_ms, [order.randint(1, 16) for _ in range(200)])
    for size, tolerance in ((1, 0.2), (4, 0.15), (16, 0.1)):  # the ridge takes some of a for c
        assert model.batch_ms(size) == pytest.approx(fixed_ms + frame_ms * size, rel=tolerance)


def test_batches_of_one_size_tell_the_cost_of_that_size() -> None:
    model = learned(6, 4, [8] * 100)
    assert model.batch_ms(8) == pytest.approx(38, rel=0.01)


def test_three_batches_before_the_first_frame_are_enough_for_a_guess() -> None:
    model = learned(5, 10, [1, 4, 8])
    assert model.known
    assert model.batch_ms(8) == pytest.approx(85, rel=0.1)


def test_noise_is_averaged_out() -> None:
    order = random.Random(2)
    model = CostModel()
    for _ in range(300):
        size = order.randint(1, 8)
        model.learn(size, (5 + 10 * size) * order.uniform(0.8, 1.2))
    for size in (1, 8):
        assert model.batch_ms(size) == pytest.approx(5 + 10 * size, rel=0.15)


def test_one_hiccup_of_the_machine_hardly_counts() -> None:
    model = learned(5, 10, [1, 2, 4, 8] * 25)
    before_ms = model.batch_ms(4)
    model.learn(4, 10_000)
    assert model.batch_ms(4) < 1.1 * before_ms


@pytest.mark.parametrize("factor", [0.1, 0.5, 3, 10, 100])
def test_cost_that_changes_for_good_is_followed(factor: float) -> None:
    """Another program takes the cores, or gives them back."""
    sizes = [1, 2, 4, 8]
    model = learned(5, 10, sizes * 50)
    batches = 0
    while model.batch_ms(4) != pytest.approx(45 * factor, rel=0.2):
        size = sizes[batches % 4]
        model.learn(size, (5 + 10 * size) * factor)
        batches += 1
        assert batches < 400, f"found {model.batch_ms(4):.0f} ms, expected {45 * factor:.0f}"


@pytest.mark.parametrize(("within_ms", "batch"), [(95, 9), (55, 5), (15, 1), (3, 1), (0, 1)])
def test_largest_batch_ends_in_time_and_holds_at_least_one(within_ms: float, batch: int) -> None:
    model = learned(5, 10, [1, 2, 4, 8, 16] * 100)
    assert model.largest_batch(within_ms=within_ms + 2, at_most=16) == batch
    assert model.largest_batch(within_ms=1e9, at_most=16) == 16


def test_largest_batches_make_the_most_frames() -> None:
    model = learned(20, 10, [1, 2, 4, 8, 16] * 100)
    rates = [model.frames_per_s(size) for size in (1, 2, 4, 8, 16)]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(1000 / 30, rel=0.1)
    assert rates[-1] == pytest.approx(16_000 / 180, rel=0.1)


@pytest.mark.parametrize("ms", [0.0, 1e-9])
def test_batches_that_take_no_time_break_nothing(ms: float) -> None:
    model = CostModel.from_trial([(1, ms)] * 20)
    assert model.batch_ms(1) == pytest.approx(0, abs=1e-6)
    assert model.largest_batch(within_ms=10, at_most=16) == 16
    assert model.frames_per_s(16) > 1e6


def test_estimates_stay_sane_over_a_long_time() -> None:
    order = random.Random(3)
    model = CostModel()
    for _ in range(20_000):
        size = order.randint(1, 16)
        model.learn(size, (2 + 3 * size) * order.choice([1, 1, 1, 1, 1.1, 20]))
        assert 0 <= model.batch_ms(1) < 1000
    model = learned(2, 3, [1, 2, 4, 8, 16] * 4000)
    assert model.batch_ms(16) == pytest.approx(50, rel=0.05)


@pytest.mark.parametrize("lanes", [2, 4, 8])
@pytest.mark.parametrize("together", [True, False])
def test_frames_side_by_side_are_not_taken_for_faster_than_they_are(
    lanes: int, together: bool
) -> None:
    """Frames of 30 ms, `lanes` at once; those that begin together are seen to end together."""
    model = CostModel.from_trial([(1, 30.0), (4, 30.0 * 4 / lanes)])
    for _ in range(200):
        for lane in range(lanes):
            last_ms = 30.0 if lane == 0 else 0.0
            model.learn(1, last_ms if together else 30.0 / lanes, among=lanes)
    assert 0.6 * lanes / 0.030 <= model.frames_per_s(1) <= 1.1 * lanes / 0.030
