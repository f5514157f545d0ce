"""Preprocessing against open_clip's own PIL transform: sizes, modes, real frames."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from ovoad_model.open_clip_encoder import preprocess
from ovoad_model.open_clip_encoder.preprocess import TOLERANCE, Preprocessing
from ovoad_model.video import read_grid_frames

SIZES = {
    "wide": (480, 640),
    "tall": (641, 363),
    "odd": (37, 91),
    "just right": (64, 64),
    "one off": (65, 64),
    "one pixel": (1, 1),
    "a row": (1, 50),
    "a column": (70, 2),
    "very wide": (40, 1200),
    "large": (1080, 1920),
}
CPU = torch.device("cpu")


@pytest.fixture
def across_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Pillow resize across and then down, as it did for all pictures before version 13."""
    resize = Image.Image.resize

    def in_two_steps(self: Image.Image, size: tuple[int, int], resample: int) -> Image.Image:
        return resize(resize(self, (size[0], self.height), resample), size, resample)

    monkeypatch.setattr(Image.Image, "resize", in_two_steps)


def settings(**changes: Any) -> PreprocessCfg:
    return PreprocessCfg(**({"size": 64} | changes))


def ours(config: PreprocessCfg, frame: np.ndarray) -> np.ndarray:
    made = Preprocessing.of_config(vars(config))
    levels: np.ndarray = made.batch([frame], CPU)[0].numpy().astype(int)
    return levels


def theirs(config: PreprocessCfg, frame: np.ndarray) -> np.ndarray:
    """open_clip's transform, its scaling undone: levels 0 to 255."""
    scaled = image_transform_v2(config, is_train=False)(Image.fromarray(frame))
    mean, std = (torch.tensor(three)[:, None, None] for three in (config.mean, config.std))
    levels = ((scaled * std + mean) * 255).round()
    found: np.ndarray = levels.permute(1, 2, 0).numpy().astype(int)
    return found


def noise(height: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(height * 10_000 + width)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.usefixtures("across_first")
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("way", ["vector code", "products"])
def test_noise_of_any_size_agrees_with_pillow(
    size: tuple[int, int], mode: str, interpolation: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "products":
        monkeypatch.setattr(preprocess, "LONGEST_WHOLE", 0.0)
    if mode == "longest" and min(size) * 64 / max(size) < 0.6:
        pytest.skip("open_clip's own transform fails: a side would be rounded to nothing")
    config = settings(resize_mode=mode, interpolation=interpolation, fill_color=7)
    frame = noise(*size)
    assert np.abs(ours(config, frame) - theirs(config, frame)).max() <= TOLERANCE


def test_grey_frames_stay_grey() -> None:
    config = settings()
    frame = np.repeat(noise(120, 213)[..., :1], 3, axis=2)
    made = ours(config, frame)
    assert (made == made[..., :1]).all()
    assert np.abs(made - theirs(config, frame)).max() <= TOLERANCE


def test_input_that_is_not_square_agrees() -> None:
    config = settings(size=(48, 80), interpolation="bilinear")
    frame = noise(99, 140)
    assert np.abs(ours(config, frame) - theirs(config, frame)).max() <= TOLERANCE


def test_a_frame_like_a_thread_takes_no_memory() -> None:
    made = Preprocessing.of_config(vars(settings(size=224)))
    frame = np.zeros(
        (1, 1_000_000, 3), np.uint8
    )  # Pillow would make 224 x 224,000,000 pixels of it
    assert made.batch([frame], CPU).shape == (1, 224, 224, 3)


def test_frames_of_several_sizes_share_a_batch() -> None:
    config = settings()
    frames = [noise(70, 90), noise(90, 70), noise(64, 64)]
    batch = Preprocessing.of_config(vars(config)).batch(frames, CPU)
    for row, frame in zip(batch, frames, strict=True):
        assert (row.numpy() == ours(config, frame)).all()


def test_views_and_frames_that_cannot_be_written_are_taken() -> None:
    frame = noise(80, 100)
    locked = frame.copy()
    locked.flags.writeable = False
    config = settings()
    assert (ours(config, locked) == ours(config, frame)).all()
    assert (ours(config, frame[:, ::-1]) == ours(config, frame[:, ::-1].copy())).all()
    assert (ours(config, frame[3:70, 5:90]) == ours(config, frame[3:70, 5:90].copy())).all()


def test_real_frames_agree_with_pillow(clips: Path) -> None:
    """Real pictures hardly differ: less than one value in a hundred, and by two levels at most."""
    config = settings(size=224)
    for name in ("drums.mp4", "archery.avi"):
        _, frame = next(read_grid_frames(clips / name))
        for cut in (frame, frame[: frame.shape[0] // 3], frame[:, : frame.shape[1] // 4 | 1]):
            difference = np.abs(ours(config, cut) - theirs(config, cut))
            assert difference.max() <= TOLERANCE
            assert (difference > 0).mean() < 0.01
