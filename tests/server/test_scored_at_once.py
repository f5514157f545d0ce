"""Frames scored by the call that encodes them: in the model, a process, a replica, an engine."""

import os
import signal
from collections.abc import Sequence

import numpy as np
import pytest

from ovoad_model.arrays import Float32Array
from ovoad_model.detector import Detector
from ovoad_model.scorers import average_scorer
from ovoad_model.window import Window
from ovoad_server.engine.inference import Inference
from ovoad_server.engine.interface import (
    EncodedBatch,
    Failure,
    ScoredBatch,
    ScoreStep,
    Vocabulary,
    WindowView,
    WordsRequest,
)
from ovoad_server.on_ray.worker import RemoteWorker

from .bench import Bench, hold
from .harness import ColourEncoder, LocalWorker, picture, running, until
from .ray_parts import LocalEncoders, make_replica
from .worker_bench import FOLDER, make_worker, paint, pid_of, watched

WORDS = WordsRequest(("red", "blue"), scorer="average")
RED = np.array([255, 0, 0], np.float32)


def window_of(*features: Float32Array) -> Window:
    """A window of frames 250 ms apart."""
    window = Window(3)
    for row, feature in enumerate(features):
        window.push(250 * row, feature)
    return window


@pytest.fixture
def inference() -> Inference:
    encoder = ColourEncoder()
    return Inference(
        Detector(encoder, (average_scorer(encoder),)), decode_threads=2, max_pixels=10**6
    )


def scores_of(batch: EncodedBatch) -> list[str]:
    """Return which label leads for each frame, or why none does."""
    found = []
    for scores in batch.scores:
        if isinstance(scores, Failure):
            found.append(scores.message)
        else:
            found.append("left" if scores is None else str(scores.probabilities.argmax()))
    return found


def test_window_before_the_frame_counts_and_stays_as_it_is(inference: Inference) -> None:
    words = inference.embed(WORDS)
    window = window_of(RED, RED)
    steps = [ScoreStep(window, 500, words), None, ScoreStep(Window(3), 0, words)]
    batch = inference.encode([picture("blue")] * 3, steps)
    assert scores_of(batch) == ["0", "left", "1"], "two red frames outweigh a blue one"
    assert window.view().state.frames == 2
    later = window_of(RED, RED, batch.features[0])  # type: ignore[arg-type]
    (scores,) = inference.score([later.view()], [words]).scores
    found = batch.scores[0]
    assert found is not None
    assert not isinstance(found, Failure)
    assert not isinstance(scores, Failure)
    assert np.array_equal(found.probabilities, scores.probabilities)


def test_bad_frames_and_bad_windows_fail_alone(inference: Inference) -> None:
    words = inference.embed(WORDS)
    late = window_of(RED, RED, RED)
    steps = [ScoreStep(each, 250, words) for each in (window_of(RED), late, window_of(RED))]
    batch = inference.encode([b"no image", picture(), picture()], steps)
    assert scores_of(batch) == ["left", "the window failed (ValueError)", "0"]
    assert [isinstance(feature, Failure) for feature in batch.features] == [True, False, False]


async def test_process_scores_with_words_that_it_has_and_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    worker, _ = make_worker()
    async with watched(worker):
        words = await worker.embed(WORDS)
        steps = [ScoreStep(window_of(RED), 250, words), None]
        images = [paint("red"), paint("blue")]
        assert scores_of(await worker.encode(images, steps)) == ["0", "left"]
        pid = pid_of(worker)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: worker.ready and worker.pid != pid)
        batch = await worker.encode(images, steps)
        assert scores_of(batch) == ["left", "left"], "a new process knows no words"
        assert not any(isinstance(feature, Failure) for feature in batch.features)


async def test_replica_scores_with_words_that_it_has_and_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoders = LocalEncoders(make_replica(monkeypatch), make_replica(monkeypatch))
    worker = RemoteWorker(encoders, await encoders.describe(), timeout_s=10.0)
    words = await worker.embed(WORDS)
    assert encoders.calls[-1] == ("embed", 1)
    steps = [ScoreStep(window_of(RED), 250, words)] * 6
    batch = await worker.encode([paint("red")] * 6, steps)
    assert encoders.calls[-2:] == [("encode", 0), ("encode", 1)]
    assert scores_of(batch) == ["left"] * 4 + ["0"] * 2


class NotingWorker(LocalWorker):
    """Notes how many windows each call to score has."""

    def __init__(self, detector: Detector) -> None:
        super().__init__(detector)
        self.scored_apart: list[int] = []

    async def score(
        self, views: Sequence[WindowView], vocabularies: Sequence[Vocabulary]
    ) -> ScoredBatch:
        self.scored_apart.append(len(views))
        return await super().score(views, vocabularies)


async def test_only_frames_behind_another_of_their_session_are_scored_apart(
    bench: Bench, encoder: ColourEncoder
) -> None:
    noting = NotingWorker(bench.detector)
    bench.engine.worker = noting
    async with running(bench.engine):
        first, second = (bench.open(name, scorer="average") for name in ("first", "second"))
        for seq in range(3):
            first.submit(seq)
            await first.answers(seq + 1)
        assert noting.scored_apart == []
        await hold(encoder, second, 0)
        first.submit(3, 4, 5, colour="blue")
        encoder.hold.set()
        await first.answers(6)
    assert noting.scored_apart == [2]
    assert [scored.window.frames for scored in first.scored()] == [1, 2, 3, 4, 5, 6]
    leads = [scored.scores.probabilities.argmax() for scored in first.scored()]
    assert leads[:4] == [0] * 4, "three red frames outweigh a blue one"
    noting.close()
