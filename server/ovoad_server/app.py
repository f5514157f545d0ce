"""The HTTP side: routes, errors, start and stop of the engine. Knows no model."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import Depends, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from ovoad_client import protocol
from ovoad_server.auth import key_matches
from ovoad_server.health import Health, Readiness
from ovoad_server.hub import Hub
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
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    app = FastAPI(
        title="ovoad",
        summary="Real-time open-vocabulary online action detection",
        version="1",
        lifespan=lifespan,
    )
    app.add_exception_handler(HTTPException, _error_response)
    _add_health_routes(app, hub, health)
    _add_protected_routes(app, hub)
    return app


def _add_health_routes(app: FastAPI, hub: Hub, health: Health) -> None:
    @app.get("/healthz")
    async def alive() -> Alive:
        """Tell that the process runs."""
        return Alive()

    @app.get("/readyz", responses={503: {"model": Readiness}})
    async def ready(response: Response) -> Readiness:
        """Tell whether the model still answers right."""
        readiness = await health.check(hub.engine)
        if not readiness.ready:
            response.status_code = 503
        return readiness


def _add_protected_routes(app: FastAPI, hub: Hub) -> None:
    def require_key(request: Request) -> None:
        key = hub.settings.api_key
        if not key_matches(request.headers, key.get_secret_value() if key else None):
            raise HTTPException(
                401,
                "found no valid API key, expected the header Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )

    @app.get("/v1/config", dependencies=[Depends(require_key)])
    async def config() -> protocol.ServerConfig:
        """Return what `session.created` would grant."""
        return hub.config()

    @app.get("/metrics", dependencies=[Depends(require_key)])
    async def metrics() -> Response:
        """Return metrics in Prometheus's text format."""
        hub.metrics.waiting.set(hub.engine.waiting)
        return Response(generate_latest(hub.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.websocket("/v1/stream")
    async def stream(websocket: WebSocket) -> None:
        await serve_stream(websocket, hub)


def _error_response(request: Request, error: Exception) -> Response:
    """Return errors in the one shape that design and docs promise."""
    assert isinstance(error, HTTPException)
    code = {401: "unauthorised", 404: "not_found", 405: "method_not_allowed"}
    body = {"error": {"code": code.get(error.status_code, "error"), "message": str(error.detail)}}
    return JSONResponse(body, error.status_code, headers=error.headers)
