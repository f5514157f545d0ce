"""The worker as a process of its own: build the model, then do what the server asks until it goes.

Three places of work: this thread reads, one thread infers in turn, one embeds words beside it.
Started as `python -m ovoad_server.engine.worker_process FD`.
"""

import logging
import os
import pkgutil
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

from ovoad_server.engine.inference import Inference
from ovoad_server.engine.interface import (
    Detector,
    ScoredBatch,
    Vocabulary,
    WindowView,
    WordsRequest,
)
from ovoad_server.engine.worker_link import (
    Call,
    Embedded,
    Ready,
    Result,
    Setup,
    StartFailed,
    pack,
    receive,
)
from ovoad_server.logs import configure_logs

log = logging.getLogger(__name__)


def main() -> None:
    """Serve one end of a socket pair, given by its number."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to whole groups; the server handles them
        signal.signal(number, signal.SIG_IGN)
    end = socket.socket(fileno=int(sys.argv[1]))
    configure_logs(sys.argv[2])
    setup: Setup = receive(end)
    try:
        detector: Detector = pkgutil.resolve_name(setup.factory)(**setup.arguments)
        inference = Inference(
            detector, decode_threads=setup.decode_threads, max_pixels=setup.max_pixels
        )
        ready = Ready(detector.facts, inference.probe(), inference.measure())
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith("ovoad_"):
            log.exception("the model could not be built")
        end.sendall(pack(StartFailed(str(error) or type(error).__name__)))
        return
    end.sendall(pack(ready))
    _Desk(end, detector, inference).work()


class _Desk:
    """Hands each call to the thread that it belongs to and sends the results back."""

    def __init__(self, end: socket.socket, detector: Detector, inference: Inference) -> None:
        self._end = end
        self._detector = detector
        self._inference = inference
        self._sending = Lock()
        self._words: dict[int, Vocabulary] = {}
        self._inferring = ThreadPoolExecutor(1, "ovoad-infer")
        self._embedding = ThreadPoolExecutor(1, "ovoad-text")

    def work(self) -> None:
        """Read calls until the server is gone, then end at once whatever is under way."""
        try:
            while True:
                self._take(receive(self._end))
        except (EOFError, OSError):
            os._exit(0)

    def _take(self, call: Call) -> None:
        match call.method:
            case "drop":
                for number in call.arguments[0]:
                    self._words.pop(number, None)
            case "embed":
                self._embedding.submit(self._answer, call, self._embed)
            case "score":
                self._inferring.submit(self._answer, call, self._score)
            case "encode":
                self._inferring.submit(self._answer, call, self._inference.encode)
            case "probe":
                self._inferring.submit(self._answer, call, self._inference.probe)
            case "beat":
                self._inferring.submit(self._answer, call, lambda: None)

    def _answer(self, call: Call, work: Callable[..., Any]) -> None:
        """Do a call; whatever it raises goes back as its result."""
        try:
            result = Result(call.number, work(*call.arguments))
        except Exception as error:
            log.exception("%s failed", call.method)
            result = Result(call.number, fault=type(error).__name__)
        data = pack(result)
        with self._sending:
            self._end.sendall(data)

    def _embed(self, number: int, words: WordsRequest) -> Embedded:
        vocabulary = self._inference.embed(words)
        self._words[number] = vocabulary
        return Embedded(vocabulary.labels, vocabulary.warnings, self._detector.text_counts)

    def _score(self, views: list[WindowView], numbers: list[int]) -> ScoredBatch:
        return self._inference.score(views, [self._words[number] for number in numbers])


if __name__ == "__main__":
    main()
