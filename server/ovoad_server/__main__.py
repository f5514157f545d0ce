"""`ovoad serve`: the one place where settings, worker, engine and application meet.

The model is built in the worker's process. numpy's BLAS gets one thread before it is imported: its
products here are small, and several threads would fight the encoder's for the same cores (measured
on two: 24 to 35 ms against 0.1 ms).
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import uvicorn
from pydantic import ValidationError

from ovoad_model.window import Window
from ovoad_server.app import create_app
from ovoad_server.detector import detector_setup
from ovoad_server.draining import DrainingServer
from ovoad_server.engine.batches import BatchRecord
from ovoad_server.engine.capacity import CostModel
from ovoad_server.engine.engine import Engine
from ovoad_server.engine.worker import WorkerProcess, WorkerStartError
from ovoad_server.health import Health
from ovoad_server.hub import Hub
from ovoad_server.keys.file import KeysFileError
from ovoad_server.keys.keyring import Keyring, open_keyring
from ovoad_server.listener import open_listener, uvicorn_config
from ovoad_server.logs import LogFormat, configure_logs, hide_in_logs
from ovoad_server.metrics import Metrics
from ovoad_server.on_ray.command import OnRayError, serve_on_ray
from ovoad_server.outward.errors import OutwardError
from ovoad_server.outward.outward import Outward, open_outward
from ovoad_server.settings import Settings
from ovoad_server.tracing import MissingTracingError, Tracing, open_exporter

log = logging.getLogger("ovoad_server")


def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted; returns the exit status."""
    log_format: LogFormat = "text"
    try:
        settings, on_ray = _settings(argv)
        log_format = settings.log_format
        configure_logs(log_format)
        if settings.api_key is not None:
            hide_in_logs([settings.api_key.get_secret_value()])
        keyring = open_keyring(settings)
        if on_ray:
            serve_on_ray(settings)
            return 0
        with open_listener(settings) as listener, open_outward(settings) as outward:
            asyncio.run(_serve(settings, listener, outward, keyring))
    except (
        WorkerStartError,
        MissingTracingError,
        OutwardError,
        OnRayError,
        KeysFileError,
        OSError,
        ValidationError,
    ) as error:
        if log_format == "json":
            log.critical("%s", _reason(error))
        else:
            print(f"ovoad serve: {_reason(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the server took signals over
        return 128 + signal.SIGINT
    return 0


def _settings(argv: list[str] | None) -> tuple[Settings, bool]:
    """Return the settings, and whether to serve on Ray."""
    parser = argparse.ArgumentParser(
        prog="ovoad serve",
        description="Serve action detection over WebSocket and HTTP.",
        epilog="Every setting can also come from the environment, e.g. OVOAD_API_KEY, "
        "OVOAD_MAX_SESSIONS; docs/settings.md lists them.",
    )
    parser.add_argument("--host", help="address to bind (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port, 0 for a free one (8000)")
    parser.add_argument("--encoder", help="name of the encoder (embedded)")
    parser.add_argument("--scorer", choices=["frame", "average", "cluster", "ovoad"])
    parser.add_argument("--weights", help="trained weights of scorer ovoad")
    parser.add_argument("--runtime", help="what runs the encoder (auto)")
    parser.add_argument("--on", choices=["ray"], help="serve on Ray Serve (docs/scaling.md)")
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value}
    on_ray = given.pop("on", None) == "ray"
    if vars(parser.parse_args(argv))["port"] == 0:
        given["port"] = 0
    return Settings(**given), on_ray


async def _serve(
    settings: Settings, listener: socket.socket, outward: Outward | None, keyring: Keyring
) -> None:
    """Start the worker, then the server around it; raises WorkerStartError."""
    exporter = None if settings.traces is None else open_exporter(str(settings.traces))
    metrics = Metrics()
    worker = WorkerProcess(
        detector_setup(settings),
        timeout_s=settings.worker_timeout_s,
        log_format=settings.log_format,
        on_loss=metrics.observe_loss,
    )
    ready = await worker.start()
    facts = ready.facts
    tracing = None
    if exporter is not None:
        tracing = Tracing(exporter, encoder=facts.encoder, share=settings.traces_share)
    engine = Engine(
        worker,
        open_window=lambda: Window(facts.feature_width),
        cost=CostModel.from_trial(ready.costs),
        max_batch=settings.max_batch,
        lanes=facts.lanes,
        latency_budget_ms=settings.latency_budget_ms,
        observe=lambda record: _observe(record, metrics, tracing),
    )
    metrics.model.info({"encoder": facts.encoder, "fingerprint": facts.fingerprint})
    metrics.watch_processes(lambda: worker.pid)
    hub = Hub(settings, engine, facts, metrics, watcher=outward, keyring=keyring)
    if outward is not None:
        metrics.registry.register(outward.collector)
    server = DrainingServer(
        uvicorn_config(create_app(hub, Health(ready.golden)), settings),
        drain=lambda grace_s: hub.drain(serve_on_s=grace_s / 2, settle_s=settings.drain_s / 2),
        grace_s=settings.drain_s,
    )
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again once it has stopped
        signal.signal(number, signal.SIG_IGN)
    watching = asyncio.create_task(worker.run())
    announcing = asyncio.create_task(_announce(server, settings, listener))
    await server.serve(sockets=[listener])
    for task in (announcing, watching):
        task.cancel()
    await asyncio.gather(announcing, watching, return_exceptions=True)
    if tracing is not None:
        tracing.close()


def _observe(record: BatchRecord, metrics: Metrics, tracing: Tracing | None) -> None:
    metrics.observe_batch(record)
    if tracing is not None:
        tracing.observe(record)


async def _announce(server: uvicorn.Server, settings: Settings, listener: socket.socket) -> None:
    """Print one line that people and programs can wait for."""
    while not server.started:
        await asyncio.sleep(0.01)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    port = listener.getsockname()[1]
    print(f"ovoad_server listening on http://{host}:{port}", flush=True)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg']}" if place else str(first["ctx"]["error"])
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
