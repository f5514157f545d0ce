"""The training loop: exact resume, whole checkpoints, the schedule, several processes."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.network import OVOAD
from ovoad_model.network.scorer import load_scorer
from ovoad_model.network.weights import WrongEncoderError
from ovoad_model.training import trainer as trainer_module
from ovoad_model.training.captions import CaptionError, write_captions
from ovoad_model.training.dataset import WindowDataset
from ovoad_model.training.feature_store import FeatureDescription, FeatureError
from ovoad_model.training.fingerprint import content_digest
from ovoad_model.training.phrases import PhrasesUnavailableError
from ovoad_model.training.run import RunOptions, prepare
from ovoad_model.training.settings import TrainingError, TrainingSettings, learning_rate_at
from ovoad_model.training.synthetic import World, WorldSettings, timelines_of
from ovoad_model.training.trainer import Trainer, build_optimizer

WORLD = World(
    WorldSettings(
        joint_width=8,
        feature_width=12,
        scene_width=2,
        seen_classes=10,
        unseen_classes=3,
        video_frames=80,
        training_videos=4,
        test_videos=1,
    )
)
NETWORK = NetworkConfig(
    feature_width=12,
    width=16,
    heads=2,
    dntr_layers=1,
    cluster_layers_before=1,
    cluster_layers_after=1,
    text_width=8,
    current_width=8,
    joint_width=8,
    head_hidden=16,
)
SETTINGS = TrainingSettings(
    epochs=3, warmup_epochs=1, batch_size=8, learning_rate=1e-3, log_steps=1, seed=5
)


class WordEncoder(torch.nn.Module):
    """A trainable text side: the mean of its words' vectors; token ids [C, L] to [C, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(300, 8)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self.words(tokens).mean(dim=1), dim=-1)


def build(
    folder: Path,
    settings: TrainingSettings = SETTINGS,
    *,
    text: WordEncoder | None = None,
    config: NetworkConfig = NETWORK,
    windows_per_epoch: int = 44,
) -> Trainer:
    """A trainer on the small world, five steps an epoch."""
    torch.set_num_threads(1)
    videos = WORLD.training_videos()
    features = {video.name: video.features for video in videos}
    dataset = WindowDataset(
        timelines_of(videos),
        lambda name, start, stop: features[name][start:stop],
        feature_width=12,
        windows_per_epoch=windows_per_epoch,
        seed=settings.seed,
    )
    torch.manual_seed(settings.seed)
    table = torch.from_numpy(WORLD.encode_text(dataset.texts))
    if text is not None:
        table = torch.tensor([list(f"{said:24}".encode()) for said in dataset.texts])
    network = OVOAD(config)
    return Trainer(network, dataset, table, settings, folder, text=text, tensorboard=False)


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}


def without_dropout(trainer: Trainer) -> None:
    for module in trainer.network.modules():
        for name in ("p", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def log_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def stop_after(trainer: Trainer, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the trainer ask itself to stop when it has done `step` steps."""
    take = trainer.train_step

    def step_and_ask(batch: Any) -> Any:
        result = take(batch)
        if trainer.step == step:
            trainer.ask_to_stop()
        return result

    monkeypatch.setattr(trainer, "train_step", step_and_ask)


@pytest.mark.parametrize("stop", [1, 7, 10])
def test_a_resumed_run_equals_one_that_never_stopped_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    whole = build(tmp_path / "whole")
    assert whole.run()
    first = build(tmp_path / "parts")
    stop_after(first, stop, monkeypatch)
    assert not first.run()
    assert first.step == stop
    torch.manual_seed(99)  # a new process has another state
    second = build(tmp_path / "parts")
    second.resume()
    assert second.run()
    expected, found = weights_of(whole), weights_of(second)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    losses = [row["total"] for row in log_of(tmp_path / "whole")]
    assert [row["total"] for row in log_of(tmp_path / "parts")] == losses
    assert len(losses) == 15


def test_rows_logged_after_the_checkpoint_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build(tmp_path)
    stop_after(trainer, 4, monkeypatch)
    trainer.run()
    with (tmp_path / "log.csv").open("a") as stream:
        stream.write("4,0,1,2,3,4,5,6,7,8,9\n5,0,1")  # a later row, and one that a crash tore
    again = build(tmp_path)
    again.resume()
    again.run()
    assert [row["step"] for row in log_of(tmp_path)] == [str(step) for step in range(15)]


def test_a_checkpoint_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build(tmp_path)
    trainer.save()
    before = trainer.checkpoint_path.read_bytes()

    def tear(content: object, stream: Any) -> None:
        stream.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", tear)
    trainer.step = 3
    with pytest.raises(OSError, match="no space left"):
        trainer.save()
    assert trainer.checkpoint_path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_checkpoints_are_written_on_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build(tmp_path, replace(SETTINGS, epochs=2, checkpoint_minutes=0))
    saved: list[int] = []
    monkeypatch.setattr(trainer, "save", lambda: saved.append(trainer.step))
    trainer.run()
    assert saved == [*range(1, 11), 10]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no checkpoint", "found no checkpoint"), (None, "found no checkpoint")],
)
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    trainer = build(tmp_path)
    if content is not None:
        trainer.checkpoint_path.write_bytes(content)
    with pytest.raises(TrainingError, match=reason) as caught:
        trainer.resume()
    assert str(trainer.checkpoint_path) in str(caught.value)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    build(tmp_path).save()
    with pytest.raises(TrainingError, match="found a checkpoint of another run"):
        build(tmp_path, replace(SETTINGS, learning_rate=1.0)).resume()
    build(tmp_path, replace(SETTINGS, checkpoint_minutes=1, log_steps=2)).resume()


def test_a_loss_that_is_no_number_ends_the_run_before_it_spoils_the_weights(
    tmp_path: Path,
) -> None:
    trainer = build(tmp_path)
    trainer.save()
    before = trainer.checkpoint_path.read_bytes()
    trainer.network.current_head.weight.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="found loss nan at step 0, expected a number"):
        trainer.run()
    assert trainer.checkpoint_path.read_bytes() == before


def explode(trainer: Trainer) -> None:
    """Make one gradient infinite while the loss stays a number."""
    weight: Any = trainer.network.current_head.weight
    weight.register_hook(lambda gradient: gradient.abs() / 0.0)


@pytest.mark.parametrize("chunk", [None, 3])
def test_an_infinite_gradient_ends_the_run_before_it_spoils_the_weights(
    tmp_path: Path, chunk: int | None
) -> None:
    trainer = build(tmp_path, replace(SETTINGS, checkpoint_minutes=0, chunk=chunk))
    trainer.save()
    weights, checkpoint = weights_of(trainer), trainer.checkpoint_path.read_bytes()
    explode(trainer)
    with pytest.raises(TrainingError, match=r"found gradient norm (inf|nan) at step 0, expected"):
        trainer.run()
    assert all(torch.equal(weights[name], found) for name, found in weights_of(trainer).items())
    assert trainer.checkpoint_path.read_bytes() == checkpoint
    assert trainer.step == 0


def test_loss_scaling_skips_infinite_gradients_but_not_for_ever(tmp_path: Path) -> None:
    trainer = build(tmp_path)
    trainer._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**-13)
    weights = weights_of(trainer)
    explode(trainer)
    with pytest.raises(TrainingError, match=r"found gradient norm (inf|nan) at step 4, expected"):
        trainer.run()  # scales 2^-13 to 2^-16 are skipped
    assert all(torch.equal(weights[name], found) for name, found in weights_of(trainer).items())


@pytest.mark.parametrize("where", ["weights", "optimizer"])
def test_a_state_that_is_not_finite_is_never_saved(tmp_path: Path, where: str) -> None:
    trainer = build(tmp_path, replace(SETTINGS, epochs=2))
    trainer.run()
    before = trainer.checkpoint_path.read_bytes()
    if where == "weights":
        trainer.network.current_head.weight.data[0, 0] = float("inf")
    else:
        next(iter(trainer._optimizer.state.values()))["exp_avg"][0] = float("nan")
    with pytest.raises(TrainingError, match=r"found values in .* not finite after step 10"):
        trainer.run()  # nothing left to do but the last save
    assert trainer.checkpoint_path.read_bytes() == before


def test_a_network_of_a_shorter_past_is_trained_on_the_latest_frames(tmp_path: Path) -> None:
    trainer = build(tmp_path, replace(SETTINGS, epochs=2), config=replace(NETWORK, past=16))
    _, batch = next(trainer._batches())
    windows, _ = trainer._to_tensors(batch)
    assert np.array_equal(windows.past.numpy(), batch.past[:, 8:])
    assert np.array_equal(windows.past_mask.numpy(), batch.past_mask[:, 8:])
    assert trainer.run()


def test_processes_share_an_odd_epoch() -> None:
    assert trainer_module._batch_size(replace(SETTINGS, batch_size=64), 45, 2) == 44
    assert trainer_module._batch_size(SETTINGS, 45, 1) == 8
    with pytest.raises(TrainingError, match="found batch size 9, expected a multiple of 2 proc"):
        trainer_module._batch_size(replace(SETTINGS, batch_size=9), 45, 2)
    with pytest.raises(TrainingError, match="found 1 windows an epoch, expected 2 at least"):
        trainer_module._batch_size(SETTINGS, 1, 2)


def test_chunks_give_the_same_weights(tmp_path: Path) -> None:
    whole, parts = build(tmp_path / "a"), build(tmp_path / "b", replace(SETTINGS, chunk=3))
    without_dropout(whole)
    without_dropout(parts)
    whole.run()
    parts.run()
    expected, found = weights_of(whole), weights_of(parts)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=2e-4, rtol=0)


@pytest.mark.parametrize("chunk", [None, 3])
def test_a_trainable_text_side_is_trained_and_kept(tmp_path: Path, chunk: int | None) -> None:
    text = WordEncoder()
    before = text.words.weight.detach().clone()
    trainer = build(tmp_path, replace(SETTINGS, chunk=chunk), text=text)
    trainer.run()
    after = text.words.weight.detach()
    assert not torch.equal(after[ord("a")], before[ord("a")])
    other = WordEncoder()
    build(tmp_path, replace(SETTINGS, chunk=chunk), text=other).resume()
    assert torch.equal(other.words.weight, after)


def test_bfloat16_trains_too(tmp_path: Path) -> None:
    trainer = build(tmp_path, replace(SETTINGS, precision="bfloat16", epochs=2))
    assert trainer.run()
    assert next(trainer.network.parameters()).dtype == torch.float32


def test_the_loss_falls(tmp_path: Path) -> None:
    trainer = build(tmp_path, replace(SETTINGS, epochs=16, learning_rate=5e-3))
    trainer.run()
    losses = [float(row["total"]) for row in log_of(tmp_path)]
    assert np.mean(losses[-10:]) < np.mean(losses[:5]) - 0.3


def test_the_rate_rises_then_follows_a_cosine_to_zero() -> None:
    rates = [learning_rate_at(step, TrainingSettings(), 10) for step in range(301)]
    assert rates[0] == pytest.approx(1.6e-4 / 20)
    assert rates[19] == pytest.approx(1.6e-4)
    assert rates[160] == pytest.approx(0.8e-4)
    assert rates[300] == pytest.approx(0)
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_biases_norms_and_scales_have_no_weight_decay() -> None:
    network = OVOAD(NETWORK)
    decayed, free = build_optimizer(network, SETTINGS).param_groups
    assert decayed["weight_decay"] == 0.05
    assert free["weight_decay"] == 0.0
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    undecayed = {names[id(parameter)] for parameter in free["params"]}
    assert undecayed >= {name for name in names.values() if name.endswith("bias")}
    assert undecayed >= {"scale_joint.log_scale", "mask_scale"}
    assert all("weight" in name or "norm" in name or "_" in name for name in undecayed)
    assert len(decayed["params"]) + len(free["params"]) == len(names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "found epochs 0, expected a number above 0"),
        ({"warmup_epochs": 3}, "found 3 warm-up epochs, expected 0 to below 3"),
        ({"chunk": 0}, "found chunk 0, expected 1 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        replace(SETTINGS, **change)


@pytest.fixture
def files(tmp_path: Path) -> RunOptions:
    """The small world as files, and options that train on them for a moment."""
    videos = WORLD.training_videos()
    folder = tmp_path / "features"
    folder.mkdir()
    for video in videos:
        np.save(folder / f"{video.name}.npy", video.features)
    FeatureDescription(WORLD.name, WORLD.fingerprint, 12).write(folder)
    write_captions(tmp_path / "captions.jsonl", [c for video in videos for c in video.captions])
    return RunOptions(
        captions=tmp_path / "captions.jsonl",
        features=folder,
        out=tmp_path / "run",
        settings=replace(SETTINGS, epochs=2),
        network=NETWORK,
        windows_per_epoch=16,
        phrases="off",
        tensorboard=False,
    )


def test_files_become_weights_that_the_scorer_takes(files: RunOptions) -> None:
    said: list[str] = []
    run = prepare(files, WORLD, said.append)
    assert run.trainer.run()
    folder = run.finish()
    scorer = load_scorer(folder, WORLD)
    assert scorer.embed_text(WORLD.encode_text(WORLD.unseen)).shape == (3, 16)
    assert json.loads((folder / "config.json").read_text())["trained_steps"] == 4
    assert said[-1].endswith("weights")
    other = World(replace(WORLD.settings, seed=1))
    with pytest.raises(WrongEncoderError):
        load_scorer(folder, other)


def test_features_of_another_encoder_are_refused(files: RunOptions) -> None:
    with pytest.raises(FeatureError, match="found features of made-up world"):
        prepare(files, World(replace(WORLD.settings, seed=1)), print)


def test_bad_lines_stop_the_run_or_are_left_out(files: RunOptions) -> None:
    with files.captions.open("a") as stream:
        stream.write('{"video": "train_0000", "start_ms": 5, "end_ms": 1, "text": "x"}\n')
        stream.write('{"video": "absent", "start_ms": 0, "end_ms": 1, "text": "x"}\n')
    with pytest.raises(CaptionError) as caught:
        prepare(files, WORLD, print)
    assert len(caught.value.problems) == 2
    said: list[str] = []
    prepare(replace(files, skip_bad_lines=True), WORLD, said.append)
    assert [text.startswith("left out: ") for text in said] == [True, True, False]


def test_without_the_phrase_parser_a_run_goes_on_or_stops_as_asked(
    files: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    said: list[str] = []
    prepare(replace(files, phrases="auto"), WORLD, said.append)
    assert said[0].startswith("training without verb–object phrases: found no spaCy")
    with pytest.raises(PhrasesUnavailableError):
        prepare(replace(files, phrases="on"), WORLD, print)


def test_a_folder_with_a_checkpoint_is_not_overwritten(files: RunOptions) -> None:
    prepare(files, WORLD, print).trainer.save()
    with pytest.raises(TrainingError, match="found a checkpoint, expected --resume"):
        prepare(files, WORLD, print)
    said: list[str] = []
    prepare(replace(files, resume=True), WORLD, said.append)
    assert "resumed at step 0 of 4" in said


def test_a_resumed_run_has_the_same_data_and_network(files: RunOptions) -> None:
    prepare(files, WORLD, print).trainer.save()
    changes: list[tuple[dict[str, Any], str]] = [
        ({"background_share": 0.5}, r"background_share 0\.2, expected 0\.5"),
        ({"extra_texts": 1}, "extra_texts 2, expected 1"),
        ({"windows_per_epoch": 24}, "windows_per_epoch 16, expected 24"),
        ({"network": replace(NETWORK, groups=4)}, r"network\.groups 8, expected 4"),
        (
            {"settings": replace(files.settings, alpha=0.3, seed=6)},
            r"settings\.alpha 0\.1, expected 0\.3; settings\.seed 5, expected 6",
        ),
    ]
    for change, message in changes:
        with pytest.raises(TrainingError, match=f"of another run: {message}$"):
            prepare(replace(files, resume=True, **change), WORLD, print)


@pytest.mark.parametrize("change", ["other", "longer"])
def test_a_resumed_run_has_the_same_features(files: RunOptions, change: str) -> None:
    prepare(files, WORLD, print).trainer.save()
    path = sorted(files.features.glob("*.npy"))[0]
    features = np.load(path)
    if change == "longer":
        np.save(path, np.concatenate([features, features[:1]]))
    else:
        features[[3, 4]] = features[[4, 3]]  # same length, same scale
        np.save(path, features)
    with pytest.raises(TrainingError, match=r"data\.features \w+, expected \w+$") as caught:
        prepare(replace(files, resume=True), WORLD, print)
    assert ("data.frames" in str(caught.value)) == (change == "longer")
    assert "\n" not in str(caught.value)


def test_a_resumed_run_has_the_same_captions_and_text_side(
    files: RunOptions, tmp_path: Path
) -> None:
    prepare(files, WORLD, print).trainer.save()
    lines = files.captions.read_text().splitlines(keepends=True)
    files.captions.write_text("".join(lines[:-1]))
    with pytest.raises(TrainingError, match=r"data\.captions \w+, expected \w+"):
        prepare(replace(files, resume=True), WORLD, print)
    build(tmp_path / "text", text=WordEncoder()).save()
    with pytest.raises(TrainingError, match=r"text_adapters True, expected False$"):
        build(tmp_path / "text").resume()


def test_a_digest_sees_both_ends_of_a_long_file(tmp_path: Path) -> None:
    content = bytearray(3 << 20)
    path = tmp_path / "long.npy"
    found = set()
    for place in (None, 0, len(content) - 1):
        if place is not None:
            content[place] = 1
        path.write_bytes(content)
        found.add(content_digest(path))
    path.write_bytes(content + b"\0")
    assert len(found | {content_digest(path)}) == 4


TWO_PROCESSES = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from torch import distributed
sys.path.insert(0, sys.argv[2])
import test_trainer as t
distributed.init_process_group("gloo")
trainer = t.build(Path(sys.argv[1]))
t.without_dropout(trainer)
assert trainer.run()
if distributed.is_initialized() and distributed.get_rank() == 0:
    torch.save(t.weights_of(trainer), Path(sys.argv[1]) / "weights.pt")
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    found = {}
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                *("--nproc-per-node", str(count), str(script)),
                *(str(folder), str(Path(__file__).parent)),
            ],
            check=True,
            timeout=100,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
        )
        found[count] = torch.load(folder / "weights.pt", weights_only=True)
    for name, expected in found[1].items():
        torch.testing.assert_close(found[2][name], expected, atol=5e-4, rtol=0)
