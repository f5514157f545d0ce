"""Libraries that report their use are told no before they are imported."""

import os
import subprocess
import sys
from pathlib import Path

REPORTERS = ("ORT_DISABLE_TELEMETRY", "NNCF_CI", "HF_HUB_DISABLE_TELEMETRY")
PROGRAM = """
import os, sys
from pathlib import Path
import numpy as np
from ovoad_model.build import build_detector
detector = build_detector(encoder="embedded", runtime="onnxruntime", cache=Path(sys.argv[1]))
detector.encode([np.zeros((64, 64, 3), np.uint8)])
detector.vocabulary(["waving"])
print(",".join(os.environ.get(name, "") for name in sys.argv[2:]))
"""


def run(home: Path, **variables: str) -> str:
    environment = {name: text for name, text in os.environ.items() if name not in REPORTERS}
    environment |= {"HOME": str(home), **variables}
    environment.pop("XDG_CACHE_HOME", None)
    command = [sys.executable, "-c", PROGRAM, str(home / "ours"), *REPORTERS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_an_encoder_leaves_no_trace_of_a_reporter_in_the_home(tmp_path: Path) -> None:
    assert run(tmp_path) == "1,1,1"
    others = [path for path in tmp_path.rglob("*") if (tmp_path / "ours") not in path.parents]
    assert [path.name for path in others if path.name != "ours"] == []


def test_whoever_has_decided_before_is_left_alone(tmp_path: Path) -> None:
    assert run(tmp_path, HF_HUB_DISABLE_TELEMETRY="0").endswith(",0")
