"""`ovoad bench` as a person runs it: a real server process, a real video, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

pytestmark = pytest.mark.slow
BENCH = (sys.executable, "-m", "ovoad_client.bench.command")
LIMIT_S = 100


def environment() -> dict[str, str]:
    """Return the environment without settings of the surroundings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OVOAD_")}


def start(folder: Path, *flags: str) -> subprocess.Popen[str]:
    """Start the command."""
    return subprocess.Popen(
        [*BENCH, *flags],
        cwd=folder,
        env={**environment(), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_bench_with_baseline_tells_efficiency_and_added_latency(tmp_path: Path) -> None:
    load = ("--sessions", "2", "--seconds", "1", "--warmup", "0.2")
    bare = ("--baseline", "--batches", "1", "2", "--baseline-seconds", "0.1")
    with start(tmp_path, *load, *bare, "--json", "b.json", "--plot", "b.png") as process:
        printed, errors = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, errors) == (0, "")
    assert "efficiency" in printed
    assert "added latency: " in printed
    assert "each answered exactly once" in printed
    found = json.loads((tmp_path / "b.json").read_text())
    [row] = found["rows"]
    assert row["predictions"] > 0
    assert len(row["bare_fps"]) == 2
    assert row["server_cpu_ms"] > 0
    assert [turn["inflight"] for turn in found["one_at_a_time"]] == [1, 1, 1]
    assert found["beside_ms"] > 0
    first = found["baselines"][0]
    assert list(first["encode_score_fps"]) == ["1", "2"]
    assert list(first["reencode_fps"]) == ["8", "32"]
    assert cv2.imread(str(tmp_path / "b.png")) is not None


def test_ctrl_c_prints_what_there_is_and_stops_the_server(tmp_path: Path) -> None:
    flags = ("--sessions", "1", "2", "--seconds", "1", "--warmup", "0.1", "--json", "b.json")
    with start(tmp_path, *flags, "--fps", "0", "4") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("1 sessions x as fast as answers come"):
                break
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, errors) == (130, "")
    assert "| 1        |      max | lossless |" in printed
    assert "interrupted: this is what there is" in printed
    assert "each answered exactly once" in printed
    assert len(json.loads((tmp_path / "b.json").read_text())["rows"]) < 4
    assert json.loads((tmp_path / "b.json").read_text())["interrupted"] is True
