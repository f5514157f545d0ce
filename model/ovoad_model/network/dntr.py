"""Distant–neighbouring-frame transformer: 2 s of neighbours, enriched by the 6 s before them.

Knows nothing of text. Letters: B batch, p past frames, n neighbours (the last is now), d width.
"""

import torch
from torch import Tensor, nn

from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.layers import (
    DecoderLayer,
    EncoderLayer,
    Residual,
    attention,
    read_memory,
)


class PositionTable(nn.Module):
    """A learned vector for each place in time (1-D, absolute), added to the frames."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(places, width))
        nn.init.normal_(self.table, std=0.02)

    def forward(self, frames: Tensor) -> Tensor:
        """Add each place's vector to frames [B, places, d]."""
        return frames + self.table


def causal_mask(neighbours_mask: Tensor) -> Tensor:
    """Say which neighbours each may see, from neighbours_mask [B, n]: [B, n, n].

    Itself and earlier ones that are there; a missing frame still sees itself, so that no row of
    a softmax is empty, and nobody else sees it.
    """
    places = neighbours_mask.shape[1]
    earlier = torch.ones(places, places, dtype=torch.bool, device=neighbours_mask.device).tril()
    itself = torch.eye(places, dtype=torch.bool, device=neighbours_mask.device)
    return (earlier & neighbours_mask[:, None, :]) | itself


class DecoderDntr(nn.Module):
    """The paper's DNTR: decoder layers, queries = neighbours, keys and values = past."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.dntr_layers))

    def forward(
        self, past: Tensor, neighbours: Tensor, past_mask: Tensor, neighbours_mask: Tensor
    ) -> Tensor:
        """past [B, p, d], neighbours [B, n, d] to V'_N [B, n, d]."""
        mask = causal_mask(neighbours_mask)
        for layer in self.layers:
            neighbours = layer(neighbours, past, mask, past_mask)
        return neighbours


class EncoderDntr(nn.Module):
    """Ablation: encoder layers over [past; neighbours]; the past never sees the neighbours.

    The paper gives its name and number only; that the past joins the sequence is our choice, so
    that all three variants see the same frames.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.dntr_layers))

    def forward(
        self, past: Tensor, neighbours: Tensor, past_mask: Tensor, neighbours_mask: Tensor
    ) -> Tensor:
        """past [B, p, d], neighbours [B, n, d] to V'_N [B, n, d]."""
        there = torch.cat([past_mask, neighbours_mask], dim=1)
        distant = torch.arange(there.shape[1], device=there.device) < past.shape[1]
        within_past = distant[:, None] & distant[None, :]
        mask = causal_mask(there) | (within_past & there[:, None, :])
        tokens = torch.cat([past, neighbours], dim=1)
        for layer in self.layers:
            tokens = layer(tokens, mask)
        return tokens[:, past.shape[1] :]


class EncoderCrossDntr(nn.Module):
    """Ablation: encoder layers over the neighbours, then one cross-attention to the past."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.dntr_layers))
        self.cross_attention = attention(config)
        self.around_cross = Residual(config)

    def forward(
        self, past: Tensor, neighbours: Tensor, past_mask: Tensor, neighbours_mask: Tensor
    ) -> Tensor:
        """past [B, p, d], neighbours [B, n, d] to V'_N [B, n, d]."""
        mask = causal_mask(neighbours_mask)
        for layer in self.layers:
            neighbours = layer(neighbours, mask)
        enriched: Tensor = self.around_cross(
            neighbours, lambda x: read_memory(self.cross_attention, x, past, past_mask)
        )
        return enriched


def build_dntr(config: NetworkConfig) -> DecoderDntr | EncoderDntr | EncoderCrossDntr:
    """Build the variant that config.dntr names."""
    if config.dntr == "decoder":
        return DecoderDntr(config)
    return EncoderDntr(config) if config.dntr == "encoder" else EncoderCrossDntr(config)
