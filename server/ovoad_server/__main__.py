"""`ovoad serve`: the one place where settings, model, engine and application meet.

numpy's BLAS gets one thread before it is imported: its products here are small, and several threads
would fight the encoder's for the same cores (measured on two: 24 to 35 ms against 0.1 ms).
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

from ovoad_model.build import build_detector
from ovoad_model.detector import Detector
from ovoad_model.errors import ModelError
from ovoad_model.window import FPS, NEIGHBOURS, PAST
from ovoad_server.app import create_app
from ovoad_server.engine.engine import Engine
from ovoad_server.health import Health
from ovoad_server.hub import Hub, ModelFacts
from ovoad_server.listener import open_listener, uvicorn_config
from ovoad_server.metrics import Metrics
from ovoad_server.settings import Settings


def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = _settings(argv)
        listener = open_listener(settings)
        detector = build_detector(
            encoder=settings.encoder,
            scorer=settings.scorer,
            weights=settings.weights,
            runtime=settings.runtime,
            cache=settings.cache,
        )
    except (ModelError, OSError, ValidationError) as error:
        print(f"ovoad serve: {_reason(error)}", file=sys.stderr)
        return 1
    with listener:
        asyncio.run(_serve(settings, listener, detector))
    return 0


def _settings(argv: list[str] | None) -> Settings:
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
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value}
    if vars(parser.parse_args(argv))["port"] == 0:
        given["port"] = 0
    return Settings(**given)


async def _serve(settings: Settings, listener: socket.socket, detector: Detector) -> None:
    metrics = Metrics()
    engine = Engine(
        detector,
        max_batch=settings.max_batch,
        decode_threads=settings.decode_threads,
        max_pixels=settings.max_pixels,
        observe=metrics.observe_batch,
    )
    facts = _facts(detector)
    metrics.model.info({"encoder": facts.encoder, "fingerprint": facts.fingerprint})
    app = create_app(Hub(settings, engine, facts, metrics), Health(detector))
    server = uvicorn.Server(uvicorn_config(app, settings))
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again once it has stopped
        signal.signal(number, signal.SIG_IGN)
    announcing = asyncio.create_task(_announce(server, settings, listener))
    await server.serve(sockets=[listener])
    announcing.cancel()


async def _announce(server: uvicorn.Server, settings: Settings, listener: socket.socket) -> None:
    """Print one line that people and programs can wait for."""
    while not server.started:
        await asyncio.sleep(0.01)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    port = listener.getsockname()[1]
    print(f"ovoad_server listening on http://{host}:{port}", flush=True)


def _facts(detector: Detector) -> ModelFacts:
    encoder, cache = detector.encoder, detector.text_cache
    return ModelFacts(
        encoder=encoder.name,
        fingerprint=encoder.fingerprint,
        scorers=detector.scorer_names,
        languages=encoder.languages,
        templates=encoder.templates,
        background=detector.background,
        fps=FPS,
        past=PAST,
        neighbours=NEIGHBOURS,
        text_counts=lambda: (0, 0) if cache is None else (cache.hits, cache.misses),
    )


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg']}" if place else str(first["ctx"]["error"])
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
