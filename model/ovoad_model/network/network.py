"""The OV-OAD network, top to bottom as the data flows. Knows no loss, no session and no file.

    past [B, p, F]        neighbours [B, n, F]              text [.., D]
        | + positions         | + positions                  |
        +--- keys, values --> DNTR (queries)                 |
                              |                              |
                         V'_N [B, n, d] -- last --> current head -> current [B, 512]
                              |                              +--> embed_text_current [.., 512]
             G [K, d] --> action clustering                  |
                              |                              +--> embed_text_joint [.., 256]
             G [B, K, d], assignment A [B, n, K]
                              |
                       joint head -> groups [B, K, 256]; their mean before it -> video [B, 256]

Letters (paper.md): B batch, p = 24 past frames (6 s), n = 8 neighbouring frames (2 s, the last is
now), K = 8 groups, F and D widths of the encoder's features and texts, d = 768 network width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ovoad_model.network.clustering import ActionClustering, ObjectCentricUnit
from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.dntr import EncoderCrossDntr, PositionTable, build_dntr
from ovoad_model.network.heads import JointHead, Scale, unit
from ovoad_model.network.layers import DecoderLayer, EncoderLayer, quieten

MASK_SCALE = 10.0


class NetworkOutput(NamedTuple):
    """What the network makes of B windows; every embedding has unit norm.

    current [B, 512]: the last neighbour, in the encoder's own text space.
    groups [B, K, 256] and video [B, 256] (head of the groups' mean): in the joint space.
    assignment [B, n, K]: row i says which group frame i belongs to; a missing frame's row is zero.
    """

    current: Tensor
    groups: Tensor
    video: Tensor
    assignment: Tensor


class OVOAD(nn.Module):
    """Frames of a window to embeddings that captions and labels can be compared with."""

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        config = config or NetworkConfig()
        self.config = config
        same = config.feature_width == config.width
        self.input_map = nn.Identity() if same else nn.Linear(config.feature_width, config.width)
        self.past_positions = PositionTable(config.past, config.width)
        self.neighbour_positions = PositionTable(config.neighbours, config.width)
        self.dntr = build_dntr(config)
        self.clustering = ActionClustering(config)
        self.current_head = nn.Linear(config.width, config.current_width, bias=False)
        self.joint_head = JointHead(
            config.width, hidden=config.head_hidden, joint=config.joint_width
        )
        same = config.text_width == config.current_width
        self.text_current_map = (
            nn.Identity() if same else nn.Linear(config.text_width, config.current_width)
        )
        self.text_joint_head = JointHead(
            config.text_width, hidden=config.head_hidden, joint=config.joint_width
        )
        self.scale_current = Scale(config.temperature)
        self.scale_joint = Scale(config.temperature)
        self.mask_scale = nn.Parameter(torch.tensor(MASK_SCALE))
        self.mask_bias = nn.Parameter(torch.tensor(0.0))
        self._initialise()

    def forward(
        self, past: Tensor, neighbours: Tensor, past_mask: Tensor, neighbours_mask: Tensor
    ) -> NetworkOutput:
        """past [B, p, F], neighbours [B, n, F]; masks bool [B, p], [B, n], True = a frame is there.

        The current frame, the last neighbour, must be there. Missing frames may hold anything.
        With an empty past, cross-attention adds nothing.
        """
        # Features to tokens of width d, placed in time
        past = self.past_positions(self._tokens(past, past_mask))  # [B, p, d]
        neighbours = self.neighbour_positions(self._tokens(neighbours, neighbours_mask))  # V_N

        # DNTR: V'_N [B, n, d], neighbours that have read the distant past
        frames = self.dntr(past, neighbours, past_mask, neighbours_mask)

        # Current frame V'_N[-1], compared with text in the encoder's own space (P_DNTR, L_current)
        current = self.current_head(frames[:, -1])

        # Action clustering: groups G [B, K, d] and assignment A [B, n, K]
        groups, assignment = self.clustering(frames, neighbours_mask)

        # Groups (P_AC, L_mask) and their mean z_V (L_contras) into the joint space
        return NetworkOutput(
            current=unit(current),
            groups=unit(self.joint_head(groups)),
            video=unit(self.joint_head(groups.mean(dim=1))),
            assignment=assignment,
        )

    def embed_text_current(self, text: Tensor) -> Tensor:
        """Text embeddings [.., D] to the current frame's space [.., 512], unit norm.

        The identity where both widths agree, so that the encoder's zero-shot space stays; a
        learned linear map where the config makes them differ (free in the paper).
        """
        return unit(self.text_current_map(text))

    def embed_text_joint(self, text: Tensor) -> Tensor:
        """Text embeddings [.., D] to the joint space of groups and videos [.., 256], unit norm."""
        return unit(self.text_joint_head(text))

    def foreground(self, assignment: Tensor, groups: Tensor, text: Tensor) -> Tensor:
        """Background mask M_B = A · G · Tᵀ (Eq. 1) as the chance that frames show text: [B, n].

        assignment [B, n, K], groups [B, K, 256], text T [B, 256]. Squashed by a sigmoid with a
        learned scale and bias (free in the paper), for cosines alone rarely leave the middle.
        """
        similarity = (assignment @ (groups @ text[:, :, None]))[:, :, 0]
        return torch.sigmoid(self.mask_scale * similarity + self.mask_bias)

    @torch.no_grad()
    def initialise_current_head(self, projection: Tensor) -> None:
        """Start the current-frame head as the encoder's own image projection [F, 512].

        Behind a learned input map the head starts as the map's pseudo-inverse followed by the
        projection: the same function of the features where width >= F.
        """
        expected = (self.config.feature_width, self.config.current_width)
        if tuple(projection.shape) != expected:
            raise ValueError(f"found projection {tuple(projection.shape)}, expected {expected}")
        head = projection.to(self.current_head.weight).T
        if isinstance(self.input_map, nn.Linear):
            head = head @ torch.linalg.pinv(self.input_map.weight)
        self.current_head.weight.copy_(head)

    @torch.no_grad()
    def start_from_encoder(self, projection: Tensor, texts: Tensor | None = None) -> None:
        """Start all heads where the encoder's zero-shot space is (free in the paper for the joint).

        projection [F, 512] as for initialise_current_head. The joint space starts as 256
        directions of the encoder's: the principal ones of texts [C, D], captions of the training
        data say, or random ones. Both joint heads start exactly linear. With the initialisation
        "near_identity" P_DNTR then starts near CLIP-I, and P_AC near CLIP-II, the neighbours' mean.
        """
        config = self.config
        if config.text_width != config.current_width:
            raise ValueError(
                f"found text width {config.text_width} and current width {config.current_width}, "
                "expected equal ones to start from an encoder"
            )
        self.initialise_current_head(projection)
        if texts is None:
            texts = torch.randn(4 * config.text_width, config.text_width)
        _, directions = torch.linalg.eigh((texts.T @ texts).float())  # weakest first
        basis = directions.T.flip(0)[: config.joint_width].to(self.current_head.weight)
        self.joint_head.become_linear(basis @ self.current_head.weight)
        self.text_joint_head.become_linear(basis)

    def clip_scales(self) -> None:
        """Keep the learned 1/τ at or below 100; call after each optimiser step."""
        self.scale_current.clip()
        self.scale_joint.clip()

    def _tokens(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Features [B, T, F] to tokens [B, T, d]; what missing frames hold is wiped."""
        there = torch.where(mask[:, :, None], frames, torch.zeros_like(frames))
        tokens: Tensor = self.input_map(there * self.config.feature_scale)
        return tokens

    def _initialise(self) -> None:
        """Xavier maps with zero biases; an orthogonal input map, so that no feature is lost."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if isinstance(self.input_map, nn.Linear):
            nn.init.orthogonal_(self.input_map.weight)
        if self.config.initialisation == "near_identity":
            for module in self.modules():
                if isinstance(module, EncoderLayer | DecoderLayer | EncoderCrossDntr):
                    quieten(module)
                elif isinstance(module, ObjectCentricUnit):
                    module.start_as_mean()
