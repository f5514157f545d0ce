"""Action clustering (AC): bind the frames to K learnable groups. Knows nothing of text.

Letters: B batch, n neighbours, K groups, d width.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.layers import (
    QUIET,
    Attention,
    EncoderLayer,
    feed_forward,
    quieten,
)


class SlotAttention(nn.Module):
    """SlotAttn: groups compete for each frame, and each takes what it won.

    A = softmax over groups of V θ(G')ᵀ / √d in [n, K] (Eq. 1's assignment); the groups receive
    Aᵀ V in [K, n] · [n, d]. As in any attention, both sides of the product and V go through
    learned linear maps (the paper's parameter count contains them). One head, as the paper's √d
    says, for A is one matrix. The groups' map has no bias: the softmax over groups would cancel it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frame_map = nn.Linear(width, width)
        self.group_map = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, groups: Tensor, frames: Tensor, frames_mask: Tensor) -> tuple[Tensor, Tensor]:
        """groups θ(G') [B, K, d] and frames [B, n, d] to (update [B, K, d], A [B, n, K]).

        A's rows sum to 1 over groups; the row of a missing frame (frames_mask [B, n]) is zero, so
        that no group takes anything from it.
        """
        frames_mapped, groups_mapped = self.frame_map(frames), self.group_map(groups)
        logits = frames_mapped @ groups_mapped.transpose(1, 2) / math.sqrt(frames.shape[-1])
        assignment = logits.softmax(dim=-1) * frames_mask[:, :, None]
        taken = assignment.transpose(1, 2) @ self.value(frames)
        return self.out(taken), assignment


class PlainAttention(Attention):
    """Ablation: ordinary cross-attention of groups to frames, one head, with the same two results.

    Each group's weights sum to 1 over frames; as the assignment, each frame's share of the groups'
    logits is reported as SlotAttention does, so that scoring stays defined.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, heads=1, dropout=0.0)

    def forward(  # type: ignore[override]
        self, groups: Tensor, frames: Tensor, frames_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """groups [B, K, d] and frames [B, n, d] to (update [B, K, d], A [B, n, K])."""
        update = super().forward(groups, frames, frames_mask[:, None, :])
        logits = self.key(frames) @ self.query(groups).transpose(1, 2)
        assignment = (logits / math.sqrt(frames.shape[-1])).softmax(dim=-1)
        return update, assignment * frames_mask[:, :, None]


class ObjectCentricUnit(nn.Module):
    """The OC decoder unit: self-attention, slot attention, feed-forward; add & norm after each.

    θ of the paper (dropout and norm) is the add & norm after the self-attention.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        slot = config.object_centric_unit == "slot"
        self.self_attention = Attention(config.width, heads=1, dropout=config.dropout)
        self.slot_attention = (SlotAttention if slot else PlainAttention)(config.width)
        self.feed_forward = feed_forward(config)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    @torch.no_grad()
    def start_as_mean(self) -> None:
        """Start with groups that pass on the sum of their frames, themselves hardly heard.

        θ's gain is small, so all groups take of all frames first and learn to compete.
        """
        quieten(self)
        cast(nn.LayerNorm, self.norms[0]).weight.mul_(QUIET)
        nn.init.eye_(self.slot_attention.value.weight)
        nn.init.eye_(self.slot_attention.out.weight)

    def forward(self, groups: Tensor, frames: Tensor, frames_mask: Tensor) -> tuple[Tensor, Tensor]:
        """groups G [B, K, d], frames [B, n, d] to (G [B, K, d], assignment A [B, n, K])."""
        # (1) G' = softmax(G Gᵀ / √d) G, then θ
        groups = self.norms[0](groups + self.dropout(self.self_attention(groups, groups)))
        # (2) SlotAttn(θ(G'), V'_N)
        update, assignment = self.slot_attention(groups, frames, frames_mask)
        groups = self.norms[1](groups + self.dropout(update))
        # (3) feed-forward
        groups = self.norms[2](groups + self.dropout(self.feed_forward(groups)))
        return groups, assignment


class ActionClustering(nn.Module):
    """[G; V'_N] through encoder layers, the OC unit, then encoder layers over the groups."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.group_tokens = nn.Parameter(torch.randn(config.groups, config.width))
        self.before = nn.ModuleList(
            EncoderLayer(config) for _ in range(config.cluster_layers_before)
        )
        self.unit = ObjectCentricUnit(config)
        self.after = nn.ModuleList(EncoderLayer(config) for _ in range(config.cluster_layers_after))
        pre = config.normalisation == "pre"
        self.norm_before = nn.LayerNorm(config.width) if pre else nn.Identity()
        self.norm_after = nn.LayerNorm(config.width) if pre else nn.Identity()

    def forward(self, frames: Tensor, frames_mask: Tensor) -> tuple[Tensor, Tensor]:
        """frames V'_N [B, n, d], frames_mask [B, n] to (G [B, K, d], assignment A [B, n, K])."""
        count = self.group_tokens.shape[0]
        groups = self.group_tokens.expand(frames.shape[0], -1, -1)

        tokens = torch.cat([groups, frames], dim=1)
        seen = functional.pad(frames_mask, (count, 0), value=True)[:, None, :]
        for layer in self.before:
            tokens = layer(tokens, seen)
        tokens = self.norm_before(tokens)

        groups, assignment = self.unit(tokens[:, :count], tokens[:, count:], frames_mask)

        everyone = torch.ones(1, 1, count, dtype=torch.bool, device=frames.device)
        for layer in self.after:
            groups = layer(groups, everyone)
        return self.norm_after(groups), assignment
