"""Fixtures of the page's tests: a server, a camera that plays a video, a Chromium, the page."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from .page_harness import (
    CAMERA_FPS,
    CLIPS,
    KEY,
    ON_CAMERA,
    SECONDS_EACH,
    Page,
    PageServer,
    clip_frames,
    has_clips,
    running_page_server,
    stripes,
)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    with running_page_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def server_with_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    folder = tmp_path_factory.mktemp("server_with_key")
    with running_page_server(folder, OVOAD_API_KEY=KEY) as running:
        yield running


@pytest.fixture(scope="session")
def camera_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the camera shows: two real clips in turn; coloured stripes where there are none."""
    path = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    clips = [CLIPS / name for name in ON_CAMERA]
    frames = (
        (frame for clip in clips for frame in clip_frames(clip))
        if has_clips()
        else (stripes(index) for index in range(2 * SECONDS_EACH * CAMERA_FPS))
    )
    with path.open("wb") as output:
        for frame in frames:
            output.write(cv2.imencode(".jpg", frame)[1].tobytes())
    return path


@pytest.fixture(scope="session")
def chromium(camera_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One headless Chromium for all tests; its downloads go to the folder in `.downloads`."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "use-fake-device-for-media-stream",
        "use-fake-ui-for-media-stream",
        f"use-file-for-fake-video-capture={camera_file}",
        "window-size=1280,900",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    chrome.downloads = tmp_path_factory.mktemp("downloads")
    chrome.pictures = tmp_path_factory.mktemp("pictures")
    chrome.execute_cdp_cmd(
        "Browser.setDownloadBehavior",
        {"behavior": "allow", "downloadPath": str(chrome.downloads)},
    )
    yield chrome
    chrome.quit()


@pytest.fixture
def page(chromium: Any) -> Iterator[Page]:
    """A page of desktop size, light; what it left behind is gone afterwards."""
    opened = Page(chromium)
    opened.size(1280, 900)
    opened.media(prefers_color_scheme="light", prefers_reduced_motion="no-preference")
    yield opened
    chromium.get("about:blank")
