"""The window: its grid, its masks, its honesty about gaps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovoad_model.window import GRID_MS, NEIGHBOURS, PAST, SLOTS, Window, WindowView, stack_views


def fill(timestamps_ms: list[int]) -> Window:
    """A window whose features are [timestamp, 1]."""
    window = Window(2)
    for timestamp_ms in timestamps_ms:
        window.push(timestamp_ms, np.array([timestamp_ms, 1], np.float32))
    return window


def shown(view: WindowView) -> list[int | None]:
    """The timestamps that a view shows, oldest first, None for an empty slot."""
    pairs = zip(view.features[:, 0], view.mask, strict=True)
    return [int(feature) if there else None for feature, there in pairs]


def test_one_frame_is_the_last_neighbour() -> None:
    view = fill([5_000]).view()
    assert shown(view) == [None] * (SLOTS - 1) + [5_000]
    assert (view.state.frames, view.state.span_ms, view.state.gaps) == (1, 0, 0)
    assert view.state.warming_up


def test_a_steady_4_fps_stream_fills_every_slot_and_then_slides() -> None:
    times = [1_000 + GRID_MS * step for step in range(40)]
    view = fill(times).view()
    assert shown(view) == times[-SLOTS:]
    assert (view.state.frames, view.state.gaps) == (SLOTS, 0)
    assert view.state.span_ms == (SLOTS - 1) * GRID_MS
    assert not view.state.warming_up


def test_the_newest_frame_is_always_the_last_neighbour() -> None:
    view = fill([0, 250, 500, 530, 560]).view()
    assert shown(view)[-3:] == [0, 250, 560]


def test_a_finished_cell_keeps_the_frame_nearest_to_its_grid_time() -> None:
    view = fill([0, 160, 240, 280, 500]).view()
    assert shown(view)[-3:] == [0, 240, 500]


def test_of_two_equally_near_frames_the_earlier_is_kept() -> None:
    view = fill([0, 240, 260, 500]).view()
    assert shown(view)[-3:] == [0, 240, 500]


def test_a_gap_stays_a_gap() -> None:
    view = fill([0, 250, 1_250, 1_500]).view()
    assert shown(view)[-7:] == [0, 250, None, None, None, 1_250, 1_500]
    assert (view.state.frames, view.state.gaps, view.state.span_ms) == (4, 3, 1_500)


def test_a_pause_longer_than_the_window_leaves_only_the_newest() -> None:
    view = fill([0, 250, 500, 60_000]).view()
    assert shown(view) == [None] * (SLOTS - 1) + [60_000]
    assert (view.state.frames, view.state.gaps) == (1, SLOTS - 1)
    assert not view.state.warming_up


def test_clear_starts_a_new_grid() -> None:
    window = fill([0, 250, 500])
    window.clear()
    window.push(600, np.array([600, 1], np.float32))
    assert shown(window.view()) == [None] * (SLOTS - 1) + [600]
    assert window.view().state.warming_up


def test_time_never_goes_back() -> None:
    window = fill([100])
    with pytest.raises(ValueError, match="found timestamp 100 ms, expected more than 100 ms"):
        window.push(100, np.zeros(2, np.float32))


@pytest.mark.parametrize("fps", [5, 10, 25, 30, 50, 60])
def test_any_rate_above_the_grid_fills_the_same_slots(fps: int) -> None:
    times = [round(1000 * step / fps) for step in range(fps * 10 + 1)]
    view = fill(times).view()
    assert (view.state.frames, view.state.gaps) == (SLOTS, 0)
    grid = [10_000 - GRID_MS * step for step in reversed(range(SLOTS))]
    nearest = [min(times, key=lambda time: abs(time - at)) for at in grid]
    assert shown(view) == nearest


def test_one_frame_a_second_leaves_three_of_four_slots_empty() -> None:
    view = fill([1000 * step for step in range(20)]).view()
    assert (view.state.frames, view.state.gaps) == (8, 24)
    assert shown(view)[-5:] == [18_000, None, None, None, 19_000]


@given(st.lists(st.integers(1, 3_000), min_size=2, max_size=80), st.data())
def test_the_future_never_changes_the_past(steps: list[int], data: st.DataObject) -> None:
    times = np.cumsum(steps).tolist()
    cut = data.draw(st.integers(1, len(times)))
    before = fill(times[:cut])
    seen = before.view()
    for timestamp_ms in times[cut:]:
        before.push(timestamp_ms, np.array([-1, -1], np.float32))
    assert shown(seen) == shown(fill(times[:cut]).view())


@given(st.lists(st.integers(1, 3_000), min_size=1, max_size=200))
def test_every_shown_frame_is_within_half_a_cell_of_its_grid_time(steps: list[int]) -> None:
    times = np.cumsum(steps).tolist()
    view = fill(times).view()
    current = -((GRID_MS // 2 - (times[-1] - times[0])) // GRID_MS)  # half a cell rounds down
    for slot, time in enumerate(shown(view)[:-1]):
        if time is not None:
            grid_ms = times[0] + (current - (SLOTS - 1 - slot)) * GRID_MS
            assert abs(time - grid_ms) <= GRID_MS // 2
    assert view.state.frames + view.state.gaps <= SLOTS
    assert np.all(view.features[~view.mask] == 0)


def test_extreme_timestamps_are_only_numbers() -> None:
    view = fill([-(2**63), 0, 2**63 - 1]).view()
    assert view.state.frames == 1


def test_stacked_views_split_into_past_and_neighbours() -> None:
    views = [fill([0]).view(), fill([GRID_MS * step for step in range(40)]).view()]
    batch = stack_views(views)
    assert batch.past.shape == (2, PAST, 2)
    assert batch.neighbours.shape == (2, NEIGHBOURS, 2)
    assert batch.neighbours_mask[:, -1].all()
    assert batch.past_mask.sum(axis=1).tolist() == [0, PAST]


@given(st.lists(st.integers(1, 3_000), min_size=1, max_size=100))
def test_view_after_a_frame_is_the_view_that_a_push_makes(steps: list[int]) -> None:
    *before, last = np.cumsum(steps).tolist()
    window = fill(before)
    feature = np.array([7, 9], np.float32)
    promised = window.view_after(last, feature)
    kept = shown(window.view()) if before else []
    window.push(last, feature)
    pushed = window.view()
    assert np.array_equal(promised.features, pushed.features)
    assert (promised.mask == pushed.mask).all()
    assert promised.state == pushed.state
    assert kept == (shown(fill(before).view()) if before else [])
