"""Names for the array types that cross rooms, and unit vectors. Knows numpy alone."""

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
"""One video frame: uint8 [H, W, 3], RGB, any size."""

Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


def unit(vectors: Float32Array) -> Float32Array:
    """Scale vectors [.., D] to unit norm; zero vectors stay zero."""
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Float32Array = vectors / np.maximum(norm, np.float32(1e-12))
    return scaled
