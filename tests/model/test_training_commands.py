"""`ovoad features`, `ovoad captions` and `ovoad train` as commands."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.weights import load_weights
from ovoad_model.training import commands
from ovoad_model.training.captions import read_captions, write_captions
from ovoad_model.training.commands import captions_main, features_main, train_main
from ovoad_model.training.feature_store import FeatureDescription
from ovoad_model.training.synthetic import World, WorldSettings
from ovoad_model.training.trainer import Trainer

WORLD = World(
    WorldSettings(
        joint_width=8,
        feature_width=12,
        seen_classes=10,
        unseen_classes=3,
        scene_width=2,
        video_frames=80,
        training_videos=4,
    )
)
NETWORK = NetworkConfig(
    width=16, heads=2, dntr_layers=1, cluster_layers_before=1, cluster_layers_after=1,
    joint_width=8, head_hidden=16,
)  # fmt: skip


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `ovoad train` needs to train a tiny network on the made-up world."""
    monkeypatch.setattr(commands, "build_encoder", lambda name, **_: WORLD)
    videos = WORLD.training_videos()
    (tmp_path / "features").mkdir()
    for video in videos:
        np.save(tmp_path / "features" / f"{video.name}.npy", video.features)
    FeatureDescription(WORLD.name, WORLD.fingerprint, 12).write(tmp_path / "features")
    write_captions(tmp_path / "captions.jsonl", [c for video in videos for c in video.captions])
    (tmp_path / "network.json").write_text(json.dumps(asdict(NETWORK)))
    return [
        *("--captions", str(tmp_path / "captions.jsonl")),
        *("--features", str(tmp_path / "features")),
        *("--out", str(tmp_path / "run")),
        *("--network", str(tmp_path / "network.json")),
        *("--epochs", "2", "--warmup-epochs", "0", "--batch-size", "8"),
        *("--windows-per-epoch", "16", "--phrases", "off", "--no-tensorboard", "--threads", "1"),
    ]


def test_training_writes_weights_that_load(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_main(arguments) == 0
    loaded = load_weights(tmp_path / "run" / "weights", WORLD)
    assert loaded.info.trained_steps == 4
    assert loaded.info.config.width == 16
    assert f"weights: {tmp_path / 'run' / 'weights'}" in capsys.readouterr().out
    assert train_main(arguments) == 1
    assert "found a checkpoint, expected --resume" in capsys.readouterr().err
    assert train_main([*arguments, "--resume"]) == 0


def test_a_signal_ends_the_run_with_a_checkpoint(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install = commands._stop_on_signals
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def install_and_send(stop: object) -> None:
        install(stop)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(commands, "_stop_on_signals", install_and_send)
    try:
        assert train_main(arguments) == 130
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert "stopped at step 1" in capsys.readouterr().out
    assert (tmp_path / "run" / "checkpoint.pt").exists()
    assert not (tmp_path / "run" / "weights").exists()


def test_errors_are_one_line_and_status_1(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "captions.jsonl").write_text('{"video": "train_0000", "start_ms": 0}\n')
    assert train_main(arguments) == 1
    expected = f"ovoad train: {tmp_path / 'captions.jsonl'}:1: found no end_ms and no text\n"
    assert capsys.readouterr().err == expected
    (tmp_path / "network.json").write_text('{"widht": 3}')
    assert train_main(arguments) == 1
    assert "found unknown network settings ['widht']" in capsys.readouterr().err
    assert train_main([*arguments, "--epochs", "0"]) == 1
    assert train_main([*arguments, "--captions", str(tmp_path / "absent")]) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--background-share", "1"], "found background share 1.0, expected 0 to below 1"),
        (["--background-share", "nan"], "found background share nan, expected 0 to below 1"),
        (["--extra-texts", "-1"], "found -1 extra texts, expected 0 or more"),
        (["--weight-decay", "-1"], "found weight_decay -1.0, expected 0 or more"),
        (["--learning-rate", "inf"], "found learning_rate inf, expected a number above 0"),
        (["--seed", "-1"], "found seed -1, expected 0 to below 2**63"),
        (["--device", "cuda:999"], "found device 'cuda:999' and 0 GPUs, expected one that torch"),
        (["--device", "cuda"], "found device 'cuda' and 0 GPUs, expected one that torch can use"),
        (["--device", "abacus"], "found device 'abacus', expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_values_that_make_no_sense_are_one_line(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changed: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert train_main([*arguments, *changed]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ovoad train: {message}")


def test_windows_that_the_scorer_does_not_give_are_one_line(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for past, neighbours in ((25, 8), (24, 4)):
        config = {**asdict(NETWORK), "past": past, "neighbours": neighbours}
        (tmp_path / "network.json").write_text(json.dumps(config))
        assert train_main(arguments) == 1
        assert capsys.readouterr().err == (
            f"ovoad train: found a network of {past} past and {neighbours} neighbouring frames, "
            "expected at most 24 and exactly 8\n"
        )


def test_weights_that_are_not_finite_are_one_line_and_no_file(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def spoil(trainer: Trainer) -> bool:
        trainer.network.mask_bias.data.fill_(float("nan"))
        return True

    monkeypatch.setattr(Trainer, "run", spoil)
    assert train_main(arguments) == 1
    weights = tmp_path / "run" / "weights"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ovoad train: {weights}: found values in mask_bias that are not finite")
    assert not weights.exists()


def test_annotations_become_a_caption_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {"subset": "training", "annotations": [{"segment": [1, 2], "label": "Long jump"}, {}]}
    source, out = tmp_path / "activity.json", tmp_path / "captions.jsonl"
    source.write_text(json.dumps({"database": {"x": entry}}))
    assert captions_main(["activitynet", str(source), "--out", str(out)]) == 0
    (caption,), problems = read_captions(out)
    assert (caption.video, caption.text) == ("v_x", "a video of a person long jump")
    assert problems == []
    printed = capsys.readouterr()
    assert "1 captions of 1 videos, 1 entries left out" in printed.out
    assert "x, annotation 1" in printed.err
    assert captions_main(["internvid", str(tmp_path / "absent"), "--out", str(out)]) == 1
    bad = ["activitynet", str(source), "--out", str(out), "--template", "a person"]
    assert captions_main(bad) == 1


def test_a_folder_without_videos_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert features_main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "found no video files" in capsys.readouterr().err


@pytest.mark.slow
def test_features_of_real_clips_and_of_a_damaged_one(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "archery.avi").symlink_to(clips / "archery.avi")
    (folder / "damaged.mp4").write_bytes((clips / "yoga.mp4").read_bytes()[:1000])
    assert features_main([str(folder), "--out", str(tmp_path / "out")]) == 3
    printed = capsys.readouterr()
    assert "1 videos written (22 frames), 0 finished before, 1 damaged" in printed.out
    assert f"damaged: {folder / 'damaged.mp4'}: found" in printed.err
    assert len(np.load(tmp_path / "out" / "archery.npy")) == 22


def test_the_module_names_its_commands() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "ovoad_model.training"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert "features|captions|train" in found.stderr
