"""The space in which frames and sentences meet, made from what people do with objects.

Both sides are distributions over the 1,000 ImageNet classes: a frame's is the image net's
posterior, a sentence's says how well it fits the things that people do where an object of the
class is seen (the transpose of ConSE, Norouzi et al. 2014). A similarity is told in standard
deviations above what the cohort of all known activities gets from the same frame (test
normalisation, T-norm, of speaker verification: Auckenthaler et al. 2000), so that a frame that is
a little like everything is like nothing in particular. Knows no network.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ovoad_model.arrays import Float32Array

_DEVIATION_LENGTH: Final = 1 / 32  # makes room for the deviations of any frame in a unit vector
DEVIATION: Final = _DEVIATION_LENGTH / np.sqrt(2)
"""The similarity of one standard deviation."""


@dataclass(frozen=True)
class JointSpace:
    """What joins the two sides. N phrases, M places of phrases in classes, K = 1000 classes.

    phrases [N, 384]: unit sentence embeddings of the activity phrases.
    places [M]: which phrase stands at each place, classes one after another;
    first_place [K]: where each class begins.
    centre [K]: mean square-root distribution of all phrases, taken off every sentence.
    basis [K, R]: orthonormal columns; both sides are kept as their R coordinates in it.
    cohort_mean [R] and cohort_root [R, R]: mean of the phrases' coordinates and the symmetric root
    of their covariance.
    phrase_sharpness, class_sharpness: inverse temperatures of the soft maximum over a class's
    phrases and of the softmax over classes.
    """

    phrases: Float32Array
    places: NDArray[np.int64]
    first_place: NDArray[np.int64]
    centre: Float32Array
    basis: Float32Array
    cohort_mean: Float32Array
    cohort_root: Float32Array
    phrase_sharpness: float
    class_sharpness: float

    @property
    def width(self) -> int:
        """D: R coordinates, the cohort's level, one number that only frames or sentences use."""
        return int(self.basis.shape[1]) + 3

    def place_frames(self, logits: Float32Array) -> Float32Array:
        """Map the image net's logits [B, K] to unit vectors [B, D]."""
        roots = np.exp((logits - logits.max(axis=1, keepdims=True)) / 2)
        roots /= np.linalg.norm(roots, axis=1, keepdims=True)
        coordinates = roots @ self.basis
        level = coordinates @ self.cohort_mean
        spread = np.linalg.norm(coordinates @ self.cohort_root, axis=1)
        scale = np.float32(_DEVIATION_LENGTH) / np.maximum(spread, np.float32(1e-6))
        joined = np.concatenate([coordinates, level[:, None]], axis=1) * scale[:, None]
        return _with_slack(joined, used=0)

    def place_sentences(self, sentences: Float32Array) -> Float32Array:
        """Map unit sentence embeddings [C, 384] to unit vectors [C, D].

        The last coordinate takes the frame's level off: (x · t - x · mean) / spread.
        """
        coordinates = self.sentence_coordinates(sentences)
        minus_one = np.full((len(coordinates), 1), -1, np.float32)
        joined = np.concatenate([coordinates, minus_one], axis=1) / np.sqrt(np.float32(2))
        return _with_slack(joined, used=1)

    def sentence_coordinates(self, sentences: Float32Array) -> Float32Array:
        """Map unit sentence embeddings [C, 384] to coordinates in the basis [C, R]."""
        coordinates: Float32Array = (
            np.sqrt(self.distributions(sentences)) - self.centre
        ) @ self.basis
        return coordinates

    def distributions(self, sentences: Float32Array) -> Float32Array:
        """Tell how sentences [C, 384] spread over the classes: [C, K], rows sum to 1."""
        fit = np.exp(self.phrase_sharpness * (sentences @ self.phrases.T - 1))
        counts = np.diff(self.first_place, append=len(self.places)).astype(np.float32)
        means = np.add.reduceat(fit[:, self.places], self.first_place, axis=1) / counts
        power = np.float32(self.class_sharpness / self.phrase_sharpness)
        weights = (means / means.max(axis=1, keepdims=True)) ** power
        spread: Float32Array = weights / weights.sum(axis=1, keepdims=True)
        return spread


def load_joint_space(path: Path) -> JointSpace:
    """Read joint.npz as the conversion script writes it."""
    with np.load(path, allow_pickle=False) as stored:
        return JointSpace(
            phrases=stored["phrases"].astype(np.float32),
            places=stored["places"].astype(np.int64),
            first_place=stored["first_place"].astype(np.int64),
            centre=stored["centre"].astype(np.float32),
            basis=np.ascontiguousarray(stored["basis"], dtype=np.float32),
            cohort_mean=stored["cohort_mean"].astype(np.float32),
            cohort_root=stored["cohort_root"].astype(np.float32),
            phrase_sharpness=float(stored["phrase_sharpness"]),
            class_sharpness=float(stored["class_sharpness"]),
        )


def _with_slack(coordinates: Float32Array, *, used: int) -> Float32Array:
    """Append two numbers, of which the used one brings each vector to unit norm.

    Frames and sentences use different ones, so these never add to a dot product.
    """
    squared = np.einsum("...i,...i->...", coordinates, coordinates)
    slack = np.zeros((*coordinates.shape[:-1], 2), np.float32)
    slack[..., used] = np.sqrt(np.maximum(1 - squared, 0))
    joined: Float32Array = np.concatenate([coordinates, slack], axis=-1)
    norm = np.sqrt(np.maximum(squared + slack[..., used] ** 2, 1e-12))
    joined /= norm[..., None].astype(np.float32)
    return joined
