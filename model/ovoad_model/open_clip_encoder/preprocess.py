"""Bring frames of any size to the square that a tower sees, as open_clip's PIL transform does.

Works on whole bytes and on the device: uint8 in, uint8 out; the tower itself scales them
(tower.py). Pillow resizes with antialiasing in two passes, across and then down, each rounded to
bytes. On a CPU torch has the same in vector code; elsewhere, and for frames so long that most of
the resized picture would be cropped away, each pass is one matrix product over what the crop
needs. Both agree with Pillow's two passes to TOLERANCE levels of 255. (From version 13 Pillow
goes down first where height shrinks much more than width. The two orders differ where a pass
overshoots 0 or 255: by 2 levels in the real frames tried, by more in noise a few pixels wide.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ovoad_model.arrays import Frame

TOLERANCE: Final = 2
LONGEST_WHOLE: Final = 4.0
"""How many times the crop's area the resized picture may have to be made as a whole."""

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["shortest", "longest", "squash"]


@dataclass(frozen=True)
class Preprocessing:
    """A tower's preprocessing, as open_clip's config says it.

    height, width: of the tower's input. mode "shortest": the shorter side to the input's, centre
    crop; "longest": the longer side, the rest filled with the colour `fill`; "squash": both sides.
    mean, std: of RGB in 0 to 1.
    """

    height: int
    width: int
    mode: ResizeMode
    interpolation: Interpolation
    fill: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of_config(cls, config: dict[str, Any]) -> "Preprocessing":
        """Read open_clip's preprocess settings (visual.preprocess_cfg)."""
        size = config["size"]
        height, width = (size, size) if isinstance(size, int) else size
        bilinear = config["interpolation"] == "bilinear"
        # open_clip's own transform forgets the interpolation in this one case
        if config["resize_mode"] == "shortest" and height != width:
            bilinear = False
        return cls(
            height=int(height),
            width=int(width),
            mode=config["resize_mode"],
            interpolation="bilinear" if bilinear else "bicubic",
            fill=int(config["fill_color"]),
            mean=_three(config["mean"]),
            std=_three(config["std"]),
        )

    def batch(self, frames: Sequence[Frame], device: torch.device) -> Tensor:
        """Resize and crop B frames [H, W, 3]: uint8 [B, height, width, 3] on the device."""
        batch = torch.full(
            (len(frames), self.height, self.width, 3), self.fill, dtype=torch.uint8, device=device
        )
        for row, frame in enumerate(frames):
            down, across = self.plan(frame.shape[0], frame.shape[1])
            picture = _as_tensor(frame).to(device)
            part = _resize(picture, down, across, self.interpolation)
            batch[row, down.target, across.target] = part
        return batch

    def plan(self, height: int, width: int) -> tuple["Axis", "Axis"]:
        """Say how each side of a frame is resized and which part of it is kept: down, across."""
        resized_height, resized_width = self._resized(height, width)
        return (
            Axis.of(height, resized_height, self.height),
            Axis.of(width, resized_width, self.width),
        )

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Round as open_clip's transforms do, each in its own way."""
        if self.mode == "squash":
            return self.height, self.width
        if self.mode == "shortest" and self.height == self.width:
            longer = int(self.height * max(height, width) / min(height, width))
            return (self.height, longer) if height <= width else (longer, self.height)
        ratios = height / self.height, width / self.width
        ratio = max(ratios) if self.mode == "longest" else min(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))


@dataclass(frozen=True)
class Axis:
    """One side of a frame: `source` pixels become `resized`, of which `length` are kept.

    They begin at `keep_from` and go to `put_at` in the input.
    """

    source: int
    resized: int
    keep_from: int
    put_at: int
    length: int

    @classmethod
    def of(cls, source: int, resized: int, target: int) -> "Axis":
        """Crop in the middle, or place in the middle what is too small."""
        if resized >= target:
            return cls(source, resized, round((resized - target) / 2.0), 0, target)
        return cls(source, resized, 0, (target - resized) // 2, resized)

    @property
    def kept(self) -> slice:
        """The pixels that are kept."""
        return slice(self.keep_from, self.keep_from + self.length)

    @property
    def target(self) -> slice:
        """Where they go."""
        return slice(self.put_at, self.put_at + self.length)


def _resize(picture: Tensor, down: Axis, across: Axis, interpolation: Interpolation) -> Tensor:
    """Resize a picture [H, W, 3] and keep what is kept, uint8."""
    kept = down.length * across.length
    whole = down.resized * across.resized <= LONGEST_WHOLE * kept
    if picture.device.type != "cpu" or not whole:
        return _resize_by_products(picture, down, across, interpolation)
    if (down.source, across.source) != (down.resized, across.resized):
        planes = functional.interpolate(
            picture.permute(2, 0, 1)[None],
            size=(down.resized, across.resized),
            mode=interpolation,
            antialias=True,
        )
        picture = planes[0].permute(1, 2, 0)
    return picture[down.kept, across.kept]


def _resize_by_products(
    picture: Tensor, down: Axis, across: Axis, interpolation: Interpolation
) -> Tensor:
    rows, first_row = _weights(down, interpolation, str(picture.device))
    columns, first_column = _weights(across, interpolation, str(picture.device))
    part = picture[
        first_row : first_row + rows.shape[1], first_column : first_column + columns.shape[1]
    ]
    across_done = _to_bytes(columns @ part.float())  # [h, W', 3]
    both_done = _to_bytes(rows @ across_done.flatten(1))  # [H', W' x 3]
    return both_done.reshape(len(rows), len(columns), 3).to(torch.uint8)


def _to_bytes(values: Tensor) -> Tensor:
    """Round to whole levels, halves up, as Pillow does after each pass."""
    return torch.floor(values + 0.5).clamp(0, 255)


@lru_cache(maxsize=64)
def _weights(axis: Axis, interpolation: Interpolation, device: str) -> tuple[Tensor, int]:
    """Return what each kept pixel takes of each source pixel, and the first source pixel's place.

    Weights [kept, n] float32 over n source pixels; where a side is not resized, the identity.
    """
    places = np.arange(axis.kept.start, axis.kept.stop)
    scale = axis.source / axis.resized
    stretch = max(scale, 1.0)
    reach = (2.0 if interpolation == "bicubic" else 1.0) * stretch
    centres = (places + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + reach + 0.5).astype(np.int64), axis.source)
    start, stop = int(first.min()), int(last.max())
    sources = np.arange(start, stop)
    weights = _filter((sources + 0.5 - centres[:, None]) / stretch, interpolation)
    weights[(sources < first[:, None]) | (sources >= last[:, None])] = 0
    if axis.source == axis.resized:
        weights = (sources == places[:, None]).astype(np.float64)
    weights /= weights.sum(axis=1, keepdims=True)
    return torch.from_numpy(weights.astype(np.float32)).to(device), start


def _filter(distance: Any, interpolation: Interpolation) -> Any:
    """The triangle, or Keys' cubic convolution with a = -0.5 (Keys 1981)."""
    x = np.abs(distance)
    if interpolation == "bilinear":
        return np.maximum(1 - x, 0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _as_tensor(frame: Frame) -> Tensor:
    """Share a frame's memory where torch can."""
    shareable = frame.flags.writeable and min(frame.strides) > 0
    return torch.from_numpy(frame if shareable else np.array(frame))


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = values if isinstance(values, (list, tuple)) else (values,) * 3
    return float(red), float(green), float(blue)
