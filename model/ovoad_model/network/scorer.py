"""The scorer `ovoad`: trained weights behind the same two calls as the training-free scorers.

numpy in and out; knows no session and no vocabulary.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ovoad_model.arrays import Float32Array
from ovoad_model.encoder import Encoder
from ovoad_model.network.adapters import TextAdapters, fingerprint_of, text_blocks
from ovoad_model.network.network import OVOAD, NetworkOutput
from ovoad_model.network.weights import WeightsError, load_weights
from ovoad_model.scorers import ScorerName, WindowEmbedding
from ovoad_model.window import NEIGHBOURS, PAST, WindowBatch


class OvoadScorer:
    """ŷ = P_AC[-1] + α P_DNTR (paper.md, Scoring) as one dot product.

    P_AC[-1] = g_k · T256, where k is the group that the current frame belongs to most (Eq. 2), and
    P_DNTR = v · T512. So a window's embedding is [g_k ; α v] and a label's [T256 ; T512], E = 256 +
    512 wide. With score_clusters off it is [0 ; v], and ŷ = P_DNTR.
    """

    name: ScorerName = "ovoad"
    background: tuple[str, ...] = ("background",)  # what windows without a caption were taught
    background_floor = float("-inf")

    def __init__(
        self,
        network: OVOAD,
        *,
        device: str = "cpu",
        alpha: float | None = None,
        clusters: bool | None = None,
        text_adapters: str = "",
    ) -> None:
        """Wrap a trained network; alpha and clusters override its config's choice of scoring.

        text_adapters: fingerprint of the adapters that it put on the encoder's text side.
        """
        self.text_adapters = text_adapters
        config = network.config
        if config.past > PAST or config.neighbours != NEIGHBOURS:
            raise ValueError(
                f"found a network of {config.past} past and {config.neighbours} neighbouring "
                f"frames, expected at most {PAST} and exactly {NEIGHBOURS}"
            )
        self._network = network.to(device).eval()
        self._device = torch.device(device)
        self._alpha = config.score_alpha if alpha is None else alpha
        self._clusters = config.score_clusters if clusters is None else clusters

    @property
    def temperature(self) -> float:
        """The learned τ of the space that decides: probabilities are softmax(ŷ / τ)."""
        network = self._network
        scale = network.scale_joint if self._clusters else network.scale_current
        return 1.0 / float(scale().detach())

    def embed_windows(self, windows: WindowBatch) -> WindowEmbedding:
        """Embed B windows: embedding [B, E], assignment [B, 8, K], groups [B, K, E].

        The groups' current-frame part is zero.
        """
        past = self._network.config.past
        with torch.inference_mode():
            output = self._network(
                torch.tensor(windows.past[:, -past:], device=self._device),
                torch.tensor(windows.neighbours, device=self._device),
                torch.tensor(windows.past_mask[:, -past:], device=self._device),
                torch.tensor(windows.neighbours_mask, device=self._device),
            )
            return self._fuse(output)

    def embed_text(self, text: Float32Array) -> Float32Array:
        """Map text embeddings [C, D] to [T256 ; T512]: [C, E]."""
        with torch.inference_mode():
            words = torch.tensor(text, device=self._device)
            parts = [self._network.embed_text_joint(words), self._network.embed_text_current(words)]
            return _numpy(torch.cat(parts, dim=-1))

    def foreground(
        self, assignment: Float32Array, groups: Float32Array, text: Float32Array
    ) -> Float32Array:
        """Background mask M_B = A · G · Tᵀ (Eq. 1) of B windows, squashed as in training: [B, n].

        assignment [B, n, K] and groups [B, K, E] of embed_windows; text [B, E], an embed_text row
        for each window. The paper takes T from the caption; with no caption at hand, take the text
        of the best-scoring label. 1 means that the frame shows it, 0 that it is background.
        """
        joint = self._network.config.joint_width
        with torch.inference_mode():
            mask = self._network.foreground(
                torch.tensor(assignment, device=self._device),
                torch.tensor(groups[..., :joint], device=self._device),
                torch.tensor(text[..., :joint], device=self._device),
            )
            return _numpy(mask)

    def _fuse(self, output: NetworkOutput) -> WindowEmbedding:
        """onehot(argmax_k A[-1]) · G beside α V'_N[-1]."""
        chosen = output.assignment[:, -1].argmax(dim=-1)
        group = output.groups[torch.arange(len(chosen), device=chosen.device), chosen]
        if self._clusters:
            embedding = torch.cat([group, self._alpha * output.current], dim=-1)
        else:
            embedding = torch.cat([torch.zeros_like(group), output.current], dim=-1)
        groups = functional.pad(output.groups, (0, output.current.shape[-1]))
        return WindowEmbedding(_numpy(embedding), _numpy(output.assignment), _numpy(groups))


def load_scorer(
    path: Path, encoder: Encoder, *, device: str = "cpu", text_model: nn.Module | None = None
) -> OvoadScorer:
    """Load trained weights made for this encoder; refuse all others.

    Weights that were trained with text adapters need text_model, the open_clip model behind the
    encoder. The adapters stay on it: from then on the encoder's text is the adapted one, for every
    scorer beside this one too.
    """
    loaded = load_weights(path, encoder)
    adapters = ""
    if loaded.text_adapters is not None:
        _attach_for_good(path, loaded.text_adapters, text_model)
        adapters = fingerprint_of(loaded.text_adapters)
    try:
        return OvoadScorer(loaded.network, device=device, text_adapters=adapters)
    except ValueError as error:
        raise WeightsError(path, str(error)) from error


def _attach_for_good(path: Path, adapters: TextAdapters, text_model: nn.Module | None) -> None:
    """Put trained adapters on an encoder's text tower."""
    if text_model is None:
        raise WeightsError(path, "found text adapters, expected an open_clip encoder to take them")
    device = next(text_blocks(text_model)[0].parameters()).device
    adapters.to(device).attach(text_model)


def _numpy(tensor: torch.Tensor) -> Float32Array:
    array: Float32Array = tensor.float().cpu().numpy()
    return np.ascontiguousarray(array)
