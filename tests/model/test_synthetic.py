"""The made-up world is what it says, and its benchmark runs."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ovoad_model.training.synthetic import World, WorldSettings, truth_of
from ovoad_model.training.synthetic_trial import (
    mean_average_precision,
    training_free,
    windows_of,
)

SMALL = WorldSettings(seen_classes=20, unseen_classes=5, training_videos=4, test_videos=4)
CALM = replace(SMALL, noise=0.0, drift=0.0, scene=0.0, distractor_share=0.0, wording_spread=0.0)
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "synthetic_world.py"


def test_unseen_classes_come_up_in_no_training_caption() -> None:
    world = World(SMALL)
    said = {c.text.split(",")[0] for video in world.training_videos() for c in video.captions}
    shown = {c.text.split(",")[0] for video in world.test_videos() for c in video.captions}
    assert len(world.unseen) == 5
    assert not said & set(world.unseen)
    assert shown <= set(world.unseen)


def test_captions_say_what_the_frames_show() -> None:
    video = World(SMALL).training_videos()[0]
    shown = np.full(len(video.features), -1)
    for caption in video.captions:
        number = int(caption.text.removeprefix("action ").split(",")[0])
        shown[caption.start_ms // 250 : caption.end_ms // 250] = number
    assert np.array_equal(shown, video.classes)


def test_the_projection_undoes_the_rotation() -> None:
    world = World(CALM)
    video = world.test_videos()[0]
    names = [f"action {number:04d}" for number in video.classes[video.classes >= 0]]
    found = world.project(video.features[video.classes >= 0])
    np.testing.assert_allclose(found, world.encode_text(names), atol=1e-5)


def test_a_world_follows_from_its_seed() -> None:
    first, again = World(SMALL), World(SMALL)
    assert np.array_equal(first.test_videos()[1].features, again.test_videos()[1].features)
    other = World(replace(SMALL, seed=1))
    assert other.fingerprint != first.fingerprint
    assert not np.array_equal(first.test_videos()[1].features, other.test_videos()[1].features)


def test_without_nuisances_the_current_frame_tells_all_and_with_them_it_does_not() -> None:
    for settings, low, high in ((CALM, 99.9, 100), (replace(SMALL, noise=3), 5, 60)):
        world = World(settings)
        videos = world.test_videos()
        frame = training_free(world)[0]
        assert low <= mean_average_precision(frame, world, windows_of(videos), videos) <= high


def test_windows_end_at_each_frame_and_know_no_later_one() -> None:
    videos = World(SMALL).test_videos()[:2]
    windows = windows_of(videos)
    length = len(videos[0].features)
    assert np.array_equal(windows.neighbours[length:, -1], videos[1].features)
    assert np.array_equal(windows.past[length + 31], videos[1].features[:24])
    assert windows.past_mask[length].sum() + windows.neighbours_mask[length].sum() == 1
    assert windows.past_mask[length + 31].all()


def test_truth_is_by_label() -> None:
    world = World(SMALL)
    videos = world.test_videos()
    truth = truth_of(videos, world.unseen)
    classes = np.concatenate([video.classes for video in videos])
    assert np.array_equal(truth.any(axis=1), classes >= 0)


@pytest.mark.slow
def test_the_benchmark_prints_a_table_and_writes_json_and_a_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(BENCHMARK), run_name="synthetic_world")["main"]
    assert main(["--quick", "--workers", "1", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "synthetic_world.json").read_text())
    assert set(report["rows"]) >= {"frame", "average", "cluster", "all", "all, without P_AC"}
    assert (tmp_path / "synthetic_world.png").stat().st_size > 1000
    assert "ovoad (all) - " in capsys.readouterr().out


def test_text_timelines_are_unit_vectors_near_their_captions() -> None:
    timelines = runpy.run_path(str(BENCHMARK.with_name("text_timelines.py")), run_name="text")
    world = World(CALM)
    actions = ["action 0001", "action 0002"]
    made = timelines["Timelines"](world, actions, noise=0.0, shared_noise=0.0, seed=0)
    features, captions = made.make("text_0000")
    assert features.shape == (240, 32)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    for caption in captions:
        (text,) = world.encode_text([caption.text])
        rows = features[caption.start_ms // 250 : caption.end_ms // 250]
        np.testing.assert_allclose(rows, np.tile(text, (len(rows), 1)), atol=1e-5)


def test_actions_that_share_words_with_a_label_are_held_out(tmp_path: Path) -> None:
    timelines = runpy.run_path(str(BENCHMARK.with_name("text_timelines.py")), run_name="text")
    (tmp_path / "labels.json").write_text('{"a.mp4": {"label": "playing the bass guitar"}}')
    every, kept = (timelines["read_actions"](p) for p in (None, tmp_path / "labels.json"))
    assert set(every) - set(kept) == {"playing bass guitar"}
