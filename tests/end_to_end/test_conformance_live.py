"""The server as a process of its own, with the real model, conforms to the contract."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .real_server import start_server, stop_server

pytestmark = pytest.mark.slow
KEY = "correct-horse"
ALLOWED_SKIPS = {"create.timeout", "goaway"}


def test_our_own_server_conforms(tmp_path: Path) -> None:
    server = start_server(tmp_path, api_key=KEY, promised_fps=0)
    report = tmp_path / "report.json"
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "ovoad_client.conformance", server.address),
                *("--json", str(report), "--timeout", "60"),
            ],
            env={**os.environ, "OVOAD_API_KEY": KEY},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
    finally:
        stop_server(server)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(report.read_text())
    assert told["conforms"] is True
    assert told["counts"]["fail"] == 0
    skipped = {check["name"] for check in told["checks"] if check["status"] == "skip"}
    assert skipped == ALLOWED_SKIPS
    assert KEY not in done.stdout + done.stderr + report.read_text()
    assert not [line for line in server.log if "Traceback" in line]
