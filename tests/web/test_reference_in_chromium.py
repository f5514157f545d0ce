"""The reference at /docs in Chromium: whole under the strict policy, nothing from elsewhere."""

import hashlib
from pathlib import Path

import pytest

from .page_harness import Page, PageServer, wait_until

SWAGGER = Path(__file__).resolve().parents[2] / "clients" / "web" / "vendor" / "swagger-ui"


@pytest.mark.slow
def test_reference_shows_routes_and_messages(server: PageServer, page: Page) -> None:
    page.console()
    page.chrome.get(f"{server.url}/docs")
    wait_until(lambda: page.all(".opblock") and page.all("#messages details"))
    assert page.console() == []
    shown = [block.text for block in page.all(".opblock-summary-path")]
    assert {"/healthz", "/readyz", "/v1/config", "/metrics"} <= {path.strip() for path in shown}
    assert len(page.all("#messages details")) == 17
    assert len(page.all("#closes tbody tr")) == 8
    loaded = page.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert loaded
    assert [name for name in loaded if not name.startswith((server.url, "data:"))] == []


@pytest.mark.slow
def test_a_route_can_be_tried(server: PageServer, page: Page) -> None:
    page.chrome.get(f"{server.url}/docs")
    wait_until(lambda: page.all("#operations-health-alive_healthz_get"))
    page.press("#operations-health-alive_healthz_get .opblock-summary-control")
    wait_until(lambda: page.all(".try-out__btn"))
    page.press(".try-out__btn")
    wait_until(lambda: page.all(".execute"))
    page.press(".execute")
    wait_until(lambda: "alive" in page.text(".live-responses-table"))
    assert page.console() == []


def test_swagger_ui_is_as_it_was_fetched() -> None:
    lines = (SWAGGER / "SHA256SUMS").read_text().splitlines()
    sums = {name: expected for expected, name in (line.split() for line in lines)}
    assert {"swagger-ui-bundle.js", "swagger-ui.css", "LICENSE", "NOTICE"} <= set(sums)
    for name, expected in sums.items():
        assert hashlib.sha256((SWAGGER / name).read_bytes()).hexdigest() == expected, name
