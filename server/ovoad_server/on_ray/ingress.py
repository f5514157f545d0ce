"""An ingress replica: sessions, engine and listener of the server, with the model elsewhere.

The application is that of `ovoad serve`, on uvicorn, in this process. Ray Serve starts, watches,
counts and stops it; connections do not go through Serve's proxy.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from starlette.responses import PlainTextResponse, Response

from ovoad_server.app import create_app
from ovoad_server.detector import open_window
from ovoad_server.draining import DrainingServer
from ovoad_server.engine.batches import BatchRecord
from ovoad_server.engine.capacity import CostModel
from ovoad_server.engine.engine import Engine
from ovoad_server.engine.worker_link import Ready
from ovoad_server.health import Health
from ovoad_server.hub import Hub
from ovoad_server.keys.keyring import open_keyring
from ovoad_server.listener import uvicorn_config
from ovoad_server.logs import configure_logs, hide_in_logs
from ovoad_server.metrics import Metrics
from ovoad_server.on_ray.handles import EncoderHandle
from ovoad_server.on_ray.listening import open_listeners, own_settings
from ovoad_server.on_ray.worker import Encoders, RemoteWorker
from ovoad_server.outward.outward import open_outward
from ovoad_server.settings import Settings
from ovoad_server.tracing import Tracing, open_exporter

log = logging.getLogger(__name__)
POLL_S: Final = 0.02


class IngressReplica:
    """One server of the many. `encoder` is Serve's handle to the encoder deployment.

    most_encoders: how many encoder replicas there may be; so many times a replica's lanes is what
    this one keeps under way.
    """

    def __init__(self, encoder: Any, *, most_encoders: int = 1) -> None:
        self._most_encoders = most_encoders
        self._hub: Hub | None = None
        self._stop = asyncio.Event()
        self._started = asyncio.Event()
        self._life = asyncio.create_task(self._live(EncoderHandle(encoder)), name="ovoad ingress")

    # ---- what Ray Serve calls -------------------------------------------------------------------

    async def check_health(self) -> None:
        """Return once the replica listens; raise where it serves no more: Serve replaces it."""
        started = asyncio.create_task(self._started.wait())
        await asyncio.wait({started, self._life}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._life.done():
            await self._life
            raise RuntimeError("the server has ended")
        if self._hub is None or not self._hub.engine.running:
            raise RuntimeError("the scheduler has stopped")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell how many sessions are open, for `by_sessions`."""
        return {"sessions": 0.0 if self._hub is None else float(self._hub.slots.used)}

    async def __call__(self, request: object) -> Response:
        """Answer what comes through Serve's own proxy, where there is one: it is the wrong door."""
        return PlainTextResponse("found a request to Ray Serve's proxy, expected OVOAD_PORT", 421)

    async def __del__(self) -> None:
        """Drain and end; Ray Serve waits for it before it stops the process."""
        self._stop.set()
        with contextlib.suppress(asyncio.CancelledError):
            await self._life

    # ---- its life -------------------------------------------------------------------------------

    async def _live(self, encoders: Encoders) -> None:
        """Serve until stopped."""
        if type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
            raise RuntimeError("found uvloop, expected RAY_USE_UVLOOP=0 where Ray is started")
        settings = Settings()
        configure_logs(settings.log_format)
        if settings.api_key is not None:
            hide_in_logs([settings.api_key.get_secret_value()])
        with open_listeners(settings) as (shared, own):
            settings = own_settings(settings, own)
            ready = await encoders.describe()
            async with self._hub_around(encoders, ready, settings) as hub:
                await self._serve(hub, ready, [shared, own])

    @contextlib.asynccontextmanager
    async def _hub_around(
        self, encoders: Encoders, ready: Ready, settings: Settings
    ) -> AsyncIterator[Hub]:
        """Make what all connections share."""
        metrics, facts = Metrics(), ready.facts
        worker = RemoteWorker(
            encoders, ready, timeout_s=settings.worker_timeout_s, on_loss=metrics.observe_loss
        )
        metrics.model.info({"encoder": facts.encoder, "fingerprint": facts.fingerprint})
        metrics.watch_processes(lambda: None)  # there is none beside this one
        with _open_tracing(settings, facts.encoder) as tracing, open_outward(settings) as outward:
            if outward is not None:
                metrics.registry.register(outward.collector)
            engine = Engine(
                worker,
                open_window=lambda: open_window(facts.feature_width),
                cost=CostModel.from_trial(ready.costs),
                max_batch=settings.max_batch,
                lanes=facts.lanes * self._most_encoders,
                latency_budget_ms=settings.latency_budget_ms,
                observe=lambda record: _observe(record, metrics, tracing),
            )
            watching = asyncio.create_task(worker.run(), name="ovoad heartbeat")
            try:
                keyring = open_keyring(settings)
                yield Hub(settings, engine, facts, metrics, watcher=outward, keyring=keyring)
            finally:
                watching.cancel()

    async def _serve(self, hub: Hub, ready: Ready, listeners: list[socket.socket]) -> None:
        """Listen until stopped, then drain: newcomers go to other replicas meanwhile."""
        drain_s = hub.settings.drain_s
        server = DrainingServer(
            uvicorn_config(create_app(hub, Health(ready.golden)), hub.settings),
            drain=lambda grace_s: hub.drain(serve_on_s=grace_s / 2, settle_s=drain_s / 2),
            grace_s=drain_s,
        )
        serving = asyncio.create_task(server.serve(sockets=listeners), name="ovoad listener")
        while not server.started and not serving.done():
            await asyncio.sleep(POLL_S)
        self._hub = hub
        self._started.set()
        ports = [listener.getsockname()[1] for listener in listeners]
        log.info("an ingress replica listens at port %d, and alone at port %d", *ports)
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            for listening in server.servers:
                listening.close()
            await hub.drain(serve_on_s=drain_s / 2, settle_s=drain_s / 2)
            server.should_exit = True
        stopping.cancel()
        await serving


@contextlib.contextmanager
def _open_tracing(settings: Settings, encoder: str) -> Iterator[Tracing | None]:
    if settings.traces is None:
        yield None
        return
    tracing = Tracing(
        open_exporter(str(settings.traces)), encoder=encoder, share=settings.traces_share
    )
    try:
        yield tracing
    finally:
        tracing.close()


def _observe(record: BatchRecord, metrics: Metrics, tracing: Tracing | None) -> None:
    metrics.observe_batch(record)
    if tracing is not None:
        tracing.observe(record)
