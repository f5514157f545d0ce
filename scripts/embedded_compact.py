"""Store an ONNX graph's weights in fewer bytes; the graph widens them again when it is loaded.

Both runtimes fold the widening into constants while loading, so that it costs nothing per run.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SMALL = 256
"""Weights with no more numbers than this stay float32."""


def store_half(model: onnx.ModelProto) -> None:
    """Keep every float32 weight as float16 and cast it to float32 in the graph."""
    for weight in large_weights(model):
        values = numpy_helper.to_array(weight).astype(np.float16)
        wide = weight.name
        replace_weight(model, weight, {f"{wide}.half": values})
        prepend(model, [helper.make_node("Cast", [f"{wide}.half"], [wide], to=TensorProto.FLOAT)])


def store_int8(model: onnx.ModelProto) -> None:
    """Keep matrices as int8 with one scale per output; the word table with one per word.

    What is not a matrix product's weight or the word table becomes float16.
    """
    products = {i for node in model.graph.node if node.op_type == "MatMul" for i in node.input}
    for weight in large_weights(model):
        values = numpy_helper.to_array(weight)
        if weight.name in products and values.ndim == 2:
            _store_matrix(model, weight, values)
        elif values.ndim == 2 and values.size > 1_000_000:
            _store_table(model, weight, values)
    store_half(model)


def _store_matrix(
    model: onnx.ModelProto, weight: onnx.TensorProto, values: NDArray[np.float32]
) -> None:
    """Replace a weight [in, out] by int8 and a scale per column."""
    name = weight.name
    scale, small = quantise(values, axis=0)
    replace_weight(model, weight, {f"{name}.int8": small, f"{name}.scale": scale})
    cast = helper.make_node("Cast", [f"{name}.int8"], [f"{name}.wide"], to=TensorProto.FLOAT)
    prepend(model, [cast, helper.make_node("Mul", [f"{name}.wide", f"{name}.scale"], [name])])


def _store_table(
    model: onnx.ModelProto, weight: onnx.TensorProto, values: NDArray[np.float32]
) -> None:
    """Replace a lookup table [rows, width] by int8 and a scale per row, widened after lookup."""
    name = weight.name
    scale, small = quantise(values, axis=1)
    replace_weight(model, weight, {f"{name}.int8": small, f"{name}.scale": scale})
    (lookup,) = [n for n in model.graph.node if n.op_type == "Gather" and n.input[0] == name]
    out, rows = lookup.output[0], lookup.input[1]
    nodes = [
        helper.make_node("Gather", [f"{name}.int8", rows], [f"{out}.int8"], axis=0),
        helper.make_node("Gather", [f"{name}.scale", rows], [f"{out}.scale"], axis=0),
        helper.make_node("Cast", [f"{out}.int8"], [f"{out}.wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{out}.wide", f"{out}.scale"], [out]),
    ]
    at = list(model.graph.node).index(lookup)
    model.graph.node.remove(lookup)
    for offset, node in enumerate(nodes):
        model.graph.node.insert(at + offset, node)


def quantise(
    values: NDArray[np.float32], *, axis: int
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Return scales (axis kept with length 1) and round(values / scale) in -127..127."""
    scale = np.abs(values).max(axis=axis, keepdims=True).astype(np.float32) / 127
    scale = np.maximum(scale, np.float32(1e-12))
    return scale, np.clip(np.round(values / scale), -127, 127).astype(np.int8)


def large_weights(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """List the float32 weights that are worth storing in fewer bytes."""
    return [
        weight
        for weight in model.graph.initializer
        if weight.data_type == TensorProto.FLOAT and int(np.prod(weight.dims)) > SMALL
    ]


def replace_weight(
    model: onnx.ModelProto, weight: onnx.TensorProto, stored: dict[str, NDArray[np.generic]]
) -> None:
    """Take a weight out of the graph and put the stored ones in."""
    for name, values in stored.items():
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    model.graph.initializer.remove(weight)


def prepend(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Put nodes before all others."""
    for at, node in enumerate(nodes):
        model.graph.node.insert(at, node)
