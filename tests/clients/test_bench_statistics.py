"""Percentiles, efficiency and slope."""

import math

import pytest

from ovoad_client.bench.statistics import Percentiles, efficiency, percentile, percentiles, slope


def test_percentiles_lie_between_the_values_around_them() -> None:
    ordered = [float(value) for value in range(101)]
    assert percentiles(reversed(ordered)) == Percentiles(50.0, 95.0, 99.0)
    assert percentile([10.0, 20.0], 0.25) == 12.5


def test_one_value_is_every_percentile_and_none_gives_nan() -> None:
    assert percentiles([7.0]) == Percentiles(7.0, 7.0, 7.0)
    assert math.isnan(percentiles([]).p99)


def test_efficiency_is_over_the_mean_of_the_bare_rates() -> None:
    assert efficiency(54.0, (50.0, 70.0)) == pytest.approx(0.9)
    assert math.isnan(efficiency(54.0, ()))
    assert math.isnan(efficiency(54.0, (0.0,)))


def test_slope_is_that_of_the_least_squares_line() -> None:
    assert slope([0, 1, 2, 3], [5.0, 7.0, 9.0, 11.0]) == pytest.approx(2.0)
    assert slope([0, 1, 2], [1.0, 4.0, 1.0]) == pytest.approx(0.0)
    assert math.isnan(slope([1.0], [1.0]))
    assert math.isnan(slope([2.0, 2.0], [1.0, 3.0]))
