"""A real server with the page, the page as a person uses it, and what a camera shows."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
WAIT_S = 60.0  # for a machine that has much else to do
CLIPS = Path(os.environ.get("OVOAD_TEST_CLIPS", REPOSITORY.parent / "shared" / "clips"))
ON_CAMERA = ("guitar.mp4", "soccer_juggling.mp4")
CAMERA_SIZE = (640, 360)
CAMERA_FPS = 20
SECONDS_EACH = 6
KEY = "right-key/+1"


@dataclass
class PageServer:
    """`ovoad serve` as its own process, so that a test can stop it and start it again."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        log = self.folder / "server.log"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ovoad_server", "--port", str(self.port)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
            )
        self.port = int(wait_until(lambda: self._announced(log.read_text()))[1])

    def _announced(self, printed: str) -> re.Match[str] | None:
        assert self.process is not None
        assert self.process.poll() is None, printed
        return re.search(r"listening on http://127\.0\.0\.1:(\d+)", printed)

    def stop(self) -> None:
        """Stop at once, without a word to those connected, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def wait_until(look: Callable[[], Any], *, timeout_s: float = WAIT_S) -> Any:
    """Look again and again until something true is found; returns it."""
    end_s = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < end_s, f"nothing within {timeout_s:g} s"
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def running_page_server(folder: Path, **environment: str) -> Iterator[PageServer]:
    server = PageServer(folder, environment)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def has_clips() -> bool:
    return all((CLIPS / name).is_file() for name in ON_CAMERA)


def clip_frames(clip: Path) -> Iterator[np.ndarray[Any, Any]]:
    """Return a clip's first seconds, thinned to the camera's rate."""
    video = cv2.VideoCapture(str(clip))
    step = video.get(cv2.CAP_PROP_FPS) / CAMERA_FPS
    taken = 0
    for index in range(round(SECONDS_EACH * CAMERA_FPS * step)):
        if not video.grab():
            return
        if index >= taken * step:
            yield cv2.resize(video.retrieve()[1], CAMERA_SIZE)
            taken += 1


def stripes(index: int) -> np.ndarray[Any, Any]:
    width, height = CAMERA_SIZE
    ramp = (np.arange(width) * 2 + index * 8) % 256
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, :, index % 3] = ramp
    return frame


class Page:
    """The page in Chromium: what a person reads and does."""

    def __init__(self, chrome: Any) -> None:
        self.chrome = chrome

    def open(self, url: str, *, labels: list[str] | None = None) -> None:
        """Open the page as on a first visit, with these labels where given."""
        self.chrome.get(url)
        words = json.dumps(json.dumps(labels)) if labels else "null"
        self.run(
            f"localStorage.clear(); sessionStorage.clear();"
            f"if ({words}) localStorage.setItem('ovoad.words', {words});"
        )
        self.chrome.get(url)
        wait_until(lambda: self.run("return document.body.dataset.prepared"))
        self.console()

    def run(self, script: str, *arguments: Any) -> Any:
        return self.chrome.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.chrome.find_elements("css selector", selector)
        return found

    def text(self, selector: str) -> str:
        read = "return document.querySelector(arguments[0])?.textContent.trim() ?? ''"
        return str(self.run(read, selector))

    def press(self, selector: str) -> None:
        self.chrome.find_element("css selector", selector).click()

    def count(self, name: str, script: str) -> None:
        """Begin to count in window.NAME; the script calls `more()` for each one."""
        self.run(f"window.{name} = 0; const more = () => window.{name}++; {script}")

    def counted(self, name: str) -> int:
        return int(self.run(f"return window.{name}"))

    def count_frames(self) -> None:
        """Count the binary messages that go out, in `frames`."""
        self.count(
            "frames",
            """const {send} = WebSocket.prototype;
            WebSocket.prototype.send = function (message) {
                if (typeof message !== "string") more();
                return send.call(this, message);
            }""",
        )

    def count_empty_windows(self) -> None:
        """Count how often the model's window begins anew, in `anew`."""
        self.count(
            "anew",
            """const text = document.querySelector("#window-text");
            new MutationObserver(() => text.textContent.startsWith("Empty") && more())
                .observe(text, {childList: true})""",
        )

    def state(self) -> str:
        return str(self.run("return document.body.dataset.state"))

    def wait_for_state(self, *states: str) -> None:
        wait_until(lambda: self.state() in states)

    def bars(self) -> dict[str, int]:
        """Percent by label, of those that have one; background as "none of these"."""
        read = """return [...document.querySelectorAll(".row")].map((row) => [
            row.querySelector("input")?.value ?? "none of these",
            parseInt(row.querySelector(".percent").textContent)])"""
        return {label: share for label, share in self.run(read) if share is not None}

    def leader(self) -> str:
        return self.text("#leader-label")

    def write_label(self, row: int, label: str) -> None:
        field = self.all("#rows input")[row]
        field.clear()
        field.send_keys(label + "\n")

    def console(self) -> list[str]:
        """Return warnings and errors of the console since the last look."""
        return [entry["message"] for entry in self.chrome.get_log("browser")]

    def media(self, **features: str) -> None:
        """Emulate media features, e.g. prefers_color_scheme="dark"."""
        wanted = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})

    def size(self, width: int, height: int) -> None:
        shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)

    def screenshot(self, name: str) -> None:
        """Save a picture in the folder OVOAD_SCREENSHOTS, else in one of the test run's own."""
        folder = Path(os.environ.get("OVOAD_SCREENSHOTS") or self.chrome.pictures)
        folder.mkdir(parents=True, exist_ok=True)
        self.chrome.save_screenshot(str(folder / f"{name}.png"))
