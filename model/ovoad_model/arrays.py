"""Names for the array types that cross rooms. Knows numpy alone."""

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
"""One video frame: uint8 [H, W, 3], RGB, any size."""

Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
