"""The shipped encoder: shapes, independence of company, odd frames, known answers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ovoad_model.arrays import Frame
from ovoad_model.embedded import EmbeddedEncoder
from ovoad_model.video import read_grid_frames


@pytest.fixture(scope="module")
def encoder() -> EmbeddedEncoder:
    return EmbeddedEncoder.load(threads=1)


def noise(height: int, width: int, *, seed: int = 0) -> Frame:
    coarse = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return coarse


def test_features_and_texts_are_unit_vectors_of_one_space(encoder: EmbeddedEncoder) -> None:
    features = encoder.encode_frames([noise(48, 64), noise(300, 200)])
    text = encoder.encode_text(["a person standing", "a landscape", ""])
    assert features.shape == (2, encoder.feature_width)
    assert text.shape == (3, encoder.embedding_width)
    assert features.dtype == text.dtype == np.float32
    for vectors in (features, encoder.project(features), text):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3, 5), (259, 261), (1080, 1920)])
def test_frames_of_any_size_give_finite_features(
    encoder: EmbeddedEncoder, size: tuple[int, int]
) -> None:
    assert np.isfinite(encoder.encode_frames([noise(*size)])).all()


def test_a_frame_does_not_depend_on_its_batch(encoder: EmbeddedEncoder) -> None:
    frames = [noise(40 + 30 * seed, 50, seed=seed) for seed in range(4)]
    together = encoder.encode_frames(frames)
    alone = np.concatenate([encoder.encode_frames([frame]) for frame in frames])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_text_does_not_depend_on_its_company(encoder: EmbeddedEncoder) -> None:
    texts = ["playing drums", "a " * 200, "riding a bicycle down a hill", "", "xyzzy"]
    alone = np.concatenate([encoder.encode_text([text]) for text in texts])
    np.testing.assert_allclose(encoder.encode_text(texts), alone, atol=1e-6)


def test_nothing_in_gives_nothing_out(encoder: EmbeddedEncoder) -> None:
    assert encoder.encode_frames([]).shape == (0, encoder.feature_width)
    assert encoder.encode_text([]).shape == (0, encoder.embedding_width)


def test_the_end_of_an_overlong_text_is_left_out(encoder: EmbeddedEncoder) -> None:
    one, other = encoder.encode_text(["drum " * 300, "drum " * 300 + "landscape"])
    np.testing.assert_array_equal(one, other)


def test_masked_features_stay_finite(encoder: EmbeddedEncoder) -> None:
    masked = np.zeros((2, 8, encoder.feature_width), np.float32)
    assert np.isfinite(encoder.project(masked)).all()


def test_words_for_one_thing_lie_together(encoder: EmbeddedEncoder) -> None:
    prompts = [
        encoder.templates[0].format(label)
        for label in ("playing the drums", "drumming", "riding a bicycle", "cycling on a road")
    ]
    text = encoder.encode_text(prompts)
    near = text @ text.T
    assert near[0, 1] > max(near[0, 2], near[0, 3])
    assert near[2, 3] > max(near[2, 0], near[2, 1])


def test_constants_make_sense(encoder: EmbeddedEncoder) -> None:
    assert 0 < encoder.temperature < 1
    assert 0 < encoder.background_floor < 1
    assert len(set(encoder.background)) == len(encoder.background) > 3
    assert all(template.count("{}") == 1 for template in encoder.templates)
    assert int(encoder.fingerprint, 16) >= 0


def test_both_runtimes_agree(encoder: EmbeddedEncoder) -> None:
    pytest.importorskip("openvino")
    other = EmbeddedEncoder.load(runtime="openvino", threads=1)
    frames, texts = [noise(300, 400)], ["a person playing drums"]
    np.testing.assert_allclose(
        other.encode_frames(frames), encoder.encode_frames(frames), atol=1e-4
    )
    np.testing.assert_allclose(other.encode_text(texts), encoder.encode_text(texts), atol=1e-4)
    assert other.fingerprint == encoder.fingerprint


def test_the_encoder_brings_no_torch() -> None:
    program = (
        "import sys; from ovoad_model.embedded import EmbeddedEncoder; EmbeddedEncoder.load();"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(
    ("clip", "label"), [("drums.mp4", "playing drums"), ("archery.avi", "archery")]
)
def test_real_frames_find_their_label(
    encoder: EmbeddedEncoder, clips: Path, clip: str, label: str
) -> None:
    labels = [label, "riding a bicycle", "washing dishes", "playing piano", "swimming"]
    text = encoder.encode_text([encoder.templates[0].format(each) for each in labels])
    frames = [frame for _, frame in read_grid_frames(clips / clip)][:12:3]
    similarities = encoder.encode_frames(frames) @ text.T
    assert (similarities.argmax(axis=1) == 0).mean() >= 0.75
    assert (similarities[:, 0] > encoder.background_floor).mean() >= 0.75
