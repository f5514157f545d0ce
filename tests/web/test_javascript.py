"""The JavaScript's own tests and types, run where node and its packages are; the vendored sums."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from .page_harness import REPOSITORY, PageServer

WEB = REPOSITORY / "clients" / "web"
TYPESCRIPT = REPOSITORY / "node_modules" / ".bin" / "tsc"
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node 20 or newer")


def run(command: list[str], **environment: str) -> str:
    """Run a command in the repository; fails with what it printed."""
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_node_tests(*names: str, **environment: str) -> str:
    files = [str(REPOSITORY / "tests" / "web" / name) for name in names]
    return run(["node", "--experimental-websocket", "--test", *files], **environment)


@needs_node
def test_wire_schema_and_parts_of_the_page() -> None:
    output = run_node_tests("golden.test.mjs", "parts.test.mjs", "troubles.test.mjs")
    assert "# fail 0" in output


@needs_node
@pytest.mark.slow
def test_client_against_a_live_server(server: PageServer, tmp_path: Path) -> None:
    picture = tmp_path / "picture.jpg"
    cv2.imwrite(str(picture), np.full((120, 160, 3), 90, np.uint8))
    output = run_node_tests("client.test.mjs", OVOAD_URL=server.url, OVOAD_JPEG=str(picture))
    assert "# fail 0" in output
    assert "# skipped 0" in output


@needs_node
def test_types_hold() -> None:
    if not TYPESCRIPT.exists():
        pytest.skip("typescript is not installed: npm install")
    run([str(TYPESCRIPT), "-p", str(WEB / "tsconfig.json")])


def test_vendored_files_are_as_they_were_fetched() -> None:
    folder = WEB / "vendor"
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {name: expected for expected, name in (line.split() for line in lines)}
    assert "uPlot.esm.js" in sums
    assert "uPlot.LICENSE" in sums
    for name, expected in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected, name
