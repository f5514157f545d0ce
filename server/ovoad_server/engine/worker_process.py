"""The worker as a process of its own: build the model, then do what the server asks until it goes.

Places of work: this thread reads, at least two encode (the next batch fills the cores that the end
of one leaves idle; single frames go side by side where the encoder has lanes for them), one scores,
one embeds words.
Started as `python -m ovoad_server.engine.worker_process FD SERVER_PID LOG_FORMAT`.
"""

import ctypes
import logging
import os
import pkgutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Any, Final

import cv2

from ovoad_server.engine.inference import Inference
from ovoad_server.engine.interface import (
    Detector,
    EncodedBatch,
    Failure,
    ScoredBatch,
    Scores,
    Vocabulary,
    WindowView,
    WordsRequest,
)
from ovoad_server.engine.worker_link import (
    Call,
    Embedded,
    Method,
    Ready,
    Result,
    SentStep,
    Setup,
    StartFailed,
    pack,
    receive,
    with_words,
)
from ovoad_server.logs import configure_logs

log = logging.getLogger("ovoad_server.engine.worker_process")  # __name__ is "__main__"
PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def main() -> None:
    """Serve one end of a socket pair, given by its number."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to whole groups; the server handles them
        signal.signal(number, signal.SIG_IGN)
    _end_with_the_server(int(sys.argv[2]))
    configure_logs(sys.argv[3])
    cv2.setNumThreads(1)  # frames side by side use the cores better than parts of one frame
    end = socket.socket(fileno=int(sys.argv[1]))
    try:
        _serve(end, receive(end))
    except (EOFError, OSError):  # the server is gone: whatever is under way is for nobody
        os._exit(0)


def _end_with_the_server(server_pid: int) -> None:
    """Let Linux kill this process once the server is gone, whatever it is busy with.

    Elsewhere the closed socket ends it, once it reads again.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server_pid:
        os._exit(0)


def _serve(end: socket.socket, setup: Setup) -> None:
    """Build the model, then work; raises EOFError and OSError once the server is gone."""
    try:
        detector: Detector = pkgutil.resolve_name(setup.factory)(**setup.arguments)
        inference = Inference(
            detector, decode_threads=setup.decode_threads, max_pixels=setup.max_pixels
        )
        ready = Ready(detector.facts, inference.probe(), inference.measure())
    except Exception as error:
        end.sendall(pack(StartFailed(_why_not(error))))
        return
    end.sendall(pack(ready))
    _Desk(end, detector, inference).work()


def _why_not(error: Exception) -> str:
    """Tell in one line why the model cannot be built; log where, unless the line says it all."""
    text = " ".join(str(error).split())
    if text and (isinstance(error, OSError) or type(error).__module__.startswith("ovoad_")):
        return text
    log.exception("the model could not be built")
    return f"the model could not be built ({type(error).__name__}: {text})"


class _Desk:
    """Hands each call to the thread that it belongs to and sends the results back."""

    def __init__(self, end: socket.socket, detector: Detector, inference: Inference) -> None:
        self._end = end
        self._detector = detector
        self._inference = inference
        self._sending = Lock()
        self._words: dict[int, Vocabulary] = {}
        self._encoding = ThreadPoolExecutor(max(2, detector.facts.lanes), "ovoad-encode")
        self._scoring = ThreadPoolExecutor(1, "ovoad-score")
        self._embedding = ThreadPoolExecutor(1, "ovoad-text")

    def work(self) -> None:
        """Do calls until the server is gone; raises EOFError or OSError then."""
        while True:
            self._take(receive(self._end))

    def _take(self, call: Call) -> None:
        match call.method:
            case "drop":  # after the words that are still to be embedded
                self._embedding.submit(self._drop, *call.arguments)
            case "embed":
                self._embedding.submit(self._answer, call, self._embed)
            case "score":
                self._scoring.submit(self._answer, call, self._score)
            case "encode":
                self._encoding.submit(self._answer, call, partial(self._encode, time.monotonic()))
            case "probe":
                self._encoding.submit(self._answer, call, self._inference.probe)
            case "beat":
                self._encoding.submit(self._answer, call, lambda: None)

    def _answer(self, call: Call, work: Callable[..., Any]) -> None:
        """Do a call; whatever it raises goes back as its result."""
        try:
            data = pack(Result(call.number, work(*call.arguments)))
        except Exception as error:
            _log(call.method, error)
            data = pack(Result(call.number, fault=type(error).__name__))
        with self._sending:
            self._end.sendall(data)

    def _encode(
        self, asked_s: float, images: list[bytes], steps: list[SentStep[int] | None]
    ) -> EncodedBatch:
        """Encode images, score those whose words are known: others come back by `score`."""
        waited_ms = (time.monotonic() - asked_s) * 1000
        batch = self._inference.encode(images, with_words(steps, self._words.get))
        return replace(batch, waited_ms=waited_ms)

    def _embed(self, number: int, words: WordsRequest) -> Embedded:
        vocabulary = self._inference.embed(words)
        self._words[number] = vocabulary
        return Embedded(
            vocabulary.labels, vocabulary.warnings, vocabulary.scorer, self._detector.text_counts
        )

    def _drop(self, numbers: list[int]) -> None:
        for number in numbers:
            self._words.pop(number, None)

    def _score(self, views: list[WindowView], numbers: list[int]) -> ScoredBatch:
        """Score windows; one whose words are not known fails alone."""
        rows = [row for row, number in enumerate(numbers) if number in self._words]
        words = [self._words[numbers[row]] for row in rows]
        batch = self._inference.score([views[row] for row in rows], words)
        scores: list[Scores | Failure] = [
            Failure("internal", "the words could not be embedded")
        ] * len(numbers)
        for row, score in zip(rows, batch.scores, strict=True):
            scores[row] = score
        return ScoredBatch(scores, batch.score_ms)


def _log(method: Method, error: Exception) -> None:
    """Log a fault while it is handled; what an error over words says may quote them."""
    if method != "embed":
        log.exception("%s failed", method)
        return
    place = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    log.error("embed failed with %s at\n%s", type(error).__name__, place)


if __name__ == "__main__":
    main()
