"""The standard Transformer parts (Vaswani et al. 2017), batched and masked. Know no video.

Letters: B batch, Q queries, T keys, d width, h heads. A mask says which keys a query may see
(True = may) and broadcasts to [B, Q, T]; every query must see one key at least.
"""

from collections.abc import Callable
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovoad_model.network.config import NetworkConfig

QUIET: Final = 0.1  # how loud a part's answer starts beside its tokens, with "near_identity"


class Attention(nn.Module):
    """Multi-head scaled dot-product attention: softmax(Q Kᵀ / √(d/h)) V, heads joined linearly.

    The key map has no bias: it would add one number to all logits of a query, and the softmax
    would cancel it.
    """

    def __init__(self, width: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """Let queries [B, Q, d] read keys [B, T, d] where mask allows it: [B, Q, d]."""
        read = functional.scaled_dot_product_attention(
            self._split(self.query(queries)),
            self._split(self.key(keys)),
            self._split(self.value(keys)),
            attn_mask=None if mask is None else mask.unsqueeze(1),
            dropout_p=self.dropout if self.training else 0.0,
        )
        joined: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return joined

    def _split(self, tokens: Tensor) -> Tensor:
        """[B, T, d] to [B, h, T, d/h]."""
        split: Tensor = tokens.unflatten(-1, (self.heads, -1))  # type: ignore[no-untyped-call]
        return split.transpose(1, 2)


class FeedForward(nn.Sequential):
    """Two linear maps with a GELU between, hidden width = ratio · d."""

    def __init__(self, width: int, *, ratio: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(width, ratio * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(ratio * width, width),
        )


class Residual(nn.Module):
    """A part's surroundings: "post" is norm(x + part(x)), "pre" is x + part(norm(x))."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.first = config.normalisation == "pre"
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
        """Add part's answer to tokens [B, T, d]."""
        updated: Tensor
        if self.first:
            updated = tokens + self.dropout(part(self.norm(tokens)))
        else:
            updated = self.norm(tokens + self.dropout(part(tokens)))
        return updated


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.self_attention = attention(config)
        self.feed_forward = feed_forward(config)
        self.around_self = Residual(config)
        self.around_feed = Residual(config)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Update tokens [B, T, d]; mask broadcasts to [B, T, T]."""
        tokens = self.around_self(tokens, lambda x: self.self_attention(x, x, mask))
        updated: Tensor = self.around_feed(tokens, self.feed_forward)
        return updated


class DecoderLayer(nn.Module):
    """Self-attention among the queries, cross-attention to a memory, then feed-forward."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.self_attention = attention(config)
        self.cross_attention = attention(config)
        self.feed_forward = feed_forward(config)
        self.around_self = Residual(config)
        self.around_cross = Residual(config)
        self.around_feed = Residual(config)

    def forward(self, tokens: Tensor, memory: Tensor, mask: Tensor, memory_mask: Tensor) -> Tensor:
        """Update tokens [B, Q, d] from memory [B, T, d]; mask [B, Q, Q], memory_mask [B, T].

        Where a row of memory_mask is empty, cross-attention adds nothing.
        """
        tokens = self.around_self(tokens, lambda x: self.self_attention(x, x, mask))
        tokens = self.around_cross(
            tokens, lambda x: read_memory(self.cross_attention, x, memory, memory_mask)
        )
        updated: Tensor = self.around_feed(tokens, self.feed_forward)
        return updated


def read_memory(cross: Attention, tokens: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
    """Cross-attention of tokens [B, Q, d] to memory [B, T, d]; exactly zero where none is there."""
    anything = memory_mask.any(dim=1)[:, None]
    read: Tensor = cross(tokens, memory, (memory_mask | ~anything)[:, None, :])
    return read * anything[:, :, None]


@torch.no_grad()
def quieten(layer: nn.Module) -> None:
    """Let a layer start by changing its tokens little: its parts' last maps are scaled down."""
    for part in layer.children():
        if isinstance(part, Attention):
            part.out.weight.mul_(QUIET)
        elif isinstance(part, FeedForward):
            cast(nn.Linear, part[-1]).weight.mul_(QUIET)


def attention(config: NetworkConfig) -> Attention:
    """Build an attention of the network's size."""
    return Attention(config.width, heads=config.heads, dropout=config.dropout)


def feed_forward(config: NetworkConfig) -> FeedForward:
    """Build a feed-forward part of the network's size."""
    return FeedForward(config.width, ratio=config.mlp_ratio, dropout=config.dropout)
