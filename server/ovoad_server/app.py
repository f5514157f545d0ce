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
from ovoad_server.clips.refusals import ClipRefusedError
from ovoad_server.clips.routes import add_clips
from ovoad_server.health import Health, Readiness
from ovoad_server.hub import Hub
from ovoad_server.keys.checking import Caller
from ovoad_server.page import add_page, find_page_folder, find_sample
from ovoad_server.refusals import RefusedError
from ovoad_server.stream import serve_stream


class Alive(BaseModel):
    """The process runs."""

    status: str = "alive"


def create_app(hub: Hub, health: Health) -> FastAPI:
    """Build the application around parts that are made elsewhere."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(hub.engine.run())
        following = asyncio.create_task(hub.follow_keys())
        yield
        hub.finish_all()
        for task in (following, running):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

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
    for kind in (StarletteHTTPException, RequestValidationError):
        app.add_exception_handler(kind, _error_response)

    def respond_to_fault(request: Request, error: Exception) -> Response:
        hub.metrics.faults.labels("http").inc()
        return _error_response(request, error)

    app.add_exception_handler(Exception, respond_to_fault)
    _add_health_routes(app, hub, health)
    _add_protected_routes(app, hub, health)
    key_required = hub.keyring.required
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
        readiness = await _readiness(hub, health)
        if not readiness.ready:
            response.status_code = 503
        return readiness


async def _readiness(hub: Hub, health: Health) -> Readiness:
    if hub.draining:
        return Readiness(ready=False, reason="the server is about to stop")
    return await health.check(hub.engine)


def _add_protected_routes(app: FastAPI, hub: Hub, health: Health) -> None:
    async def require_key(
        request: Request, _: Annotated[object, Security(description.BEARER)]
    ) -> Caller:
        try:
            return await hub.key_check.admit(request.headers, request.client)
        except RefusedError as refusal:
            if refusal.code == "unauthorised":
                headers = {"WWW-Authenticate": "Bearer"}
                raise HTTPException(401, str(refusal), headers=headers) from refusal
            raise ClipRefusedError.from_session(refusal) from refusal

    guarded = [Depends(require_key)]

    @app.get("/v1/config", tags=["stream"], responses=description.GRANTED)
    async def config(caller: Annotated[Caller, Depends(require_key)]) -> protocol.ServerConfig:
        """Return what `session.created` would grant to this key."""
        return hub.config(caller.key)

    @app.get(
        "/metrics",
        tags=["monitoring"],
        dependencies=guarded,
        response_class=Response,
        responses=description.METRICS,
    )
    async def metrics() -> Response:
        """Return metrics in Prometheus's text format."""
        hub.metrics.ready.set((await _readiness(hub, health)).ready)
        hub.metrics.refresh(hub.state())
        return Response(generate_latest(hub.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    add_clips(app, hub, guard=require_key)

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
