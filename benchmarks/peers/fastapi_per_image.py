"""A plain FastAPI endpoint: POST a JPEG to /predict, get the scores of that image.

    python benchmarks/peers/fastapi_per_image.py PORT AT_ONCE LABEL …

Written as one writes it today: the model loads once, the work runs in threads, AT_ONCE images at a
time (1: each image has all cores; as many as cores: more requests under way than one).
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import uvicorn
from fastapi import FastAPI, Request
from image_scores import ImageScores, decode, to_answer
from starlette.concurrency import run_in_threadpool


def create_app(labels: list[str], at_once: int) -> FastAPI:
    """Return the application."""
    model = ImageScores(labels)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = at_once
        yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/health")
    async def health() -> str:
        return "ok"

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        return await run_in_threadpool(answer, await request.body())

    def answer(jpeg: bytes) -> dict[str, Any]:
        return to_answer(model.score([decode(jpeg)])[0])

    return app


if __name__ == "__main__":
    port, at_once, *labels = sys.argv[1:]
    uvicorn.run(
        create_app(labels, int(at_once)), host="127.0.0.1", port=int(port), log_level="warning"
    )
