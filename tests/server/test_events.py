"""Start and end events: hysteresis, least duration, gaps, new words, the end."""

import numpy as np

from ovoad_server.engine.events import ActionEvent, EventDetector, EventRule

RULE = EventRule(enter=0.5, exit=0.25, min_duration_ms=500)


def follow(
    detector: EventDetector, probabilities: list[float], *, start_ms: int = 0, step_ms: int = 250
) -> list[ActionEvent]:
    """Feed one label's probabilities; return all events."""
    events = []
    for index, value in enumerate(probabilities):
        events += detector.update(start_ms + index * step_ms, np.array([value], np.float32))
    return events


def test_start_comes_once_the_action_has_lasted_and_is_back_dated() -> None:
    events = follow(EventDetector(RULE, ["run"]), [0.0, 0.5, 0.75, 0.625, 0.75])
    assert events == [ActionEvent("start", "run", 750, 0.625, 250)]


def test_end_comes_with_the_first_frame_below_exit() -> None:
    events = follow(EventDetector(RULE, ["run"]), [0.5, 0.5, 0.5, 0.25, 0.125, 0.0])
    assert events[1:] == [ActionEvent("end", "run", 1000, 0.125, 0)]


def test_probability_between_exit_and_enter_neither_starts_nor_ends() -> None:
    assert follow(EventDetector(RULE, ["run"]), [0.49] * 10) == []
    events = follow(EventDetector(RULE, ["run"]), [0.5, 0.3, 0.3, 0.3, 0.25])
    assert [event.kind for event in events] == ["start"]


def test_flicker_shorter_than_least_duration_stays_unreported() -> None:
    assert follow(EventDetector(RULE, ["run"]), [0.9, 0.9, 0.0] * 5) == []


def test_least_duration_of_zero_starts_at_once() -> None:
    detector = EventDetector(EventRule(0.5, 0.25, 0), ["run"])
    assert follow(detector, [0.5]) == [ActionEvent("start", "run", 0, 0.5, 0)]


def test_action_can_start_again_after_its_end() -> None:
    events = follow(EventDetector(EventRule(0.5, 0.25, 0), ["run"]), [0.9, 0.0, 0.9, 0.0])
    assert [(event.kind, event.start_ms) for event in events] == [
        ("start", 0),
        ("end", 0),
        ("start", 500),
        ("end", 500),
    ]


def test_labels_are_followed_apart() -> None:
    detector = EventDetector(EventRule(0.5, 0.25, 0), ["run", "walk"])
    assert [e.label for e in detector.update(0, np.array([0.9, 0.0], np.float32))] == ["run"]
    events = detector.update(250, np.array([0.0, 0.9], np.float32))
    assert [(e.kind, e.label) for e in events] == [("end", "run"), ("start", "walk")]


def test_gap_ends_the_action_at_the_last_frame_before_it() -> None:
    detector = EventDetector(RULE, ["run"])
    follow(detector, [0.5, 0.75, 0.625])
    assert follow(detector, [0.9], start_ms=2501) == [ActionEvent("end", "run", 500, 0.625, 0)]


def test_gap_of_two_seconds_is_still_borne() -> None:
    detector = EventDetector(RULE, ["run"])
    follow(detector, [0.5, 0.75, 0.625])
    assert follow(detector, [0.9], start_ms=2500) == []


def test_candidate_before_a_gap_does_not_count_towards_the_duration() -> None:
    detector = EventDetector(RULE, ["run"])
    events = follow(detector, [0.9, 0.9], step_ms=3000)
    assert events == []


def test_finish_ends_what_is_going_on_and_only_that() -> None:
    detector = EventDetector(RULE, ["run"])
    follow(detector, [0.9, 0.9])
    assert detector.finish() == []
    follow(detector, [0.5, 0.5, 0.75], start_ms=1000)
    assert detector.finish() == [ActionEvent("end", "run", 1500, 0.75, 1000)]
    assert detector.finish() == []


def test_label_that_stays_goes_on_through_a_change_of_words() -> None:
    detector = EventDetector(EventRule(0.5, 0.25, 0), ["run", "walk"])
    detector.update(0, np.array([0.9, 0.0], np.float32))
    assert detector.change_labels(["jump", "run"]) == []
    events = detector.update(250, np.array([0.0, 0.1], np.float32))
    assert [(e.kind, e.label, e.start_ms) for e in events] == [("end", "run", 0)]


def test_label_that_leaves_ends_at_the_last_frame_with_it() -> None:
    detector = EventDetector(EventRule(0.5, 0.25, 0), ["run"])
    follow(detector, [0.5, 0.75])
    assert detector.change_labels(["walk"]) == [ActionEvent("end", "run", 250, 0.75, 0)]
    assert detector.update(500, np.array([0.1], np.float32)) == []


def test_candidate_that_leaves_and_comes_back_starts_anew() -> None:
    detector = EventDetector(RULE, ["run"])
    follow(detector, [0.9, 0.9])
    assert detector.change_labels(["walk"]) == []
    assert detector.change_labels(["run"]) == []
    events = follow(detector, [0.9, 0.9, 0.9], start_ms=500)
    assert [(event.kind, event.start_ms) for event in events] == [("start", 500)]


def test_new_words_before_the_first_frame_bring_nothing() -> None:
    detector = EventDetector(RULE, ["run"])
    assert detector.change_labels(["walk", "jump"]) == []
    assert detector.finish() == []


def test_most_extreme_timestamps_do_no_harm() -> None:
    detector = EventDetector(RULE, ["run"])
    assert detector.update(-(2**63), np.array([0.9], np.float32)) == []
    assert detector.update(2**63 - 1, np.array([0.9], np.float32)) == []
    assert detector.finish() == []
