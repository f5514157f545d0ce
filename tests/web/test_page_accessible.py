"""The page for everyone: axe-core's rules in each state, keyboard, screen reader, less motion."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .page_harness import (
    KEY,
    REPOSITORY,
    Page,
    PageServer,
    has_clips,
    running_page_server,
    wait_until,
)

AXE = REPOSITORY / "node_modules" / "axe-core" / "axe.min.js"
LABELS = ["playing guitar", "juggling a soccer ball"]
LOOKS = [("light", 1280), ("light", 320), ("dark", 1280), ("dark", 320)]
TAB, BACKSPACE, ESCAPE = "\ue004", "\ue003", "\ue00c"
needs_axe = pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed: npm install")
pytestmark = pytest.mark.slow


def violations(page: Page) -> list[str]:
    """Return what axe-core finds, each with the elements it names."""
    page.run(AXE.read_text())
    found: list[dict[str, Any]] = page.chrome.execute_async_script(
        "axe.run({iframes: false}).then((result) => arguments[0](result.violations))"
    )
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found]


def looks(page: Page) -> Iterator[str]:
    """Show the page light and dark, on a desk and on a phone, and name each look."""
    for scheme, width in LOOKS:
        page.media(prefers_color_scheme=scheme)
        page.size(width, 800)
        yield f"{scheme}-{width}"


def check_all_looks(page: Page, name: str) -> None:
    for look in looks(page):
        assert violations(page) == [], look
        assert page.run("return document.documentElement.scrollWidth <= innerWidth"), look
        page.screenshot(f"{name}-{look}")


@needs_axe
def test_axe_finds_nothing_before_the_start(page: Page, server: PageServer) -> None:
    page.open(server.url)
    check_all_looks(page, "first")
    page.press("#advanced summary")
    page.write_label(1, "drinking from a cup")  # a repeated one, complained about
    assert page.text("#words-note").endswith("once is enough.")
    check_all_looks(page, "advanced")


@needs_axe
def test_axe_finds_nothing_while_it_runs(page: Page, server: PageServer) -> None:
    page.open(server.url, labels=[*LABELS, "cooking soup"])
    page.press("#start-camera")
    wait_until(lambda: page.text("#model") and page.text("#speed-fps") not in ("", "–"))
    wait_until(lambda: set(page.bars()) == {*LABELS, "cooking soup", "none of these"})
    wait_until(lambda: len(page.all("#past .filled")) >= 1)
    if has_clips():
        wait_until(lambda: page.all(".event"))
    check_all_looks(page, "live")
    page.press("#pause")
    page.wait_for_state("paused")
    check_all_looks(page, "paused")
    page.press("#stop")
    page.wait_for_state("ready")
    check_all_looks(page, "stopped")
    assert page.console() == []


@needs_axe
def test_axe_finds_nothing_in_the_dialog_for_the_key(
    page: Page, server_with_key: PageServer
) -> None:
    page.open(server_with_key.url)
    page.press("#start-camera")
    dialog = page.all("#key-dialog")[0]
    wait_until(dialog.is_displayed)
    check_all_looks(page, "key")
    page.all("#key")[0].send_keys("wrong-key\n")
    wait_until(lambda: page.text("#key-why").startswith("The server does not know that key"))
    wait_until(dialog.is_displayed)
    check_all_looks(page, "key-wrong")
    page.all("#key")[0].send_keys(f"{KEY}\n")
    page.wait_for_state("live")


@needs_axe
def test_axe_finds_nothing_while_it_waits_and_when_it_is_back(page: Page, tmp_path: Path) -> None:
    with running_page_server(tmp_path) as server:
        page.open(server.url, labels=LABELS)
        page.press("#start-camera")
        wait_until(lambda: page.bars())
        server.stop()
        page.wait_for_state("waiting")
        check_all_looks(page, "waiting")
        server.start()
        page.run("document.querySelector('#retry').click()")
        wait_until(lambda: page.all("#good-news")[0].is_displayed())
        assert violations(page) == []


def test_rows_are_edited_with_the_keyboard_alone(page: Page, server: PageServer) -> None:
    page.open(server.url, labels=["waving"])
    page.all("#rows input")[0].send_keys("\n")
    page.chrome.switch_to.active_element.send_keys("jumping\n")
    assert [field.get_attribute("value") for field in page.all("#rows input")] == [
        "waving",
        "jumping",
        "",
    ]
    page.chrome.switch_to.active_element.send_keys(BACKSPACE)
    assert len(page.all("#rows input")) == 2
    page.all("#rows input")[1].clear()
    page.all("#rows input")[1].send_keys("waving\t")
    assert page.text("#words-note") == "“waving” is there twice; once is enough."
    names = [button.get_attribute("aria-label") for button in page.all(".remove")]
    assert names == ["Remove action 1: waving", "Remove action 2: waving"]


def focused(page: Page) -> str:
    return str(page.run("return document.activeElement.id"))


def test_focus_follows_the_buttons_that_come_and_go(page: Page, server: PageServer) -> None:
    page.open(server.url)
    page.chrome.switch_to.active_element.send_keys(TAB)
    assert page.run("return document.activeElement.className") == "skip"
    page.all("#start-camera")[0].send_keys("\n")
    wait_until(lambda: focused(page) == "pause")
    wait_until(lambda: page.bars())
    page.chrome.switch_to.active_element.send_keys(TAB)
    assert focused(page) == "stop"
    page.chrome.switch_to.active_element.send_keys("\n")
    wait_until(lambda: focused(page) == "start-camera")


def test_key_dialog_is_left_with_escape(page: Page, server_with_key: PageServer) -> None:
    page.open(server_with_key.url)
    page.all("#start-camera")[0].send_keys("\n")
    wait_until(lambda: focused(page) == "key")
    page.chrome.switch_to.active_element.send_keys(ESCAPE)
    wait_until(lambda: focused(page) == "start-camera")
    assert page.state() == "ready"


def test_screen_readers_are_told_little(page: Page, server: PageServer) -> None:
    page.open(server.url, labels=LABELS)
    page.count(
        "told",
        """for (const region of document.querySelectorAll("[role=status],[role=alert],[aria-live]"))
            new MutationObserver(more).observe(region,
                {childList: true, characterData: true, subtree: true});""",
    )
    page.press("#start-camera")
    wait_until(lambda: page.bars())
    time.sleep(4.0)  # of running: only events may be told, one in three seconds at most
    assert 1 <= page.counted("told") <= 10


def test_bars_do_not_glide_for_those_who_want_no_motion(page: Page, server: PageServer) -> None:
    page.open(server.url)
    glide = "return getComputedStyle(document.querySelector('.fill')).transitionDuration"
    assert page.run(glide) == "0.12s"
    page.media(prefers_reduced_motion="reduce")
    assert page.run(glide) == "0s"
