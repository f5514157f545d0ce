"""Which model worker processes and replicas build, by name: nothing here imports it."""

import pkgutil
from typing import Any, Final

from ovoad_server.engine.interface import Window
from ovoad_server.engine.worker_link import Setup
from ovoad_server.settings import Settings

FACTORY: Final = "ovoad_model.build:build_detector"
WINDOW: Final = "ovoad_model.window:Window"


def detector_setup(settings: Settings) -> Setup:
    """Return what to build, and how."""
    return Setup(
        factory=FACTORY,
        arguments={
            "encoder": settings.encoder,
            "scorer": settings.scorer,
            "weights": settings.weights,
            "runtime": settings.runtime,
            "cache": settings.cache,
        },
        decode_threads=settings.decode_threads,
        max_pixels=settings.max_pixels,
    )


def open_window(feature_width: int) -> Window:
    """Return an empty window of the model's."""
    made: Any = pkgutil.resolve_name(WINDOW)
    window: Window = made(feature_width)
    return window
