"""A video file as features on the window's grid, encoded once; knows no truth and no scorer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovoad_model.arrays import Float32Array
from ovoad_model.detector import Detector
from ovoad_model.video import read_grid_frames
from ovoad_model.window import FPS

BATCH = 16


@dataclass(frozen=True)
class EncodedVideo:
    """timestamps_ms [L], strictly increasing from 0; features [L, F]."""

    timestamps_ms: NDArray[np.int64]
    features: Float32Array


def encode_video(detector: Detector, path: Path) -> EncodedVideo:
    """Decode a video at 4 fps and encode each frame once; VideoError where it cannot be read."""
    frames = read_grid_frames(path, fps=FPS)
    timestamps_ms: list[int] = []
    features: list[Float32Array] = []
    while batch := list(islice(frames, BATCH)):
        timestamps_ms += [timestamp_ms for timestamp_ms, _ in batch]
        features.append(detector.encode([frame for _, frame in batch]))
    return EncodedVideo(np.array(timestamps_ms, np.int64), np.concatenate(features))
