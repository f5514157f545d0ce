"""Export a torch module to ONNX, save it, and compare what was saved with torch."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ovoad_model.embedded.runtime import load_network


def export(
    module: nn.Module, example: Tensor, input_name: str, output_name: str, dynamic: dict[int, Any]
) -> onnx.ModelProto:
    """Trace a module of one input and one output."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example,),
            input_names=[input_name],
            output_names=[output_name],
            dynamic_shapes=(dynamic,),
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    strip(model)
    return model


def strip(model: onnx.ModelProto) -> None:
    """Drop what names the machine that exported it: traces, doc strings, shapes in between."""
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    model.graph.ClearField("value_info")
    model.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")


def save(model: onnx.ModelProto, path: Path) -> None:
    """Check and write a model."""
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def agreement(name: str, path: Path, example: NDArray[Any], expected: NDArray[np.float32]) -> str:
    """Run a written file and tell how far it is from torch."""
    found = load_network(path, runtime="onnxruntime", threads=0)(example)
    difference = float(np.abs(found - expected).max())
    cosine = (found * expected).sum(-1) / np.linalg.norm(found, axis=-1)
    cosine = cosine / np.linalg.norm(expected, axis=-1)
    return (
        f"{name}: {path.stat().st_size / 1e6:.1f} MB; against torch: greatest difference "
        f"{difference:.5f} where values reach {np.abs(expected).max():.2f}, "
        f"smallest cosine {cosine.min():.6f}"
    )
