"""Run an ONNX file on the CPU, by ONNX Runtime or OpenVINO. Knows no image and no text."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ovoad_model.arrays import Float32Array
from ovoad_model.errors import MissingRuntimeError

Runtime = Literal["onnxruntime", "openvino", "openvino-bf16"]
Network = Callable[[NDArray[Any]], Float32Array]
"""A network with one input and one output, safe to call from several threads."""


def load_network(path: Path, *, runtime: Runtime, threads: int, side_by_side: int = 1) -> Network:
    """Load an ONNX file, or one of OpenVINO's; threads = 0 leaves their number to the runtime.

    side_by_side: calls that come at once and each get their `threads`; more of them take turns.
    Both runtimes compute in float32, so that results agree whatever the processor offers, unless
    bfloat16 is asked for.
    """
    if runtime != "onnxruntime":
        precision = "bf16" if runtime == "openvino-bf16" else "f32"
        return _load_openvino(path, threads, side_by_side, precision)
    return _load_onnxruntime(path, threads)


def _load_onnxruntime(path: Path, threads: int) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin while they wait take the processor from all others: with two cores shared,
    # one frame took twice as long with spinning as without.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(batch: NDArray[Any]) -> Float32Array:
        output: Float32Array = session.run(None, {name: batch})[0]
        return output

    return run


def _load_openvino(path: Path, threads: int, side_by_side: int, precision: str) -> Network:
    try:
        openvino = import_module("openvino")  # carries no types
    except ImportError as error:
        raise MissingRuntimeError("openvino") from error
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": side_by_side,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",  # no rounding of what flows to stored int8
    }
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads * side_by_side
    compiled = openvino.compile_model(str(path), "CPU", settings)

    def run(batch: NDArray[Any]) -> Float32Array:
        output = compiled.create_infer_request().infer([np.ascontiguousarray(batch)])[0]
        return np.array(output, dtype=np.float32)

    return run
