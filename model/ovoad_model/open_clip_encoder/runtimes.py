"""What can run an image tower, behind one call: uint8 [B, S, S, 3] to features [B, F].

torch in several ways, ONNX Runtime and OpenVINO on an exported file. Knows no text and no name.
"""

import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any, Final, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor

from ovoad_model.arrays import Float32Array
from ovoad_model.embedded.runtime import load_network
from ovoad_model.errors import MissingRuntimeError, ModelError
from ovoad_model.int8.network import load_int8
from ovoad_model.open_clip_encoder.exports import Exports
from ovoad_model.open_clip_encoder.int8 import read_agreement
from ovoad_model.open_clip_encoder.tower import ImageTower

LOGGER: Final = logging.getLogger(__name__)

RuntimeName = Literal[
    "auto",
    "torch",
    "torch-channels-last",
    "torch-compile",
    "torch-bf16",
    "torch-fp16",
    "onnxruntime",
    "onnxruntime-int8",
    "onnxruntime-cuda",
    "tensorrt",
    "openvino",
    "openvino-bf16",
    "openvino-int8",
]
RUNTIMES: Final[tuple[str, ...]] = get_args(RuntimeName)
LEAST_AGREEMENT: Final = 0.98
BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64)
"""Batch sizes that a compiled tower is made for; others are filled up to the next."""

Network = Callable[[Tensor], Float32Array]
"""From a batch on the tower's device to features; safe to call from several threads."""


class UnusableRuntimeError(ModelError):
    """A runtime cannot run here."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"runtime {name}: {reason}")
        self.name = name
        self.reason = reason


@dataclass(frozen=True)
class Workshop:
    """What networks are made from: the tower (float32), its device and its exports."""

    name: str
    tower: ImageTower
    device: torch.device
    exports: Exports


def load_runtime(name: str, shop: Workshop) -> Network:
    """Make the network of this name; raises UnusableRuntimeError or MissingRuntimeError."""
    check_runtime(name, shop.device)
    return _LOADERS[name](shop)


def check_runtime(name: str, device: torch.device) -> None:
    """Refuse at once what cannot run here."""
    if name.startswith("onnxruntime") or name == "tensorrt":
        _need("onnxruntime")
        _need("onnxscript")  # what torch exports with
    if name.startswith("openvino"):
        _need("openvino")
        _need("onnxscript")
    provider = {"onnxruntime-cuda": "CUDA", "tensorrt": "Tensorrt"}.get(name)
    if provider is not None:
        import onnxruntime

        if f"{provider}ExecutionProvider" not in onnxruntime.get_available_providers():
            raise UnusableRuntimeError(
                name,
                f"found ONNX Runtime without {provider}ExecutionProvider, expected the package "
                "onnxruntime-gpu and its GPU",
            )
    if name == "torch-fp16" and device.type == "cpu":
        raise UnusableRuntimeError(name, "found device cpu, expected a GPU: try torch-bf16")


def _torch(shop: Workshop) -> Network:
    return _eager(shop.tower.to(shop.device))


def _torch_channels_last(shop: Workshop) -> Network:
    tower = deepcopy(shop.tower).to(shop.device)
    tower.layout = torch.channels_last
    return _eager(cast(Any, tower).to(memory_format=torch.channels_last))


def _torch_bf16(shop: Workshop) -> Network:
    return _eager(deepcopy(shop.tower).in_precision(torch.bfloat16).to(shop.device))


def _torch_fp16(shop: Workshop) -> Network:
    return _eager(deepcopy(shop.tower).in_precision(torch.float16).to(shop.device))


def _torch_compile(shop: Workshop) -> Network:
    """CUDA graphs where there is CUDA, else fused loops for the CPU; needs a C++ compiler there."""
    if shop.device.type == "cpu" and which("c++") is None and which("g++") is None:
        raise UnusableRuntimeError("torch-compile", "found no C++ compiler, expected c++ or g++")
    mode = "reduce-overhead" if shop.device.type == "cuda" else "default"
    compiled = torch.compile(shop.tower.to(shop.device), mode=mode, dynamic=False)
    return in_buckets(_eager(compiled))


def _onnxruntime(shop: Workshop) -> Network:
    return _from_file(
        load_network(shop.exports.plain(shop.tower), runtime="onnxruntime", threads=0)
    )


def _onnxruntime_int8(shop: Workshop) -> Network:
    """Refused where it agrees too little with float32; how much it does is in the log."""
    path = shop.exports.int8(shop.tower)
    mean, least = read_agreement(path)
    told = f"cosine to float32 on made-up pictures: mean {mean:.5f}, least {least:.5f}"
    if least < LEAST_AGREEMENT:
        raise UnusableRuntimeError("onnxruntime-int8", f"{told}, expected {LEAST_AGREEMENT}")
    LOGGER.warning("runtime onnxruntime-int8 of %s: %s", shop.name, told)
    return _from_file(load_network(path, runtime="onnxruntime", threads=0))


def _openvino(shop: Workshop) -> Network:
    return _from_file(load_network(shop.exports.plain(shop.tower), runtime="openvino", threads=0))


def _openvino_bf16(shop: Workshop) -> Network:
    plain = shop.exports.plain(shop.tower)
    return _from_file(load_network(plain, runtime="openvino-bf16", threads=0))


def _openvino_int8(shop: Workshop) -> Network:
    """Refused unless it was calibrated; how far it agrees with float32 is in the log."""
    return _from_file(load_int8(shop.exports.calibrated, encoder=shop.name))


def _onnxruntime_cuda(shop: Workshop) -> Network:
    return _on_gpu(shop.exports.plain(shop.tower), [("CUDAExecutionProvider", {})])


def _tensorrt(shop: Workshop) -> Network:
    """In half precision; the engine that TensorRT builds in minutes is kept beside the export."""
    path = shop.exports.plain(shop.tower)
    settings = {
        "trt_fp16_enable": True,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(path.parent),
    }
    providers = [("TensorrtExecutionProvider", settings), ("CUDAExecutionProvider", {})]
    return in_buckets(_on_gpu(path, providers))


_LOADERS: Final[Mapping[str, Callable[[Workshop], Network]]] = {
    "torch": _torch,
    "torch-channels-last": _torch_channels_last,
    "torch-compile": _torch_compile,
    "torch-bf16": _torch_bf16,
    "torch-fp16": _torch_fp16,
    "onnxruntime": _onnxruntime,
    "onnxruntime-int8": _onnxruntime_int8,
    "onnxruntime-cuda": _onnxruntime_cuda,
    "tensorrt": _tensorrt,
    "openvino": _openvino,
    "openvino-bf16": _openvino_bf16,
    "openvino-int8": _openvino_int8,
}


def _eager(tower: Callable[[Tensor], Tensor]) -> Network:
    def run(batch: Tensor) -> Float32Array:
        with torch.inference_mode():
            features: Float32Array = tower(batch).cpu().numpy()
            return features

    return run


def _from_file(network: Callable[[Any], Float32Array]) -> Network:
    return lambda batch: network(batch.cpu().numpy())


def _on_gpu(path: Path, providers: list[tuple[str, dict[str, Any]]]) -> Network:
    """ONNX Runtime on a GPU; frames go there from the CPU with each call."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=providers)
    name = session.get_inputs()[0].name
    return lambda batch: cast(Float32Array, session.run(None, {name: batch.cpu().numpy()})[0])


def in_buckets(network: Network) -> Network:
    """Fill batches up to the next of BUCKETS, so that few shapes are compiled; cut larger ones."""

    def run(batch: Tensor) -> Float32Array:
        parts = []
        for start in range(0, len(batch), BUCKETS[-1]):
            part = batch[start : start + BUCKETS[-1]]
            size = next(bucket for bucket in BUCKETS if bucket >= len(part))
            spare = part[:1].expand(size - len(part), *part.shape[1:])
            parts.append(network(torch.cat([part, spare]))[: len(part)])
        return np.concatenate(parts)

    return run


def _need(package: str) -> None:
    if find_spec(package) is None:
        raise MissingRuntimeError(package)
