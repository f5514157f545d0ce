"""Which windows training cuts, and which texts belong to them."""

import numpy as np
import pytest

from ovoad_model.arrays import Float32Array
from ovoad_model.training.captions import Caption
from ovoad_model.training.dataset import WindowDataset
from ovoad_model.training.windows import (
    NoWindowsError,
    Timeline,
    WindowSampler,
    WindowTexts,
    build_timeline,
    build_timelines,
    texts_of_window,
)


def timeline(*captions: tuple[int, int, str], length: int = 100) -> Timeline:
    """Build a timeline from (first frame, frame after the last, text)."""
    return build_timeline(
        "v", length, [Caption("v", start * 250, stop * 250, text) for start, stop, text in captions]
    )


def texts(line: Timeline, end: int, *, made: tuple[str, ...] = (), extra: int = 2) -> WindowTexts:
    random = np.random.default_rng(0)
    phrases = {line.texts[0]: made}
    return texts_of_window(line, end, extra_count=extra, phrases=phrases, random=random)


def test_a_frame_lies_in_a_caption_from_its_start_to_before_its_end() -> None:
    line = build_timeline("v", 8, [Caption("v", 251, 1000, "x"), Caption("v", 0, 250, "y")])
    assert line.cover(0, 8).tolist() == [
        [False, False, True, True, False, False, False, False],
        [True, False, False, False, False, False, False, False],
    ]


def test_a_caption_between_two_frames_covers_the_one_before() -> None:
    line = build_timeline("v", 8, [Caption("v", 510, 600, "x"), Caption("v", 10, 20, "y")])
    assert line.starts.tolist() == [2, 0]
    assert line.stops.tolist() == [3, 1]


def test_a_caption_past_the_end_stops_with_the_video() -> None:
    line = build_timeline("v", 8, [Caption("v", 1500, 2900, "x"), Caption("v", 1990, 2900, "y")])
    assert line.starts.tolist() == [6, 7]
    assert line.stops.tolist() == [8, 8]


def test_timelines_are_grouped_by_video_in_order_of_names() -> None:
    captions = [Caption("b", 0, 500, "1"), Caption("a", 0, 500, "2"), Caption("b", 500, 900, "3")]
    lines = build_timelines(captions, {"a": 4, "b": 5})
    assert [(line.video, line.length, line.texts) for line in lines] == [
        ("a", 4, ("2",)),
        ("b", 5, ("1", "3")),
    ]


def test_the_caption_with_most_frames_speaks_for_the_window() -> None:
    found = texts(timeline((10, 15, "short"), (15, 40, "long")), end=19)
    assert found.whole == "long"
    assert found.extra == ("short",)
    assert found.current == "long"
    assert found.inside.tolist() == [True] * 8


def test_the_current_text_is_of_the_last_frame() -> None:
    line = timeline((10, 18, "before"), (19, 40, "now"))
    assert texts(line, end=20).whole == "before"
    assert texts(line, end=20).current == "now"
    assert texts(line, end=18).current == "background"
    assert texts(line, end=18).inside.tolist() == [True] * 7 + [False]


def test_a_window_without_caption_says_background() -> None:
    found = texts(timeline((10, 12, "x")), end=19, made=("phrase",))
    assert (found.whole, found.current, found.extra) == ("background", "background", ())
    assert not found.inside.any()


def test_extra_texts_are_other_captions_then_phrases() -> None:
    line = timeline((10, 30, "a"), (10, 20, "b"), (10, 15, "c"), (10, 30, "a"))
    assert texts(line, end=20, made=("p", "q")).extra == ("b", "c")
    assert texts(line, end=24, made=("p", "q")).extra[0] == "b"
    assert texts(line, end=24, made=("p", "q")).extra[1] in ("p", "q")
    assert sorted(texts(line, end=29, made=("p", "q")).extra) == ["p", "q"]
    assert texts(line, end=29, made=("p",)).extra == ("p",)
    assert texts(line, end=20, made=("p",), extra=0).extra == ()


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_the_share_of_background_is_the_setting(share: float) -> None:
    line = timeline((20, 40, "x"), (60, 61, "y"), length=120)
    draws = WindowSampler([line], share).draw(400, np.random.default_rng(0))
    empty = [not texts(line, int(end)).inside.any() for end in draws.ends]
    assert np.mean(empty) == share


def test_windows_lie_inside_their_video_and_reach_past_an_action() -> None:
    line = timeline((20, 40, "x"), (95, 100, "y"))
    draws = WindowSampler([line], 0.0).draw(500, np.random.default_rng(0))
    assert set(draws.ends.tolist()) == set(range(20, 44)) | set(range(95, 100))


def test_a_world_without_background_has_none_to_draw() -> None:
    sampler = WindowSampler([timeline((0, 100, "x"))], 0.5)
    assert sampler.background_share == 0
    assert len(sampler.draw(10, np.random.default_rng(0))) == 10


def test_no_captions_and_a_bad_share_are_refused() -> None:
    with pytest.raises(NoWindowsError, match="found no captions, expected at least one"):
        WindowSampler([], 0.1)
    with pytest.raises(ValueError, match="found share 1"):
        WindowSampler([timeline((0, 9, "x"))], 1)


def rows_of(video: str, start: int, stop: int) -> Float32Array:
    """Features that tell their frame: [stop - start, 3]."""
    return np.repeat(np.arange(start, stop, dtype=np.float32)[:, None] + 1, 3, axis=1)


def dataset(*lines: Timeline, seed: int = 0) -> WindowDataset:
    return WindowDataset(
        lines,
        rows_of,
        feature_width=3,
        phrases={"x": ("phrase of x",)},
        windows_per_epoch=40,
        seed=seed,
    )


def test_a_batch_holds_the_frames_up_to_the_current_one() -> None:
    data = dataset(timeline((3, 60, "x")))
    draws = data.draw(0)
    batch = data.batch(draws, 0, range(40))
    assert batch.past.shape == (40, 24, 3)
    assert batch.neighbours.shape == (40, 8, 3)
    for row in range(40):
        end = int(draws.ends[row])
        frames = np.concatenate([batch.past[row, :, 0], batch.neighbours[row, :, 0]])
        mask = np.concatenate([batch.past_mask[row], batch.neighbours_mask[row]])
        assert frames.tolist() == [max(0, frame + 1) for frame in range(end - 31, end + 1)]
        assert mask.tolist() == [frame >= 0 for frame in range(end - 31, end + 1)]
        assert not (batch.inside[row] & ~batch.neighbours_mask[row]).any()


def test_texts_are_rows_of_the_list_of_all_texts() -> None:
    data = dataset(timeline((3, 60, "x"), (30, 40, "y")))
    assert data.texts == ("background", "x", "y", "phrase of x")
    batch = data.batch(data.draw(0), 0, range(40))
    said = {data.texts[row] for row in batch.whole}
    extra = {data.texts[row] for row in batch.extra[batch.extra_mask]}
    assert said <= {"background", "x", "y"}
    assert "phrase of x" in extra
    assert not batch.extra_mask[batch.whole == 0].any()


def test_an_epoch_follows_from_the_seed_alone() -> None:
    line = timeline((3, 60, "x"), (30, 40, "y"))
    first, again, other = dataset(line), dataset(line), dataset(line, seed=1)
    assert first.draw(3).ends.tolist() == again.draw(3).ends.tolist()
    assert first.draw(3).ends.tolist() != first.draw(4).ends.tolist()
    assert first.draw(3).ends.tolist() != other.draw(3).ends.tolist()


def test_shares_of_a_batch_join_to_the_batch() -> None:
    data = dataset(timeline((3, 60, "x"), (30, 40, "y")))
    draws = data.draw(1)
    whole = data.batch(draws, 1, range(8))
    parts = [data.batch(draws, 1, range(4)), data.batch(draws, 1, range(4, 8))]
    assert np.array_equal(whole.extra, np.concatenate([part.extra for part in parts]))
    assert np.array_equal(whole.neighbours, np.concatenate([part.neighbours for part in parts]))
