"""Each block against a slow float64 reference: the equations of the paper in explicit loops."""

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from ovoad_model.network.clustering import ObjectCentricUnit, SlotAttention
from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.dntr import causal_mask
from ovoad_model.network.layers import Attention, DecoderLayer, EncoderLayer
from ovoad_model.network.network import OVOAD

torch.set_num_threads(2)

Array = NDArray[np.float64]
Seen = Callable[[int, int], bool]  # may query i see key j?

TINY = NetworkConfig(
    feature_width=12,
    width=8,
    past=5,
    neighbours=4,
    groups=3,
    heads=2,
    dropout=0.0,
    dntr_layers=2,
    cluster_layers_before=2,
    cluster_layers_after=1,
    text_width=6,
    current_width=6,
    joint_width=5,
    head_hidden=16,
)


def array(tensor: torch.Tensor) -> Array:
    return tensor.detach().double().numpy()


def linear(module: nn.Module, vector: Array) -> Array:
    """y_o = Σ_i w_oi x_i + b_o."""
    layer = cast(nn.Linear, module)
    weight = array(layer.weight)
    bias = np.zeros(len(weight)) if layer.bias is None else array(layer.bias)
    result = np.zeros(len(weight))
    for o in range(len(weight)):
        result[o] = bias[o] + sum(weight[o, i] * vector[i] for i in range(len(vector)))
    return result


def norm(module: nn.Module, vector: Array) -> Array:
    layer = cast(nn.LayerNorm, module)
    mean = sum(vector) / len(vector)
    variance = sum((x - mean) ** 2 for x in vector) / len(vector)
    scaled = (vector - mean) / math.sqrt(variance + layer.eps)
    return scaled * array(layer.weight) + array(layer.bias)


def softmax(logits: list[float]) -> list[float]:
    exponentials = [math.exp(x) for x in logits]
    return [x / sum(exponentials) for x in exponentials]


def gelu(x: float) -> float:
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def mlp(module: nn.Module, first: int, second: int, vector: Array) -> Array:
    layers = cast(nn.Sequential, module)
    hidden = np.array([gelu(x) for x in linear(layers[first], vector)])
    return linear(layers[second], hidden)


def attend(module: Attention, queries: list[Array], keys: list[Array], seen: Seen) -> list[Array]:
    """softmax(Q Kᵀ / √(d/h)) V, head by head."""
    size = len(queries[0]) // module.heads
    results = []
    for i, query in enumerate(queries):
        q = linear(module.query, query)
        joined = np.zeros(len(query))
        visible = [j for j in range(len(keys)) if seen(i, j)]
        for head in range(module.heads):
            part = slice(head * size, (head + 1) * size)
            logits = [
                float(q[part] @ linear(module.key, keys[j])[part]) / math.sqrt(size)
                for j in visible
            ]
            for weight, j in zip(softmax(logits), visible, strict=True):
                joined[part] += weight * linear(module.value, keys[j])[part]
        results.append(linear(module.out, joined))
    return results


def around(residual: Any, tokens: list[Array], part: Callable[[list[Array]], list[Array]]) -> Any:
    if residual.first:
        return [
            x + y
            for x, y in zip(tokens, part([norm(residual.norm, x) for x in tokens]), strict=True)
        ]
    return [norm(residual.norm, x + y) for x, y in zip(tokens, part(tokens), strict=True)]


def encoder_layer(layer: Any, tokens: list[Array], seen: Seen) -> list[Array]:
    tokens = around(layer.around_self, tokens, lambda x: attend(layer.self_attention, x, x, seen))
    return cast(
        list[Array],
        around(layer.around_feed, tokens, lambda x: [mlp(layer.feed_forward, 0, 3, y) for y in x]),
    )


def decoder_layer(
    layer: Any, tokens: list[Array], memory: list[Array], seen: Seen, seen_past: Seen
) -> list[Array]:
    nothing = not any(seen_past(0, j) for j in range(len(memory)))

    def cross(x: list[Array]) -> list[Array]:
        if nothing:
            return [np.zeros(len(y)) for y in x]
        return attend(layer.cross_attention, x, memory, seen_past)

    tokens = around(layer.around_self, tokens, lambda x: attend(layer.self_attention, x, x, seen))
    tokens = around(layer.around_cross, tokens, cross)
    return cast(
        list[Array],
        around(layer.around_feed, tokens, lambda x: [mlp(layer.feed_forward, 0, 3, y) for y in x]),
    )


def slot_attention(
    slot: Any, groups: list[Array], frames: list[Array], there: list[bool]
) -> tuple[list[Array], Array]:
    """A = softmax over K of V θ(G')ᵀ / √d; groups receive Aᵀ V."""
    assignment = np.zeros((len(frames), len(groups)))
    for i, frame in enumerate(frames):
        if there[i]:
            v = linear(slot.frame_map, frame)
            logits = [
                float(v @ linear(slot.group_map, group)) / math.sqrt(len(frame)) for group in groups
            ]
            assignment[i] = softmax(logits)
    updates = []
    for k in range(len(groups)):
        taken = np.zeros(len(groups[0]))
        for i, frame in enumerate(frames):
            taken += assignment[i, k] * linear(slot.value, frame)
        updates.append(linear(slot.out, taken))
    return updates, assignment


def plain_attention(
    plain: Any, groups: list[Array], frames: list[Array], there: list[bool]
) -> tuple[list[Array], Array]:
    updates = attend(plain, groups, frames, lambda _, j: there[j])
    assignment = np.zeros((len(frames), len(groups)))
    for i, frame in enumerate(frames):
        if there[i]:
            logits = [
                float(linear(plain.key, frame) @ linear(plain.query, group)) / math.sqrt(len(frame))
                for group in groups
            ]
            assignment[i] = softmax(logits)
    return updates, assignment


def object_centric_unit(
    unit: Any, groups: list[Array], frames: list[Array], there: list[bool]
) -> tuple[list[Array], Array]:
    own = attend(unit.self_attention, groups, groups, lambda i, j: True)
    groups = [norm(unit.norms[0], g + x) for g, x in zip(groups, own, strict=True)]
    slots = isinstance(unit.slot_attention, SlotAttention)
    update, assignment = (slot_attention if slots else plain_attention)(
        unit.slot_attention, groups, frames, there
    )
    groups = [norm(unit.norms[1], g + x) for g, x in zip(groups, update, strict=True)]
    groups = [norm(unit.norms[2], g + mlp(unit.feed_forward, 0, 3, g)) for g in groups]
    return groups, assignment


def unit_norm(vector: Array) -> Array:
    return vector / math.sqrt(sum(x * x for x in vector))


def whole_network(
    network: OVOAD, past: Array, near: Array, there_past: list[bool], there: list[bool]
) -> tuple[Array, Array, Array, Array]:
    """One window through the network of paper.md: current, groups, video, assignment."""
    n, count = len(near), network.config.groups
    old = [
        linear(network.input_map, past[j]) + array(network.past_positions.table)[j]
        for j in range(len(past))
    ]
    tokens = [
        linear(network.input_map, near[i]) + array(network.neighbour_positions.table)[i]
        for i in range(n)
    ]

    def causal(i: int, j: int) -> bool:
        return j <= i and (there[j] or i == j)

    for layer in cast(Any, network.dntr).layers:
        tokens = decoder_layer(layer, tokens, old, causal, lambda _, j: there_past[j])
    current = unit_norm(linear(network.current_head, tokens[-1]))

    clustering = cast(Any, network.clustering)
    joined = [*array(clustering.group_tokens), *tokens]
    for layer in clustering.before:
        joined = encoder_layer(layer, joined, lambda _, j: j < count or there[j - count])
    pre = network.config.normalisation == "pre"
    if pre:
        joined = [norm(clustering.norm_before, x) for x in joined]
    groups, assignment = object_centric_unit(clustering.unit, joined[:count], joined[count:], there)
    for layer in clustering.after:
        groups = encoder_layer(layer, groups, lambda i, j: True)
    if pre:
        groups = [norm(clustering.norm_after, x) for x in groups]
    embedded = [unit_norm(mlp(network.joint_head, 0, 2, g)) for g in groups]
    mean = np.sum(groups, axis=0) / count
    video = unit_norm(mlp(network.joint_head, 0, 2, mean))
    return current, np.array(embedded), video, assignment


def shaken(module: nn.Module, seed: int = 0) -> Any:
    """Random values for all parameters, zero biases and unit norms included."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.eval()


def masks(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.bool)


@pytest.mark.parametrize("normalisation", ["post", "pre"])
def test_encoder_layer_equals_the_loops(normalisation: Any) -> None:
    layer = shaken(EncoderLayer(NetworkConfig(width=8, heads=2, normalisation=normalisation)))
    tokens = torch.randn(1, 4, 8)
    there = [True, False, True, True]
    found = layer(tokens, masks([int(x) for x in there])[:, None, :])
    expected = encoder_layer(layer, list(array(tokens[0])), lambda _, j: there[j])
    np.testing.assert_allclose(array(found[0]), expected, atol=1e-5)


@pytest.mark.parametrize("normalisation", ["post", "pre"])
@pytest.mark.parametrize("past", [[1, 1, 1, 1, 1], [0, 0, 1, 0, 1], [0, 0, 0, 0, 0]])
def test_decoder_layer_equals_the_loops(normalisation: Any, past: list[int]) -> None:
    layer = shaken(DecoderLayer(NetworkConfig(width=8, heads=2, normalisation=normalisation)))
    tokens, memory = torch.randn(1, 4, 8), torch.randn(1, 5, 8)
    there = [True, False, True, True]
    found = layer(tokens, memory, causal_mask(masks([int(x) for x in there])), masks(past))
    expected = decoder_layer(
        layer,
        list(array(tokens[0])),
        list(array(memory[0])),
        lambda i, j: j <= i and (there[j] or i == j),
        lambda _, j: bool(past[j]),
    )
    np.testing.assert_allclose(array(found[0]), expected, atol=1e-5)


@pytest.mark.parametrize("normalisation", ["post", "pre"])
def test_decoder_layer_equals_torchs_own(normalisation: Any) -> None:
    ours = shaken(
        DecoderLayer(NetworkConfig(width=8, heads=2, dropout=0.0, normalisation=normalisation))
    )
    theirs = nn.TransformerDecoderLayer(
        8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=normalisation == "pre"
    ).eval()
    with torch.no_grad():
        for attention, other in [
            (ours.self_attention, theirs.self_attn),
            (ours.cross_attention, theirs.multihead_attn),
        ]:
            weights = [attention.query.weight, attention.key.weight, attention.value.weight]
            other.in_proj_weight.copy_(torch.cat(weights))
            other.in_proj_bias.copy_(
                torch.cat([attention.query.bias, torch.zeros(8), attention.value.bias])
            )
            other.out_proj.load_state_dict(attention.out.state_dict())
        theirs.linear1.load_state_dict(ours.feed_forward[0].state_dict())
        theirs.linear2.load_state_dict(ours.feed_forward[3].state_dict())
        theirs.norm1.load_state_dict(ours.around_self.norm.state_dict())
        theirs.norm2.load_state_dict(ours.around_cross.norm.state_dict())
        theirs.norm3.load_state_dict(ours.around_feed.norm.state_dict())
    tokens, memory = torch.randn(3, 4, 8), torch.randn(3, 5, 8)
    mask = causal_mask(torch.ones(3, 4, dtype=torch.bool))
    found = ours(tokens, memory, mask, torch.ones(3, 5, dtype=torch.bool))
    expected = theirs(tokens, memory, tgt_mask=~mask[0])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("unit", ["slot", "plain"])
def test_object_centric_unit_equals_the_loops(unit: Any) -> None:
    block = shaken(ObjectCentricUnit(NetworkConfig(width=8, heads=2, object_centric_unit=unit)))
    groups, frames = torch.randn(1, 3, 8), torch.randn(1, 4, 8)
    there = [False, True, False, True]
    found, assignment = block(groups, frames, masks([int(x) for x in there]))
    expected, expected_assignment = object_centric_unit(
        block, list(array(groups[0])), list(array(frames[0])), there
    )
    np.testing.assert_allclose(array(found[0]), expected, atol=1e-5)
    np.testing.assert_allclose(array(assignment[0]), expected_assignment, atol=1e-5)


def test_slot_weights_sum_to_one_over_groups() -> None:
    slot = shaken(SlotAttention(8))
    _, assignment = slot(torch.randn(5, 3, 8), torch.randn(5, 6, 8), torch.ones(5, 6) > 0)
    torch.testing.assert_close(assignment.sum(dim=2), torch.ones(5, 6))
    assert not torch.allclose(assignment.sum(dim=1), torch.full((5, 3), 2.0), atol=1e-2)


@pytest.mark.parametrize("normalisation", ["post", "pre"])
@pytest.mark.parametrize("past", [[1, 1, 1, 1, 1], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]])
def test_network_equals_the_loops(normalisation: Any, past: list[int]) -> None:
    config = NetworkConfig(**(vars(TINY) | {"normalisation": normalisation}))
    network: OVOAD = shaken(OVOAD(config))
    distant, near = torch.randn(1, 5, 12), torch.randn(1, 4, 12)
    there = [1, 0, 1, 1]
    output = network(distant, near, masks(past), masks(there))
    expected = whole_network(
        network,
        array(distant[0]) * np.array(past)[:, None],
        array(near[0]) * np.array(there)[:, None],
        [bool(x) for x in past],
        [bool(x) for x in there],
    )
    found = (output.current, output.groups, output.video, output.assignment)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(array(one[0]), other, atol=1e-5)
