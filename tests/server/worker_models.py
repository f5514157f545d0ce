"""Small models that a worker process builds, some of which misbehave on purpose.

The process finds this module by PYTHONPATH: it imports nothing of the other tests.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovoad_model.arrays import Float32Array, Frame, unit
from ovoad_model.detector import Detector
from ovoad_model.errors import ModelError
from ovoad_model.scorers import average_scorer, frame_scorer
from ovoad_model.text_cache import TextCache

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
DEADLY, ENDLESS, HURTFUL, NAMELESS = (250, 0, 250), (0, 250, 250), (250, 250, 0), (250, 250, 250)
"""Pictures of these colours kill the process, are never done, raise, and give NaN."""


class MeanColours:
    """Features are mean colours, sentences mean the colour that they name.

    `folder` holds files that switch faults on: "corrupt" and "constant". The words "kill" and
    "hang" do to the text side what the pictures do to the other.
    """

    name = "mean colours"
    fingerprint = "c0102"
    input_size = 8
    feature_width = 3
    embedding_width = 3
    temperature = 0.1
    languages = ("en",)
    templates = ("{}",)
    background = ("grey",)
    background_floor = float("-inf")
    lanes = 1

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._weights = np.eye(3, dtype=np.float32)

    def encode_frames(self, frames: Sequence[Frame]) -> Float32Array:
        means = np.stack([frame.reshape(-1, 3).mean(axis=0) for frame in frames])
        for mean in means:
            misbehave(mean)
        means[np.abs(means - NAMELESS).max(axis=1) < 4] = np.nan
        if self._is_told("constant"):
            means[:] = 100.0
        if self._is_told("corrupt"):
            self._weights[0, 0] = -3.0
        return means.astype(np.float32) @ self._weights

    def project(self, features: Float32Array) -> Float32Array:
        return unit(features)

    def encode_text(self, texts: Sequence[str]) -> Float32Array:
        for text in texts:
            match text:
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "hang":
                    time.sleep(3600)
                case "hurt":
                    raise RuntimeError(f"cannot bear {text}")
        rows = [COLOURS.get(text.split()[-1], (100, 100, 100)) for text in texts]
        return unit(np.array(rows, np.float32))

    def warnings_for(self, text: str) -> str | None:
        return None

    def _is_told(self, what: str) -> bool:
        return self._folder is not None and (self._folder / what).exists()


def misbehave(mean: NDArray[np.float64]) -> None:
    """Do what a picture of this mean colour is there for."""
    if _near(mean, DEADLY):
        os.kill(os.getpid(), signal.SIGKILL)
    if _near(mean, ENDLESS):
        time.sleep(3600)
    if _near(mean, HURTFUL):
        raise RuntimeError("this picture hurts")


def _near(mean: NDArray[np.float64], colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.subtract(mean, colour)).max() < 4)


def build(*, folder: Path | None = None, cached: bool = False) -> Detector:
    """Build the model; the folder's files "broken" and "gone" make that fail, "slow" makes it wait.

    Each time it is built, a line is added to "builds".
    """
    if folder is not None:
        with (folder / "builds").open("a") as builds:
            print(os.getpid(), file=builds)
        if (folder / "broken").exists():
            raise ModelError("found no weights in the folder, expected some")
        if (folder / "gone").exists():
            os._exit(3)
        if (folder / "slow").exists():
            time.sleep(3600)
    encoder = MeanColours(folder)
    if folder is not None and (folder / "other").exists():
        encoder.fingerprint = "0ther"
    texts = TextCache(None) if cached else None
    return Detector(encoder, (average_scorer(encoder), frame_scorer(encoder)), text_cache=texts)


def build_loud() -> Detector:
    """Build the model and print as libraries do, past all logging."""
    print("a library says hello")
    os.write(2, b"Corrupt JPEG data: premature end of data segment\n")
    print('{"half": ', file=sys.stderr)
    return build()


def raise_import_error() -> Detector:
    """Need a package that is not there."""
    import a_package_that_nobody_has  # type: ignore[import-not-found]  # noqa: F401

    raise AssertionError
