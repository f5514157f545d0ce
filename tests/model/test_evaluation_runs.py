"""Whole evaluations with an encoder that sees colours: frame by frame, all metrics, all reports."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ovoad_model.arrays import Float32Array, Frame, unit
from ovoad_model.detector import Detector
from ovoad_model.evaluation import commands
from ovoad_model.evaluation.clips import Clip
from ovoad_model.evaluation.field import DATASETS, FieldData, open_field
from ovoad_model.evaluation.judge import judge
from ovoad_model.evaluation.protocols import PAPER, STANDARD, check_labels, embed_words
from ovoad_model.evaluation.report import to_text
from ovoad_model.evaluation.runs import (
    Options,
    evaluate_clips,
    evaluate_field,
    evaluate_segments,
)
from ovoad_model.evaluation.scored import (
    ScoredVideo,
    ScoreKind,
    Truth,
    instances_of,
    keep_labels,
    score_video,
)
from ovoad_model.evaluation.segments import read_segments
from ovoad_model.evaluation.splits import split_classes
from ovoad_model.metrics import EvaluationError
from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.network import OVOAD
from ovoad_model.network.scorer import load_scorer
from ovoad_model.network.weights import WeightsInfo, save_weights
from ovoad_model.scorers import ScorerName, average_scorer, cluster_scorer, frame_scorer

WIDTH = 24


class ColourEncoder:
    """Sees how red, green and blue a frame is; knows words by the class letter or colour in them.

    Features and embeddings are the same 24 numbers: one axis for each of THUMOS'14's columns.
    """

    name = "colour"
    fingerprint = "c0104a"
    input_size = 8
    feature_width = WIDTH
    embedding_width = WIDTH
    temperature = 0.05
    languages = ("en",)
    templates = ("a person {}",)
    background = ("nothing",)
    background_floor = -1.0
    lanes = 1

    def encode_frames(self, frames: Sequence[Frame]) -> Float32Array:
        features = np.zeros((len(frames), WIDTH), np.float32)
        for row, frame in enumerate(frames):
            features[row, 1:4] = frame.mean(axis=(0, 1)) / 255
            features[row, 0] = 0.2
        return features

    def project(self, features: Float32Array) -> Float32Array:
        return unit(features)

    def encode_text(self, texts: Sequence[str]) -> Float32Array:
        embeddings = np.zeros((len(texts), WIDTH), np.float32)
        for row, text in enumerate(texts):
            word = text.split()[-1]
            colours = {"red": 1, "green": 2, "blue": 3, "nothing": 0, "background": 0}
            embeddings[row, colours.get(word, 1 + ord(word[0]) - ord("a"))] = 1
        return embeddings

    def warnings_for(self, text: str) -> str | None:
        return None


@pytest.fixture
def detector() -> Detector:
    encoder = ColourEncoder()
    return Detector(
        encoder, [frame_scorer(encoder), average_scorer(encoder), cluster_scorer(encoder)]
    )


def noisy_video(seed: int, labels: int = 3, length: int = 60) -> tuple[Truth, Float32Array]:
    """Draw targets in runs and features that lean towards them."""
    generator = np.random.default_rng(seed)
    targets = np.repeat(generator.random((length // 10, labels)) < 0.3, 10, axis=0)
    features = generator.random((length, WIDTH)).astype(np.float32) * 0.5
    features[:, 1 : labels + 1] += targets
    features[:, 0] += ~targets.any(axis=1)
    times = np.arange(length, dtype=np.int64) * 250
    counted = np.ones(length, np.bool_)
    return Truth(f"video{seed}", times, targets, counted, instances_of(targets)), features


@pytest.mark.parametrize("scorer", ["frame", "average", "cluster"])
@pytest.mark.parametrize("kind", ["probability", "similarity"])
def test_batched_scoring_equals_frame_by_frame(
    detector: Detector, scorer: ScorerName, kind: ScoreKind
) -> None:
    truth, features = noisy_video(0, length=300)
    words = embed_words(detector, ["a", "b", "c"], STANDARD, scorer=scorer)
    batched = score_video(detector, words, truth, features, kind=kind)
    window = detector.open_window()
    for index in range(0, 300):
        window.push(int(truth.timestamps_ms[index]), features[index])
        (scores,) = detector.score([window.view()], [words])
        expected = scores.probabilities if kind == "probability" else scores.similarities
        np.testing.assert_allclose(batched.ranked[index], expected, atol=1e-5)
        np.testing.assert_allclose(batched.probabilities[index], scores.probabilities, atol=1e-5)
        assert batched.background[index] == pytest.approx(scores.background, abs=1e-5)


def test_later_frames_leave_earlier_scores_as_they_were(detector: Detector) -> None:
    truth, features = noisy_video(1)
    words = embed_words(detector, ["a", "b", "c"], STANDARD, scorer="cluster")
    changed = features.copy()
    changed[40:] = 7.0
    before = score_video(detector, words, truth, features).probabilities
    after = score_video(detector, words, truth, changed).probabilities
    np.testing.assert_array_equal(before[:40], after[:40])
    assert not np.array_equal(before[40:], after[40:])


def test_instances_are_the_runs_of_each_label() -> None:
    targets = np.array([[1, 0], [1, 1], [0, 1], [1, 1]], np.bool_)
    found = [(i.label, i.first, i.end) for i in instances_of(targets)]
    assert found == [(0, 0, 2), (1, 1, 4), (0, 3, 4)]
    assert instances_of(np.zeros((3, 2), np.bool_)) == ()


def test_dropped_labels_leave_frames_without_a_label() -> None:
    targets = np.array([[1, 0], [1, 1], [0, 1]], np.bool_)
    times = np.arange(3, dtype=np.int64) * 250
    truth = Truth("v", times, targets, np.ones(3, np.bool_), instances_of(targets))
    kept = keep_labels(truth, [1])
    assert kept.targets.tolist() == [[False], [True], [True]]
    assert [(i.label, i.first, i.end) for i in kept.instances] == [(0, 1, 3)]


def perfect(truth: Truth) -> ScoredVideo:
    scores = truth.targets.astype(np.float32)
    return ScoredVideo(truth, scores, scores, 1 - scores.max(axis=1))


def test_perfect_scores_give_perfect_numbers() -> None:
    videos = [perfect(noisy_video(seed)[0]) for seed in range(3)]
    result = judge("perfect", ["a", "b", "c"], videos, calibrated=False)
    assert result.mean_average_precision == 1.0
    assert result.mean_calibrated_average_precision == 1.0
    assert result.stages == (1.0,) * 10
    assert result.top1 is not None
    assert result.background_rejection == 1.0
    assert result.latency.instances == sum(len(video.truth.instances) for video in videos)


def test_frames_that_do_not_count_are_in_no_number() -> None:
    truth, _ = noisy_video(0)
    scored = perfect(truth)
    wrong = scored.ranked.copy()
    wrong[:20] = 1 - wrong[:20]
    counted = np.arange(60) >= 20
    broken = ScoredVideo(
        Truth("v", truth.timestamps_ms, truth.targets, counted, truth.instances),
        wrong,
        wrong,
        scored.background,
    )
    result = judge("x", ["a", "b", "c"], [broken], calibrated=True)
    assert result.frames == 40
    assert result.mean_average_precision == 1.0


def test_order_of_videos_never_matters(detector: Detector) -> None:
    words = embed_words(detector, ["a", "b", "c"], STANDARD, scorer="average")
    videos = [score_video(detector, words, *noisy_video(seed)) for seed in range(4)]
    first = judge("average", ["a", "b", "c"], videos, calibrated=True)
    other = judge("average", ["a", "b", "c"], videos[::-1], calibrated=True)
    assert first.labels == other.labels
    assert first.mean_average_precision == other.mean_average_precision


def test_nothing_to_judge_is_refused() -> None:
    with pytest.raises(EvaluationError, match="found no videos, expected at least one"):
        judge("x", ["a"], [], calibrated=False)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "found no labels, expected at least one"),
        (["a", " "], "found the label ' ', expected some words"),
        (["Big dog", "big  dog"], "found the labels 'Big dog' and 'big  dog', expected each label"),
    ],
)
def test_useless_labels_are_refused(labels: list[str], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        check_labels(labels)


@pytest.fixture
def thumos(tmp_path: Path) -> FieldData:
    """Write a THUMOS'14 of three noisy videos with an ambiguous stretch each."""
    names = ["Background", *(f"{chr(65 + i)}" for i in range(20)), "Ambiguous"]
    videos = [f"video{seed}" for seed in range(3)]
    info = {"class_names": names, "train_session_set": videos, "test_session_set": videos}
    (tmp_path / "data_info.json").write_text(json.dumps(info))
    for folder in ("colours", "target_perframe"):
        (tmp_path / folder).mkdir()
    for seed, video in enumerate(videos):
        truth, features = noisy_video(seed, labels=20)
        targets = np.zeros((60, 22), np.float32)
        targets[:, 1:21] = truth.targets
        targets[50:, 21] = 1
        np.save(tmp_path / "colours" / f"{video}.npy", features)
        np.save(tmp_path / "target_perframe" / f"{video}.npy", targets)
    return open_field(DATASETS["thumos14"], tmp_path, "colours", feature_width=WIDTH)


def test_field_counts_all_frames_but_the_ambiguous(detector: Detector, thumos: FieldData) -> None:
    report = evaluate_field(detector, thumos, Options(("frame", "average"), STANDARD))
    assert (report.evaluation, report.metric, report.videos) == ("THUMOS'14", "mAP", 3)
    assert [result.scorer for result in report.results] == ["frame", "average"]
    assert {result.frames for result in report.results} == {150}
    assert report.templates == ("a person {}",)
    mean = report.results[0].mean_average_precision
    assert mean is not None
    assert mean > 0.5


def test_paper_protocol_prompts_background_as_a_class(
    detector: Detector, thumos: FieldData
) -> None:
    report = evaluate_field(detector, thumos, Options(("average",), PAPER))
    assert (report.protocol, report.score) == ("paper", "similarity")
    assert report.templates == ("a photo of action {}",)
    assert report.background == ("a photo of action background",)
    assert "background" not in report.labels


def test_trained_weights_are_judged_beside_the_training_free(
    detector: Detector, thumos: FieldData, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = NetworkConfig(
        feature_width=WIDTH,
        text_width=WIDTH,
        width=16,
        groups=3,
        heads=2,
        current_width=8,
        joint_width=8,
        head_hidden=16,
        dntr_layers=1,
        cluster_layers_before=1,
        cluster_layers_after=1,
    )
    info = WeightsInfo(config, ColourEncoder.name, ColourEncoder.fingerprint, trained_steps=1)
    save_weights(tmp_path / "weights", OVOAD(config), info)
    encoder = detector.encoder
    both = Detector(encoder, [load_scorer(tmp_path / "weights", encoder), frame_scorer(encoder)])
    report = evaluate_field(both, thumos, Options(("ovoad", "frame"), PAPER))
    assert [result.scorer for result in report.results] == ["ovoad", "frame"]
    ovoad, frame = report.results
    assert ovoad.frames == frame.frames == 150
    assert ovoad.mean_average_precision != frame.mean_average_precision


def test_split_judges_its_part_alone(detector: Detector, thumos: FieldData) -> None:
    split = split_classes(thumos.class_names, "75/25", seed=4)
    options = Options(("average",), STANDARD)
    novel = evaluate_field(detector, thumos, options, split=split)
    base = evaluate_field(detector, thumos, options, split=split, part="base")
    assert set(novel.labels) == {name.lower() for name in split.novel}
    assert set(base.labels) == {name.lower() for name in split.base}
    assert (novel.split, novel.part, novel.seed) == ("75/25", "novel", 4)
    assert novel.results[0].frames == base.results[0].frames == 150
    assert "split 75/25, novel classes, seed 4" in to_text(novel)


def test_unknown_class_is_refused(detector: Detector, thumos: FieldData) -> None:
    with pytest.raises(EvaluationError, match="found the unknown class 'Z', expected one of A, B"):
        evaluate_field(detector, thumos, Options(("frame",), STANDARD), classes=["A", "Z"])


def write_video(path: Path, *colours: tuple[int, int, int]) -> None:
    """Write one second of each RGB colour at 8 fps."""
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), fourcc, 8.0, (32, 32))
    for colour in colours:
        frame = np.full((32, 32, 3), colour[::-1], np.uint8)
        for _ in range(8):
            writer.write(frame)
    writer.release()


RED, GREEN, BLUE, BLACK = (230, 0, 0), (0, 230, 0), (0, 0, 230), (5, 5, 5)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Write a folder of four clips: three colours and one of nothing."""
    folder = tmp_path / "clips"
    folder.mkdir()
    entries: dict[str, dict[str, str | None]] = {}
    for label, colour in (("red", RED), ("green", GREEN), ("blue", BLUE), (None, BLACK)):
        name = f"{label}.avi"
        write_video(folder / name, colour, colour, colour)
        entries[name] = {"label": label}
    (folder / "labels.json").write_text(json.dumps(entries))
    return folder


def clip_list(folder: Path) -> list[Clip]:
    entries = json.loads((folder / "labels.json").read_text())
    return [Clip(folder / name, entry["label"]) for name, entry in sorted(entries.items())]


def test_clips_are_told_apart_at_once_by_frame_and_later_by_average(
    detector: Detector, clips: Path
) -> None:
    options = Options(("frame", "average"), STANDARD)
    report = evaluate_clips(detector, clip_list(clips), options, distractors=["d", "e"], streams=3)
    frame, average = report.results
    assert report.labels == ("blue", "green", "red", "d", "e")
    assert (report.videos, report.streams, frame.frames) == (4, 3, 4 * 12 * 3)
    assert (frame.mean_average_precision, frame.top1, frame.background_rejection) == (1, 1, 1)
    assert (frame.latency.instances, frame.latency.recognised) == (9, 9)
    assert frame.latency.mean_ms == 0
    assert average.latency.mean_ms is not None
    assert 0 < average.latency.mean_ms <= 2000
    assert [label.frames for label in frame.labels] == [36, 36, 36, 0, 0]


def test_clips_kept_apart_have_no_cut_to_wait_for(detector: Detector, clips: Path) -> None:
    options = Options(("average",), STANDARD)
    report = evaluate_clips(detector, clip_list(clips), options, distractors=["d"], streams=None)
    assert (report.videos, report.streams, report.seed) == (4, None, None)
    assert report.results[0].latency.mean_ms == 0
    assert to_text(report).startswith("clips: 4 videos, 48 frames (12 without a label), 4 labels")


def test_labels_replace_own_labels_and_distractors(detector: Detector, clips: Path) -> None:
    report = evaluate_clips(
        detector,
        clip_list(clips),
        Options(("frame",), STANDARD),
        distractors=["d"],
        labels=["red", "e"],
        streams=1,
    )
    assert report.labels == ("red", "e")
    assert report.results[0].background_frames == 3 * 12


def test_segments_of_raw_videos(detector: Detector, tmp_path: Path) -> None:
    write_video(tmp_path / "long.avi", RED, RED, BLACK, GREEN, GREEN)
    write_video(tmp_path / "dark.avi", BLACK)
    path = tmp_path / "segments.csv"
    rows = ["video,start_s,end_s,label", "long.avi,0,2,red", "long.avi,3,5,green", "dark.avi,,,"]
    path.write_text("\n".join(rows))
    report = evaluate_segments(
        detector, tmp_path, read_segments(path), Options(("frame",), STANDARD)
    )
    (result,) = report.results
    assert (report.evaluation, report.videos, result.frames) == ("segments", 2, 24)
    assert result.mean_average_precision == 1.0
    assert result.background_frames == 8
    with pytest.raises(EvaluationError, match="found the labels blue, expected at least one of"):
        evaluate_segments(
            detector,
            tmp_path,
            read_segments(path),
            Options(("frame",), STANDARD),
            labels=["blue"],
        )


@pytest.fixture
def command_detector(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> Detector:
    """Put the colour detector where the command would build one."""

    def build(**_: object) -> Detector:
        return detector

    monkeypatch.setattr(commands, "build_detector", build)
    return detector


@pytest.mark.usefixtures("command_detector")
def test_clips_command_prints_writes_and_draws(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("d\ne\nRed\n")
    out = tmp_path / "out" / "report.json"
    plots = tmp_path / "plots"
    arguments = ["clips", str(clips), "--distractors", str(words), "--json", str(out)]
    arguments += ["--plots", str(plots), "--timeline", "stream 2", "--streams", "2"]
    assert commands.main(arguments) == 0
    printed = capsys.readouterr()
    assert "clips: 4 videos in 2 streams, seed 0, 96 frames (24 without a label)" in printed.out
    assert "2 labels that no frame shows are left out of the means" in printed.out
    assert "left out, the clips show them: Red" in printed.err
    report = json.loads(out.read_text())
    assert [result["scorer"] for result in report["results"]] == ["frame", "average", "cluster"]
    assert report["results"][0]["labels"][3]["average_precision"] is None
    assert sorted(path.name for path in plots.iterdir()) == sorted(
        f"{scorer}_{picture}.png"
        for scorer in ("frame", "average", "cluster")
        for picture in ("per_label", "precision_recall", "timeline")
    )


@pytest.mark.usefixtures("command_detector")
def test_dataset_command_repeats_splits(
    thumos: FieldData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "splits.json"
    arguments = ["thumos14", "--root", str(thumos.root), "--feature", "colours"]
    arguments += ["--split", "50/50", "--repeats", "2", "--json", str(out)]
    assert commands.main(arguments) == 0
    assert "over 2 splits  mean mAP  deviation" in capsys.readouterr().out
    assert [report["seed"] for report in json.loads(out.read_text())] == [0, 1]


@pytest.mark.usefixtures("command_detector")
def test_errors_are_one_line_and_status_1(
    thumos: FieldData, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["thumos14", "--root", str(thumos.root), "--feature", "flow"]
    assert commands.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"ovoad evaluate: found no {thumos.root / 'flow' / 'video0.npy'}")
    assert error.count("\n") == 1


@pytest.mark.usefixtures("command_detector")
def test_a_report_that_cannot_be_written_is_still_printed(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "report.json"
    assert commands.main(["clips", str(clips), "--scorer", "frame", "--json", str(out)]) == 1
    printed = capsys.readouterr()
    assert "clips: 4 videos" in printed.out
    assert "ovoad evaluate: [Errno" in printed.err
    assert str(tmp_path / "file") in printed.err


def test_scorer_ovoad_asks_for_weights(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["thumos14", "--root", "x", "--feature", "y", "--scorer", "frame,ovoad"]
    assert commands.main(arguments) == 1
    expected = "ovoad evaluate: found no weights for scorer ovoad, expected --weights"
    assert capsys.readouterr().err.startswith(expected)


def test_evaluating_without_trained_weights_imports_neither_torch_nor_matplotlib() -> None:
    code = "import sys, ovoad_model.evaluation.commands; "
    code += "print([name for name in ('torch', 'matplotlib', 'rich') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_unknown_scorer_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        commands.main(["clips", "x", "--scorer", "frame,guess"])
    assert caught.value.code == 2
    assert "found 'guess', expected frame, average, cluster, ovoad" in capsys.readouterr().err


def test_split_command_writes_lists_and_captions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["Background", *(f"{chr(65 + i)}" for i in range(20)), "Ambiguous"]
    info = {"class_names": names, "train_session_set": ["v"]}
    (tmp_path / "data_info.json").write_text(json.dumps(info))
    base = split_classes(names[1:-1], "50/50", seed=1).base[0]
    targets = np.zeros((8, 22), np.float32)
    targets[2:6, names.index(base)] = 1
    for folder, array in (("rgb", np.ones((8, 3))), ("target_perframe", targets)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "v.npy", array)
    out = tmp_path / "split"
    arguments = ["split", "thumos14", "--root", str(tmp_path), "--feature", "rgb"]
    assert commands.main([*arguments, "--split", "50/50", "--seed", "1", "--out", str(out)]) == 0
    assert "1 captions of 10 base classes from 1 videos; 0 videos" in capsys.readouterr().out
    assert json.loads((out / "base_captions.jsonl").read_text())["text"] == base.lower()
