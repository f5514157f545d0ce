"""Parts of the archive's tests: clips drawn on the spot, bad ones, and results read back."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq

FPS = 12.5


def draw_clip(
    path: Path, *, seed: int = 0, frames: int = 25, size: tuple[int, int] = (160, 120)
) -> Path:
    """Write a video of a circle that moves over a field of one colour."""
    random = np.random.default_rng(seed)
    width, height = size
    field, circle = (tuple(int(each) for each in random.integers(0, 256, 3)) for _ in range(2))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, size)
    assert writer.isOpened()
    for index in range(frames):
        pixels = np.full((height, width, 3), field, np.uint8)
        centre = (int((seed * 17 + index * 6) % width), height // 2)
        cv2.circle(pixels, centre, height // 4, circle, -1)
        writer.write(pixels)
    writer.release()
    return path


def write_bad(folder: Path) -> list[Path]:
    """Write a clip without its end, where MP4 has its index, and one that is no video."""
    whole = draw_clip(folder / "whole.mp4").read_bytes()
    (folder / "whole.mp4").unlink()
    truncated, text = folder / "truncated.mp4", folder / "text.mp4"
    truncated.write_bytes(whole[: len(whole) // 2])
    text.write_text("these are words and no video")
    return [text, truncated]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Read all results, each file by itself."""
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.parquet")):
        rows += pq.read_table(path).to_pylist()
    return sorted(rows, key=lambda row: str(row["path"]))
