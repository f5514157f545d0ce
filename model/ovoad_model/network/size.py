"""Count the network's parameters by part: python -m ovoad_model.network.size."""

import torch
from torch import nn

from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.network import OVOAD


def parameter_counts(config: NetworkConfig | None = None) -> dict[str, int]:
    """Count parameters by part, without allocating them."""
    with torch.device("meta"):
        network = OVOAD(config)
    positions = _count(network.past_positions) + _count(network.neighbour_positions)
    tokens = network.clustering.group_tokens.numel()
    return {
        "input map": _count(network.input_map),
        "DNTR": _count(network.dntr),
        "AC": _count(network.clustering) - tokens,
        "group tokens and positions": tokens + positions,
        "current head": _count(network.current_head),
        "joint head of groups and video": _count(network.joint_head),
        "text heads": _count(network.text_current_map) + _count(network.text_joint_head),
        "scales of the losses": _count(network.scale_current)
        + _count(network.scale_joint)
        + network.mask_scale.numel()
        + network.mask_bias.numel(),
    }


def image_side(counts: dict[str, int]) -> int:
    """Sum what the paper's table counts: DNTR, AC, tokens and positions, image-side heads."""
    return sum(counts.values()) - counts["text heads"] - counts["scales of the losses"]


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


if __name__ == "__main__":
    counts = parameter_counts()
    for part, count in counts.items():
        print(f"{part:32} {count:>12,}")
    print(f"{'image side, as the paper counts':32} {image_side(counts):>12,}")
