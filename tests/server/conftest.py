"""Fixtures of the server's tests: a fake encoder, a detector, a real server on loopback."""

import contextlib
import logging
import os
from collections.abc import AsyncIterator

import pytest

from ovoad_model.detector import Detector
from ovoad_model.scorers import average_scorer, cluster_scorer, frame_scorer

from .bench import Bench
from .harness import ColourEncoder, Serve, Server, serving


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take OVOAD_* of the surroundings away."""
    for name in list(os.environ):
        if name.startswith("OVOAD_"):
            monkeypatch.delenv(name)


@pytest.fixture
def encoder() -> ColourEncoder:
    return ColourEncoder()


@pytest.fixture
def detector(encoder: ColourEncoder) -> Detector:
    return Detector(
        encoder, (average_scorer(encoder), frame_scorer(encoder), cluster_scorer(encoder))
    )


@pytest.fixture
async def bench(detector: Detector) -> AsyncIterator[Bench]:
    """Return an engine that is not running yet; its batches hold at most 4 frames."""
    bench = Bench(detector, max_batch=4)
    yield bench
    bench.worker.close()


@pytest.fixture
def serve(detector: Detector) -> Serve:
    """Return a context manager: a real server with the settings given."""

    @contextlib.asynccontextmanager
    async def start(**settings: object) -> AsyncIterator[Server]:
        async with serving(detector, **settings) as server:
            yield server

    return start


@pytest.fixture
def serve_undisturbed(serve: Serve, caplog: pytest.LogCaptureFixture) -> Serve:
    """Return a server that must bear what the test does to it.

    A neighbour's session is answered as before; afterwards no session, frame or connection is
    left, and nothing was logged as an error.
    """

    @contextlib.asynccontextmanager
    async def start(**settings: object) -> AsyncIterator[Server]:
        async with serve(**settings) as server:
            async with server.session() as neighbour:
                await neighbour.frame(0)
                before = await neighbour.receive()
                yield server
                await neighbour.frame(1)
                after = await neighbour.receive()
                assert getattr(before, "probabilities", None) is not None, before
                assert getattr(after, "probabilities", None) == getattr(
                    before, "probabilities", None
                )
                closed = await neighbour.close()
                assert (closed.received, closed.predicted) == (2, 2)
            await server.is_empty()
        assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []

    return start
