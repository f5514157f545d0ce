"""The page's routes: which files are reachable, under which headers, and what the page is told."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from ovoad_server.page import (
    Sample,
    add_page,
    content_security_policy,
    find_page_folder,
    find_sample,
)


def get_folder() -> Path:
    folder = find_page_folder()
    assert folder is not None
    return folder


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host:8000")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    add_page(app, get_folder())
    async with client_of(app) as opened:
        yield opened


async def test_page_comes_with_a_strict_policy(client: httpx.AsyncClient) -> None:
    response = await client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"].split("; ")
    assert policy[0] == "default-src 'none'"
    assert "script-src 'self'" in policy
    assert "connect-src 'self' ws://host:8000 wss://host:8000" in policy
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/main.js", "text/javascript; charset=utf-8"),
        ("/ovoad.js", "text/javascript; charset=utf-8"),
        ("/vendor/uPlot.esm.js", "text/javascript; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ],
)
async def test_parts_of_the_page_are_there(
    client: httpx.AsyncClient, path: str, content_type: str
) -> None:
    response = await client.get(path)
    assert (response.status_code, response.headers["content-type"]) == (200, content_type)
    assert "content-security-policy" in response.headers


async def test_unchanged_files_are_not_sent_again(client: httpx.AsyncClient) -> None:
    first = await client.get("/main.js")
    again = await client.get("/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/tsconfig.json",
        "/vendor/SHA256SUMS",
        "/vendor/refresh.sh",
        "/..%2f..%2fpyproject.toml",
        "/sample.mp4",
        "/vendor/",
    ],
)
async def test_nothing_else_is_reachable(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


async def test_every_file_that_the_page_names_is_served(client: httpx.AsyncClient) -> None:
    scripts = [path for path in get_folder().glob("*.js")]
    named = {line.split('"')[-2] for path in scripts for line in imports(path)}
    assert "./vendor/uPlot.esm.js" in named
    for name in named:
        assert (await client.get(name.removeprefix("."))).status_code == 200, name


def imports(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    return [line for line in lines if line.startswith(("import ", "export *", "} from"))]


async def test_page_is_told_of_sample_and_key(tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    video.write_bytes(bytes(range(100)))
    app = FastAPI()
    add_page(app, get_folder(), key_required=True, sample=Sample(video, ("waving",)))
    async with client_of(app) as client:
        assert (await client.get("/page.json")).json() == {
            "key_required": True,
            "sample": {"url": "sample.mp4", "labels": ["waving"]},
        }
        part = await client.get("/sample.mp4", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
    assert part.headers["content-type"] == "video/mp4"


async def test_page_is_told_of_no_sample(client: httpx.AsyncClient) -> None:
    assert (await client.get("/page.json")).json() == {"key_required": False, "sample": None}


@pytest.mark.parametrize("host", ["a b", "x;script-src *", "h'", "", "h:1:2", "[::1"])
def test_a_strange_host_header_adds_nothing_to_the_policy(host: str) -> None:
    assert "connect-src 'self';" in content_security_policy(host)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "cam-1.example"])
def test_the_servers_own_socket_is_allowed(host: str) -> None:
    assert f"connect-src 'self' ws://{host} wss://{host};" in content_security_policy(host)


def test_sample_is_a_file_or_nothing() -> None:
    sample = find_sample()
    assert sample is None or (sample.path.is_file() and sample.labels)
