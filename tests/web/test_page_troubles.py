"""The page when the browser itself refuses: nothing stays on, and every button goes on working."""

from collections.abc import Iterator

import pytest

from .page_harness import KEY, Page, PageServer, wait_until

pytestmark = pytest.mark.slow

FORBID_STORAGE = """for (const name of ["localStorage", "sessionStorage"]) {
    const get = () => { throw new DOMException("access is denied", "SecurityError"); };
    Object.defineProperty(window, name, {get});
}"""


@pytest.fixture
def page_without_storage(page: Page) -> Iterator[Page]:
    """A page whose browser keeps nothing, as with all cookies blocked."""
    add, remove = (f"Page.{verb}ScriptToEvaluateOnNewDocument" for verb in ("add", "remove"))
    added = page.chrome.execute_cdp_cmd(add, {"source": FORBID_STORAGE})
    yield page
    page.chrome.execute_cdp_cmd(remove, added)


def test_start_works_again_after_a_start_that_failed_oddly(page: Page, server: PageServer) -> None:
    page.open(server.url)
    page.run(
        """const {mediaDevices} = navigator;
        window.tried = 0;
        mediaDevices.getUserMedia = async () => {
            delete mediaDevices.getUserMedia;
            window.tried++;
            throw new TypeError("odd");
        }"""
    )
    page.press("#start-camera")
    wait_until(lambda: page.counted("tried"))
    page.wait_for_state("ready")
    page.press("#start-camera")
    page.wait_for_state("live")
    assert len([line for line in page.console() if "odd" in line]) == 1


def test_camera_whose_picture_does_not_start_is_off_again(page: Page, server: PageServer) -> None:
    page.open(server.url)
    page.run(
        """const {play} = HTMLMediaElement.prototype;
        HTMLMediaElement.prototype.play = async function () {
            HTMLMediaElement.prototype.play = play;
            window.tracks = this.srcObject.getTracks();
            throw new DOMException("interrupted by a new load", "AbortError");
        }"""
    )
    page.press("#start-camera")
    wait_until(lambda: "The camera’s picture did not start" in page.text("#notice"))
    assert page.run("return tracks.map((track) => track.readyState)") == ["ended"]
    assert page.state() == "ready"
    page.press("#start-camera")
    page.wait_for_state("live")
    assert page.console() == []


def test_cameras_that_cannot_be_listed_stop_no_camera(page: Page, server: PageServer) -> None:
    page.open(server.url)
    page.run(
        """navigator.mediaDevices.enumerateDevices = async () => {
            throw new DOMException("not now", "AbortError");
        };"""
    )
    page.press("#start-camera")
    wait_until(lambda: page.bars())
    page.wait_for_state("live")
    page.press("#stop")
    page.wait_for_state("ready")


def test_picture_that_is_being_made_when_the_capture_stops_is_not_sent(
    page: Page, server: PageServer
) -> None:
    page.open(server.url)
    page.press("#start-camera")
    wait_until(lambda: page.bars())
    pictures = page.chrome.execute_async_script(
        """const done = arguments[0];
        const later = (ms) => new Promise((go) => setTimeout(go, ms));
        const {toBlob} = HTMLCanvasElement.prototype;
        let asked = 0;
        HTMLCanvasElement.prototype.toBlob = function (take, ...how) {
            asked += 1;
            toBlob.call(this, async (blob) => { await later(300); take(blob); }, ...how);
        };
        import("/capture.js").then(async ({Capture}) => {
            const taken = [];
            const capture = new Capture(document.querySelector("video"), () => taken.push(1));
            capture.start(() => performance.now());
            await later(200);
            const while_it_ran = asked;
            capture.stop();
            await later(500);
            HTMLCanvasElement.prototype.toBlob = toBlob;
            done([while_it_ran > 0, taken.length]);
        });"""
    )
    assert pictures == [True, 0]
    page.press("#stop")
    page.wait_for_state("ready")


def test_page_without_storage_takes_the_key_and_connects(
    page_without_storage: Page, server_with_key: PageServer
) -> None:
    page = page_without_storage
    page.chrome.get(server_with_key.url)
    wait_until(lambda: page.run("return document.body.dataset.prepared"))
    page.press("#start-camera")
    wait_until(lambda: page.run("return document.querySelector('#key-dialog').open"))
    page.all("#key")[0].send_keys(f"{KEY}\n")
    page.wait_for_state("live")
    assert page.console() == []
