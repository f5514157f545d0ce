"""Heads: from the network's width to the spaces shared with text, and the learned temperatures."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovoad_model.network.layers import QUIET

LOG_SCALE_CAP = math.log(100.0)


class JointHead(nn.Sequential):
    """A 2-layer MLP to the joint space of groups, videos and captions.

    GELU between and no batch norm (free in the paper): a batch norm would tie the examples of a
    batch together, and neither gradient caching nor streaming could then equal the full batch.
    """

    def __init__(self, width: int, *, hidden: int, joint: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, joint))

    @torch.no_grad()
    def become_linear(self, wanted: Tensor) -> None:
        """Start as the linear map wanted [rank, width] -> the first `rank` joint directions.

        gelu(x) - gelu(-x) = x, so two hidden units a direction carry it exactly; the other units
        start quiet.
        """
        first, last = cast(nn.Linear, self[0]), cast(nn.Linear, self[2])
        rank = len(wanted)
        if 2 * rank > first.out_features:
            raise ValueError(
                f"found a head of {first.out_features} hidden units, expected {2 * rank} at least"
            )
        first.weight[: 2 * rank] = torch.cat([wanted, -wanted])
        first.bias.zero_()
        last.bias.zero_()
        last.weight.mul_(QUIET)
        last.weight[:, : 2 * rank] = 0.0
        units = torch.arange(rank)
        last.weight[units, units] = 1.0
        last.weight[units, rank + units] = -1.0


class Scale(nn.Module):
    """A learned factor on similarities, 1/τ, capped at 100 and kept as its logarithm."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self) -> Tensor:
        """Return 1/τ, a scalar of at most 100."""
        return self.log_scale.clamp(max=LOG_SCALE_CAP).exp()

    @torch.no_grad()
    def clip(self) -> None:
        """Bring a parameter that a step took past the cap back inside, where gradients reach it."""
        self.log_scale.clamp_(max=LOG_SCALE_CAP - 1e-6)


def unit(vectors: Tensor) -> Tensor:
    """Scale vectors [.., D] to unit norm."""
    return functional.normalize(vectors, dim=-1)
