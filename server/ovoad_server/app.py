"""The HTTP side: routes, errors, start and stop of the engine. Knows no model."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, Response, Security, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException

from ovoad_client import protocol
from ovoad_server import description
from ovoad_server.auth import key_matches
from ovoad_server.clips.routes import add_clips
from ovoad_server.health import Health, Readiness
from ovoad_server.hub import Hub
from ovoad_server.page import add_page, find_page_folder, find_sample
from ovoad_server.stream import serve_stream


class Alive(BaseModel):
    """The process runs."""

    status: str = "alive"


def create_app(hub: Hub, health: Health) -> FastAPI:
    """Build the application around parts that are made elsewhere."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(hub.engine.run())
        yield
        hub.finish_all()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    app = FastAPI(
        title="ovoad",
        summary=description.SUMMARY,
        description=description.DESCRIPTION,
        version=description.VERSION,
        openapi_tags=description.TAGS,
        responses=description.errors(500),
        docs_url=None,  # FastAPI's would load its parts from another host; ours is the page's
        redoc_url=None,
        lifespan=lifespan,
    )
    for kind in (StarletteHTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _error_response)
    _add_health_routes(app, hub, health)
    _add_protected_routes(app, hub)
    key_required = hub.settings.api_key is not None
    description.add_stream_document(app, key_required=key_required)
    folder = find_page_folder()
    if folder is not None:
        add_page(app, folder, key_required=key_required, sample=find_sample())
    return app


def _add_health_routes(app: FastAPI, hub: Hub, health: Health) -> None:
    @app.get("/healthz", tags=["health"], responses=description.ALIVE)
    async def alive() -> Alive:
        """Tell that the process runs."""
        return Alive()

    responses = {**description.READY, 503: {"model": Readiness, **description.NOT_READY}}

    @app.get("/readyz", tags=["health"], responses=responses)
    async def ready(response: Response) -> Readiness:
        """Tell whether the model still answers right."""
        if hub.draining:
            readiness = Readiness(ready=False, reason="the server is about to stop")
        else:
            readiness = await health.check(hub.engine)
        if not readiness.ready:
            response.status_code = 503
        return readiness


def _add_protected_routes(app: FastAPI, hub: Hub) -> None:
    def require_key(request: Request, _: Annotated[object, Security(description.BEARER)]) -> None:
        key = hub.settings.api_key
        if not key_matches(request.headers, key.get_secret_value() if key else None):
            raise HTTPException(
                401,
                "found no valid API key, expected the header Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )

    guarded = [Depends(require_key)]

    @app.get("/v1/config", tags=["stream"], dependencies=guarded, responses=description.GRANTED)
    async def config() -> protocol.ServerConfig:
        """Return what `session.created` would grant."""
        return hub.config()

    @app.get(
        "/metrics",
        tags=["monitoring"],
        dependencies=guarded,
        response_class=Response,
        responses=description.METRICS,
    )
    async def metrics() -> Response:
        """Return metrics in Prometheus's text format."""
        hub.metrics.refresh(hub.state())
        return Response(generate_latest(hub.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    add_clips(app, hub, guard=Depends(require_key))

    @app.websocket("/v1/stream")
    async def stream(websocket: WebSocket) -> None:
        await serve_stream(websocket, hub)


def _error_response(request: Request, error: Exception) -> Response:
    """Return errors in the one shape that design and docs promise."""
    match error:
        case StarletteHTTPException():  # FastAPI's is a child of it
            codes = {401: "unauthorised", 404: "not_found", 405: "method_not_allowed"}
            code = codes.get(error.status_code, "error")
            return _error_json(error.status_code, code, error.detail, headers=error.headers)
        case RequestValidationError():
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            return _error_json(422, "bad_request", f"{place}: {first['msg']}")
        case _:
            return _error_json(500, "internal", "the server failed; its log says why")


def _error_json(
    status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None
) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)
