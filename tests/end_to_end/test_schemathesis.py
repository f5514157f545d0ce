"""Schemathesis over the OpenAPI of a real server: what it says is what it does, and no 500s."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .real_server import faults, start_server, stop_server

pytestmark = pytest.mark.slow
KEY = "correct-horse"
EXAMPLES = 60  # a route and phase
# What fits the description of an upload is seldom a video: that answer is 415, as described.
LEFT_OUT = "positive_data_acceptance"


def test_no_request_that_the_description_leads_to_makes_the_server_fail(tmp_path: Path) -> None:
    schemathesis = Path(sys.executable).with_name("st")
    if not schemathesis.exists():
        pytest.skip("schemathesis is not installed")
    server = start_server(tmp_path, api_key=KEY, promised_fps=0)
    try:
        done = subprocess.run(
            [
                *(str(schemathesis), "run", f"http://{server.address}/openapi.json"),
                *("--header", f"Authorization: Bearer {KEY}"),
                *("--phases", "examples,coverage,fuzzing"),
                *("--max-examples", str(EXAMPLES), "--seed", "1"),
                *("--exclude-checks", LEFT_OUT),
                *("--suppress-health-check", "all"),
                "--no-color",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        alive = server.get("/healthz").json()
        spooled = list(tmp_path.glob(".cache/ovoad/clips/*"))
    finally:
        stop_server(server)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    counts = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert counts is not None, done.stdout
    assert int(counts[1]) == int(counts[2]) > 100
    assert alive == {"status": "alive"}
    assert spooled == []
    assert faults(server) == []
