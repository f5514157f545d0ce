"""Make an int8 file of a float32 export, and measure how far the two agree.

Weights of matrix products are stored as int8, a scale a column; what flows into them is brought to
8 bits frame by frame as it comes (dynamic quantisation), so no calibration pictures are needed.
Convolutions stay in float32: it is for transformers.
"""

import json
import logging
import tempfile
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ovoad_model.arrays import Float32Array
from ovoad_model.embedded.runtime import Network, load_network

AGREEMENT: Final = "agreement.json"


def quantise(plain: Path, target: Path) -> None:
    """Write the int8 file of a float32 export."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        bare = Path(folder) / "bare.onnx"
        model: Any = onnx.load(str(plain))
        del model.graph.value_info[:]  # shapes that the exporter noted hinder ONNX Runtime's own
        onnx.save(model, str(bare))
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it advises a preparation that is of no use here
        try:
            quantize_dynamic(
                str(bare),
                str(target),
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
        finally:
            root.setLevel(level)


def read_agreement(file: Path) -> tuple[float, float]:
    """Return the mean and the least cosine that were measured when an int8 file was made."""
    members = json.loads((file.parent / AGREEMENT).read_text(encoding="utf-8"))
    return float(members["mean"]), float(members["least"])


def measure_agreement(plain: Path, target: Path, size: tuple[int, int]) -> None:
    """Note beside an int8 file how like its features are to those of the float32 file."""
    frames = made_up_frames(size)
    exact = load_network(plain, runtime="onnxruntime", threads=0)
    cosines = agreement(exact, load_network(target, runtime="onnxruntime", threads=0), frames)
    notes = {"frames": len(frames), "mean": float(cosines.mean()), "least": float(cosines.min())}
    (target.parent / AGREEMENT).write_text(json.dumps(notes) + "\n", encoding="utf-8")


def agreement(exact: Network, other: Network, frames: Any) -> Float32Array:
    """Return the cosine of both networks' features for each frame: [B]."""
    left, right = exact(frames), other(frames)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines: Float32Array = np.einsum("bf,bf->b", left, right) / np.maximum(lengths, 1e-12)
    return cosines


def made_up_frames(size: tuple[int, int], *, count: int = 8) -> NDArray[np.uint8]:
    """Blurred noise from coarse to fine, uint8 [count, H, W, 3]: the same at every start."""
    generator = np.random.default_rng(0)
    height, width = size
    frames = np.empty((count, height, width, 3), np.uint8)
    for number, frame in enumerate(frames):
        cells = 2 + 4 * number
        coarse = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        frame[:] = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return frames
