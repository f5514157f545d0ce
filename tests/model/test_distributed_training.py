"""`ovoad train` under torchrun: two processes train as one, on one machine and as if on two."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ovoad_model.build import build_encoder
from ovoad_model.training.captions import Caption, write_captions
from ovoad_model.training.feature_store import FeatureDescription
from ovoad_model.training.run_description import check_same_run
from ovoad_model.training.settings import TrainingError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

LIMIT_S = 180.0
LOSS_TOLERANCE = 1e-5  # six digits are logged
WEIGHT_TOLERANCE = 2e-5  # float32 sums in another order
NETWORK = {
    "width": 32,
    "heads": 2,
    "dntr_layers": 1,
    "cluster_layers_before": 1,
    "cluster_layers_after": 1,
    "head_hidden": 32,
    "dropout": 0.0,  # each process drops other units
}
WORDS = ("a dog runs", "a man cooks", "rain on a window", "two people dance")


@dataclass(frozen=True)
class Data:
    """A small data set on disk."""

    captions: Path
    features: Path
    network: Path

    def arguments(self, out: Path, *, epochs: int, resume: bool = False) -> list[str]:
        """Return what follows `ovoad train`."""
        flags = {
            "captions": self.captions,
            "features": self.features,
            "network": self.network,
            "out": out,
            "epochs": epochs,
            "warmup-epochs": 1,
            "windows-per-epoch": 16,
            "batch-size": 8,
            "learning-rate": 1e-3,
            "log-steps": 1,
            "phrases": "off",
            "device": "cpu",
        }
        pairs = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
        return [*pairs, "--no-tensorboard", *(["--resume"] if resume else [])]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Write features of four videos and captions of them."""
    folder = tmp_path_factory.mktemp("data")
    encoder = build_encoder("embedded", runtime="onnxruntime")
    features = folder / "features"
    features.mkdir()
    random = np.random.default_rng(3)
    captions = []
    for index, words in enumerate(WORDS):
        rows = random.normal(size=(60, encoder.feature_width)).astype(np.float32)
        np.save(features / f"video{index}.npy", rows)
        captions.append(Caption(f"video{index}", 2000, 6000, words))
        captions.append(Caption(f"video{index}", 8000, 12_000, WORDS[index - 1]))
    FeatureDescription(encoder.name, encoder.fingerprint, encoder.feature_width).write(features)
    write_captions(folder / "captions.jsonl", captions)
    (folder / "network.json").write_text(json.dumps(NETWORK))
    return Data(folder / "captions.jsonl", features, folder / "network.json")


def torchrun(*flags: str) -> list[str]:
    """Return the command of docs/training.md up to the arguments of `ovoad train`."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", *flags),
        *("-m", "ovoad_model.training", "train"),
    ]


@contextmanager
def started(command: list[str]) -> "Iterator[subprocess.Popen[str]]":
    """Start a command, on the loopback alone; end it whatever happens."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(command: list[str]) -> str:
    """Run a command to its end; return what it said."""
    with started(command) as process:
        said, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, said
        return said


def run_both(commands: list[list[str]]) -> list[str]:
    """Run two commands side by side to their ends."""
    with ExitStack() as stack:
        processes = [stack.enter_context(started(command)) for command in commands]
        said = [process.communicate(timeout=LIMIT_S)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], said
        return said


def two_machines() -> list[list[str]]:
    """Return the commands of two machines, here both this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = ("--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1")
    flags = [(*common, "--master-port", str(port), "--node-rank", str(rank)) for rank in (0, 1)]
    return [torchrun(*each) for each in flags]


def losses_of(folder: Path) -> list[float]:
    with (folder / "log.csv").open(newline="") as stream:
        return [float(row["total"]) for row in csv.DictReader(stream)]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights" / "model.safetensors")


def test_two_processes_train_as_one_with_the_whole_batch(data: Data, tmp_path: Path) -> None:
    alone, both = tmp_path / "alone", tmp_path / "both"
    said = {}
    for count, out in ((1, alone), (2, both)):
        command = torchrun("--standalone", "--nproc-per-node", str(count))
        said[count] = run([*command, *data.arguments(out, epochs=3)])
    assert said[2].count("weights: ") == 1, "the first process alone speaks"
    expected, found = losses_of(alone), losses_of(both)
    assert len(expected) == 6
    assert found == pytest.approx(expected, rel=LOSS_TOLERANCE)
    start = weights_of(alone)
    for name, tensor in weights_of(both).items():
        torch.testing.assert_close(tensor, start[name], atol=WEIGHT_TOLERANCE, rtol=0)


@pytest.mark.long
def test_two_machines_stop_and_resume_where_one_alone_sees_the_folder(
    data: Data, tmp_path: Path
) -> None:
    outs = [tmp_path / "first", tmp_path / "second"]
    epochs = 40

    def commands(*, resume: bool) -> list[list[str]]:
        both = zip(two_machines(), outs, strict=True)
        return [
            [*command, *data.arguments(out, epochs=epochs, resume=resume)] for command, out in both
        ]

    with ExitStack() as stack:
        processes = [stack.enter_context(started(each)) for each in commands(resume=False)]
        wait_for_rows(outs[0] / "log.csv", 5, processes)
        processes[1].send_signal(signal.SIGTERM)  # whichever is told, all stop together
        said = [process.communicate(timeout=LIMIT_S)[0] for process in processes]
    assert "stopped at step" in said[0], said
    assert (outs[0] / "checkpoint.pt").is_file()
    assert not outs[1].exists()
    reached = len(losses_of(outs[0]))
    assert 5 <= reached < 2 * epochs
    resumed = run_both(commands(resume=True))
    assert f"resumed at step {reached} of {2 * epochs}" in resumed[0]
    assert not outs[1].exists()

    whole = tmp_path / "whole"
    command = torchrun("--standalone", "--nproc-per-node", "2")
    run([*command, *data.arguments(whole, epochs=epochs)])
    assert losses_of(outs[0]) == losses_of(whole)
    expected = weights_of(whole)
    assert all(torch.equal(found, expected[name]) for name, found in weights_of(outs[0]).items())


def wait_for_rows(path: Path, count: int, processes: "list[subprocess.Popen[str]]") -> None:
    """Wait until the log has so many rows."""
    give_up_s = time.monotonic() + LIMIT_S
    while not path.is_file() or len(path.read_text().splitlines()) <= count:
        assert time.monotonic() < give_up_s
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)


def test_processes_of_other_data_do_not_train_together() -> None:
    runs = [json.dumps({"settings": {"alpha": alpha}}) for alpha in (0.1, 0.3)]
    check_same_run([runs[0], runs[0]])
    with pytest.raises(TrainingError) as caught:
        check_same_run(runs)
    assert str(caught.value) == (
        "found process 1 with another run than process 0: settings.alpha 0.3, expected 0.1"
    )
