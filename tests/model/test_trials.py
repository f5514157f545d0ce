"""Races between ways, with a clock that the test moves; and what a trial's figures choose."""

import random
from collections.abc import Callable

import pytest

from ovoad_model.embedded.trial import choose
from ovoad_model.open_clip_encoder.notes import Trial
from ovoad_model.trials import HOPELESS, LEAST_ROUNDS, MOST_ROUNDS, machine, race


class Clock:
    """Seconds that pass only when a way runs."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.runs: list[str] = []

    def __call__(self) -> float:
        return self.now_s

    def way(self, name: str, time_s: Callable[[], float]) -> Callable[[], None]:
        """A way that takes this long."""

        def run() -> None:
            self.runs.append(name)
            self.now_s += time_s()

        return run


@pytest.mark.parametrize("seed", range(20))
def test_noise_that_only_adds_does_not_hide_the_fastest(seed: int) -> None:
    """Ways 6 % apart, a third of all runs slowed by up to three times."""
    noise, clock = random.Random(seed), Clock()
    true_s = {"a": 0.0106, "b": 0.0100, "c": 0.0106, "d": 0.0112}

    def slowed(time_s: float) -> float:
        return time_s * (noise.uniform(1, 3) if noise.random() < 1 / 3 else 1)

    ways = {n: clock.way(n, lambda t=s: slowed(t)) for n, s in true_s.items()}  # type: ignore[misc]
    found = race(ways, budget_s=1.0, clock=clock)
    assert min(found, key=found.__getitem__) == "b"
    assert found["b"] == pytest.approx(10.0)


def test_a_disturbance_of_whole_rounds_hits_all_alike() -> None:
    clock = Clock()

    def busy_at_first(time_s: float) -> Callable[[], float]:
        return lambda: time_s * (4 if clock.now_s < 0.5 else 1)

    ways = {"slow": clock.way("slow", busy_at_first(0.012))}
    ways["fast"] = clock.way("fast", busy_at_first(0.010))
    found = race(ways, budget_s=1.5, clock=clock)
    assert found == pytest.approx({"slow": 12.0, "fast": 10.0})


def test_ways_far_behind_leave_and_the_budget_ends_it() -> None:
    clock = Clock()
    ways = {"best": clock.way("best", lambda: 0.1), "far": clock.way("far", lambda: 0.2)}
    race(ways, budget_s=2.0, clock=clock)
    assert clock.runs.count("far") == 3  # one that does not count and two rounds
    assert clock.now_s == pytest.approx(0.3 + 2.0, abs=0.11)
    assert HOPELESS < 2


def test_slow_ways_get_the_least_of_rounds_and_quick_ones_no_more_than_the_most() -> None:
    clock = Clock()
    race({"slow": clock.way("slow", lambda: 9.0)}, budget_s=1.0, clock=clock)
    assert clock.runs.count("slow") == 1 + LEAST_ROUNDS
    race({"quick": clock.way("quick", lambda: 1e-6)}, budget_s=1.0, clock=clock)
    assert clock.runs.count("quick") == 1 + MOST_ROUNDS


def test_turns_are_taken_in_another_order_every_round() -> None:
    clock = Clock()
    race({n: clock.way(n, lambda: 1.0) for n in "abc"}, budget_s=0.0, clock=clock)
    assert "".join(clock.runs) == "abc" + "abc" + "bca" + "cab" + "abc"


def test_a_trial_chooses_what_is_nowhere_far_behind() -> None:
    assert Trial("x", {"a": 10.0, "b": 11.0}).fastest == "a"
    assert Trial("x", {"a": 10.0, "b": 10.2, "c": 30.0}, {"a": 9.0, "b": 6.0}).fastest == "b"
    assert Trial("x", {"a": 10.0, "b": 10.2}, {"a": 6.1, "b": 6.0}).fastest == "a"


def test_embedded_takes_openvino_where_it_is_clearly_faster() -> None:
    def chosen(single: float, batch: float) -> str:
        times = {"onnxruntime": 10.0, "openvino": single}
        return choose(Trial("embedded", times, {"onnxruntime": 8.0, "openvino": batch}))

    assert chosen(10.0, 8.0) == "onnxruntime"
    assert chosen(9.9, 7.9) == "onnxruntime"
    assert chosen(9.0, 7.0) == "openvino"
    assert chosen(9.0, 16.0) == "onnxruntime"


def test_machines_differ_by_versions_and_facts() -> None:
    here = machine(("numpy", "no-such-package"), "2 threads")
    assert "no-such-package none" in here
    assert "2 threads" in here
    assert here == machine(("numpy", "no-such-package"), "2 threads")
    assert here != machine(("numpy",), "1 thread")
