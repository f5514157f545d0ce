"""What the endpoints beside ovoad do with images: decode, encode in one batch, score each alone.

numpy's BLAS gets one thread before it is imported, as in ovoad's own server.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from ovoad_model.build import build_detector
from ovoad_model.detector import Scores


def decode(jpeg: bytes) -> Any:
    """Decode a JPEG into RGB uint8 [H, W, 3]."""
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)


class ImageScores:
    """The model, loaded once, and the words."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._detector = build_detector(scorer="frame")
        self._words = self._detector.vocabulary(labels)

    def score(self, images: Sequence[Any]) -> list[Scores]:
        """Score B images at once."""
        views = []
        for feature in self._detector.encode(images):
            window = self._detector.open_window()
            window.push(0, feature)
            views.append(window.view())
        return self._detector.score(views, [self._words] * len(views))


def to_answer(scores: Scores) -> dict[str, Any]:
    """Return what the endpoints answer with."""
    return {
        "probabilities": scores.probabilities.tolist(),
        "background": float(scores.background),
        "similarities": scores.similarities.tolist(),
    }
