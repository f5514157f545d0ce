"""The examples of docs/clients.md, each run as it stands against a real server process."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from .real_server import RealServer, photo, start_server, stop_server

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
EXAMPLES = dict(re.findall(r"```(\w+(?: \w+)?)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL))
FRAMES = 12
LIMIT_S = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """Return a running server."""
    running = start_server(tmp_path_factory.mktemp("home"))
    yield running
    stop_server(running)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the video and the photo that the examples name."""
    size = (160, 120)
    writer = cv2.VideoWriter(
        str(tmp_path / "street.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 12, size
    )
    for number in range(FRAMES):
        writer.write(np.full((size[1], size[0], 3), 20 * number, np.uint8))
    writer.release()
    (tmp_path / "photo.jpg").write_bytes(photo())
    return tmp_path


def run(name: str, server: RealServer, folder: Path) -> str:
    """Run an example and return what it printed."""
    code = EXAMPLES[name].replace("127.0.0.1:8000", server.address)
    command = [sys.executable, "-c", code] if name.startswith("python") else ["sh", "-ec", code]
    tools = Path(sys.executable).parent
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_example_is_run_here() -> None:
    assert set(EXAMPLES) == {
        *("python async", "python sync"),
        *("js", "sh watch", "sh websocket", "sh curl"),
    }


@pytest.mark.parametrize("name", ["python async", "python sync"])
def test_python(name: str, server: RealServer, folder: Path) -> None:
    lines = run(name, server, folder).splitlines()
    assert [int(line.split()[0]) for line in lines] == [
        round(number * 1000 / 12) for number in range(FRAMES)
    ]
    for line in lines:
        numbers = [float(number) for number in re.findall(r"\d\.[\de-]+", line)]
        assert len(numbers) == 3
        assert sum(numbers) == pytest.approx(1.0, abs=1e-4)


def test_shell_watch(server: RealServer, folder: Path) -> None:
    printed = run("sh watch", server, folder)
    assert f"{FRAMES} predictions, dropped: none, errors: 0" in printed
    for name in ("street.jsonl", "street.csv", "street.srt", "annotated.mp4"):
        assert f"wrote {name}" in printed
        assert (folder / name).exists()
    assert len((folder / "street.csv").read_text().splitlines()) == 1 + FRAMES


def test_shell_websocket(server: RealServer, folder: Path) -> None:
    messages = [json.loads(line) for line in run("sh websocket", server, folder).splitlines()]
    kinds = [message["type"] for message in messages]
    assert kinds == ["session.created", "prediction", "session.closed"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(server: RealServer, folder: Path) -> None:
    messages = [json.loads(line) for line in run("sh curl", server, folder).splitlines()]
    kinds = {message["type"] for message in messages}
    assert "prediction" in kinds
    assert messages[0]["type"] == "clip.opened"
    assert messages[-1]["type"] == "clip.closed"


def test_browser(server: RealServer, chromium: Any) -> None:
    chromium.get(f"http://{server.address}/")
    chromium.set_script_timeout(LIMIT_S)
    found = chromium.execute_async_script(
        "const done = arguments[arguments.length - 1]; const seen = [];"
        "const console = { log: (...values) => { seen.push(values);"
        " if (seen.length === 3) done(seen); } };"
        f"(async () => {{ {EXAMPLES['js']} }})().catch((error) => done(String(error)));"
    )
    assert len(found) == 3, found
    for probabilities, background in found:
        assert sum(probabilities) + background == pytest.approx(1.0, abs=1e-4)


@pytest.fixture
def chromium() -> Iterator[Any]:
    """Return a headless Chromium whose camera shows a test pattern."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    for flag in ("use-fake-device-for-media-stream", "use-fake-ui-for-media-stream"):
        options.add_argument(f"--{flag}")
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()
