"""The work of a worker without its process: what one item does to its batch, and memory."""

import copy
import weakref
from collections.abc import Sequence

import numpy as np
import pytest

from ovoad_model.arrays import Float32Array, Frame
from ovoad_model.detector import Detector
from ovoad_model.scorers import frame_scorer
from ovoad_server.engine.inference import GOLDEN_SENTENCES, Inference, golden_images
from ovoad_server.engine.interface import EncodedBatch, Failure, Scores, WordsRequest

from .harness import ColourEncoder, picture

MEMORY_ERRORS = [
    MemoryError("Unable to allocate 9.00 GiB for an array with shape (9,)"),
    type("OutOfMemoryError", (RuntimeError,), {})("CUDA: tried to allocate 2.00 GiB"),
    RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for buffer of size 1048576"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 12 bytes"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
    RuntimeError("std::bad_alloc"),
]


class Ballast:
    """Something large that a failing call of the model holds."""


class CountingEncoder(ColourEncoder):
    """Notes the size of each batch; has room for `room` frames, or fails over a poor frame."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.room = 1000
        self.no_room: Exception = MemoryError()
        self.nameless = False  # green gives NaN
        self.held: list[weakref.ref[Ballast]] = []
        self.still_held = 0

    def encode_frames(self, frames: Sequence[Frame]) -> Float32Array:
        self.sizes.append(len(frames))
        self.still_held = max(self.still_held, sum(each() is not None for each in self.held))
        ballast = Ballast()
        self.held.append(weakref.ref(ballast))
        if len(frames) > self.room:
            raise copy.copy(self.no_room)
        features = super().encode_frames(frames)
        if self.nameless:
            features[features[:, 1] > 200] = np.nan
        return features


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture
def inference(encoder: CountingEncoder) -> Inference:
    return Inference(
        Detector(encoder, (frame_scorer(encoder),)), decode_threads=2, max_pixels=10**6
    )


def encode(inference: Inference, colours: str) -> EncodedBatch:
    """Encode pictures given by the initials of their colours."""
    names = {"r": "red", "g": "green", "b": "blue"}
    images = [b"no image" if each == "-" else picture(names[each]) for each in colours]
    return inference.encode(images)


def shown(batch: EncodedBatch) -> str:
    """Return the initials of the colours found, x for a failure."""
    return "".join(
        "x" if isinstance(each, Failure) else "rgb"[int(np.argmax(each))] for each in batch.features
    )


def test_bad_frame_is_found_in_few_calls_and_its_mates_are_served(
    inference: Inference, encoder: CountingEncoder
) -> None:
    encoder.fail_on = "green"
    batch = encode(inference, "r" * 41 + "g" + "b" * 22)
    assert shown(batch) == "r" * 41 + "x" + "b" * 22
    assert batch.features[41] == Failure("internal", "the model failed (RuntimeError)")
    assert len(encoder.sizes) == 1 + 2 * 6  # 64 = 2^6: the batch, then two halves a level
    assert batch.limit is None


def test_frames_with_features_that_are_no_numbers_fail_alone(
    inference: Inference, encoder: CountingEncoder
) -> None:
    encoder.nameless = True
    batch = encode(inference, "rgbg")
    assert shown(batch) == "rxbx"
    assert batch.features[1] == Failure("internal", "the model failed (ValueError)")


def test_frame_that_cannot_be_decoded_takes_no_room_in_the_batch(
    inference: Inference, encoder: CountingEncoder
) -> None:
    batch = encode(inference, "r-b-")
    assert shown(batch) == "rxbx"
    assert encoder.sizes == [2]
    assert isinstance(batch.features[1], Failure)
    assert batch.features[1].code == "bad_image"
    assert len(batch.decode_ms) == 4


def test_batch_of_bad_images_alone_does_not_reach_the_model(
    inference: Inference, encoder: CountingEncoder
) -> None:
    assert shown(encode(inference, "--")) == "xx"
    assert shown(encode(inference, "")) == ""
    assert encoder.sizes == []


@pytest.mark.parametrize("error", MEMORY_ERRORS, ids=lambda error: type(error).__name__)
def test_batch_without_room_is_halved_and_the_limit_remembered_and_told(
    inference: Inference, encoder: CountingEncoder, error: Exception
) -> None:
    encoder.room, encoder.no_room = 3, error
    batch = encode(inference, "rgbrgbrg")
    assert (shown(batch), batch.limit) == ("rgbrgbrg", 2)
    assert encoder.sizes == [8, 4, 2, 2, 4, 2, 2]
    encoder.sizes.clear()
    assert shown(encode(inference, "rgbrg")) == "rgbrg"
    assert encoder.sizes == [2, 2, 1]


def test_error_that_is_not_about_memory_lowers_no_limit(
    inference: Inference, encoder: CountingEncoder
) -> None:
    encoder.room, encoder.no_room = 3, RuntimeError("shape mismatch")
    batch = encode(inference, "rgbr")
    assert (shown(batch), batch.limit) == ("rgbr", None)


def test_frame_too_large_for_the_device_by_itself_fails(
    inference: Inference, encoder: CountingEncoder
) -> None:
    encoder.room = 0
    batch = encode(inference, "rg")
    assert (shown(batch), batch.limit) == ("xx", 1)
    assert batch.features[0] == Failure("internal", "the model failed (MemoryError)")


def test_halves_run_after_what_the_whole_held_is_free(
    inference: Inference, encoder: CountingEncoder
) -> None:
    encoder.room = 1
    assert shown(encode(inference, "rgbrgbrg")) == "rgbrgbrg"
    assert encoder.still_held == 0


def test_scores_that_are_no_numbers_fail_alone(
    inference: Inference,
) -> None:
    words = inference.embed(WordsRequest(("red", "blue")))
    detector = inference._detector
    features = [each for each in encode(inference, "rb").features if not isinstance(each, Failure)]
    views = []
    for feature in (*features, np.full(3, np.nan, np.float32)):
        window = detector.open_window()
        window.push(0, feature)
        views.append(window.view())
    batch = inference.score(views, [words] * 3)
    assert [type(score).__name__ for score in batch.scores] == ["Scores", "Scores", "Failure"]
    assert batch.scores[2] == Failure("internal", "the model failed (ValueError)")


def test_probe_gives_each_golden_image_its_similarities(inference: Inference) -> None:
    found = inference.probe()
    assert len(found) == len(golden_images()) * len(GOLDEN_SENTENCES)
    assert found == inference.probe()


def test_probe_raises_what_the_model_raises(inference: Inference, encoder: CountingEncoder) -> None:
    encoder.room = 0
    with pytest.raises(MemoryError):
        inference.probe()


def test_measure_times_batches_after_a_first_one_that_warms_up(
    inference: Inference, encoder: CountingEncoder
) -> None:
    costs = inference.measure()
    assert encoder.sizes == [1, 1, 4]
    assert [size for size, _ in costs] == [1, 4]
    assert all(ms > 0 for _, ms in costs)


def test_scores_have_the_form_of_the_interface(inference: Inference) -> None:
    words = inference.embed(WordsRequest(("red",), templates=("{}",), background=("grey",)))
    window = inference._detector.open_window()
    window.push(0, np.array([255, 0, 0], np.float32))
    (scores,) = inference.score([window.view()], [words]).scores
    assert not isinstance(scores, Failure)
    checked: Scores = scores
    assert checked.probabilities.sum() + checked.background == pytest.approx(1.0, abs=1e-6)
