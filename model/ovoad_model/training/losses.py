"""The three proxy tasks: L = L_contras + α L_current + β L_mask (paper.md, Training).

Pure functions of embeddings; know no data set, no optimiser and no network but its text heads.
Letters: B windows of this process, N windows of all processes, M extra captions, n neighbours.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ovoad_model.network.network import OVOAD, NetworkOutput
from ovoad_model.training.distributed import gather_rows, world

MultiLabel = Literal["paper", "mean_of_logs"]

HIDDEN = -1e30  # a logit that no softmax sees; finite, so that an empty row has gradients


class WindowTensors(NamedTuple):
    """B windows: past [B, p, F], neighbours [B, n, F], masks bool [B, p], [B, n]."""

    past: Tensor
    neighbours: Tensor
    past_mask: Tensor
    neighbours_mask: Tensor


class CaptionBatch(NamedTuple):
    """What B windows say, as the encoder's text embeddings.

    text_current [B, D]: the caption of the current frame; text_global [B, D]: T_0.
    text_extra [B, M, D] with extra_mask bool [B, M]: T_1 … T_M; M may be 0.
    caption_mask bool [B, n]: M_GT, True where a neighbour lies inside a caption.
    current_id and global_id int64 [B], both or neither: equal numbers mean the same sentence.
    With them, windows that say the same are no longer each other's negatives; without them (the
    paper's formula) they are.
    """

    text_current: Tensor
    text_global: Tensor
    text_extra: Tensor
    extra_mask: Tensor
    caption_mask: Tensor
    current_id: Tensor | None = None
    global_id: Tensor | None = None


@dataclass(frozen=True)
class LossSettings:
    """Weights of the terms, and the one fork of L_contras.

    multilabel: "paper", log of the sum over captions; "mean_of_logs", GroupViT's variant.
    """

    alpha: float = 0.1
    beta: float = 1.0
    multilabel: MultiLabel = "paper"


class LossTerms(NamedTuple):
    """Scalars: total = contrastive + α current + β mask."""

    total: Tensor
    contrastive: Tensor
    current: Tensor
    mask: Tensor


class PairEmbeddings(NamedTuple):
    """All that the losses need of B windows and their captions; embeddings have unit norm.

    current and text_current [B, 512]; video and text_global [B, 256]; text_extra [B, M, 256];
    foreground [B, n] in 0 to 1 (M_B); then scalars: scale_current and scale_joint, the learned
    1/τ.
    """

    current: Tensor
    text_current: Tensor
    video: Tensor
    text_global: Tensor
    text_extra: Tensor
    foreground: Tensor
    scale_current: Tensor
    scale_joint: Tensor


def total_loss(
    output: NetworkOutput,
    captions: CaptionBatch,
    network: OVOAD,
    *,
    neighbours_mask: Tensor,
    settings: LossSettings | None = None,
) -> LossTerms:
    """Compare the network's output with the captions; neighbours_mask [B, n] as given to it."""
    embeddings = embed_captions(output, captions, network)
    return pair_losses(embeddings, captions, neighbours_mask=neighbours_mask, settings=settings)


def embed_captions(output: NetworkOutput, captions: CaptionBatch, network: OVOAD) -> PairEmbeddings:
    """Send the captions through the network's text heads and set them beside its output."""
    text_global = network.embed_text_joint(captions.text_global)
    return PairEmbeddings(
        current=output.current,
        text_current=network.embed_text_current(captions.text_current),
        video=output.video,
        text_global=text_global,
        text_extra=network.embed_text_joint(captions.text_extra),
        foreground=network.foreground(output.assignment, output.groups, text_global),
        scale_current=network.scale_current(),
        scale_joint=network.scale_joint(),
    )


def pair_losses(
    embeddings: PairEmbeddings,
    captions: CaptionBatch,
    *,
    neighbours_mask: Tensor,
    settings: LossSettings | None = None,
) -> LossTerms:
    """Compute all terms, negatives gathered from all processes, in float32 at least."""
    settings = settings or LossSettings()
    with torch.autocast(embeddings.video.device.type, enabled=False):
        pairs = PairEmbeddings(*(_precise(tensor) for tensor in embeddings))
        contrastive = itc(pairs.video, pairs.text_global, pairs.scale_joint, captions.global_id)
        contrastive = contrastive + multi_label(
            pairs.video,
            pairs.text_extra,
            captions.extra_mask,
            pairs.scale_joint,
            captions.global_id,
            variant=settings.multilabel,
        )
        current = itc(pairs.current, pairs.text_current, pairs.scale_current, captions.current_id)
        mask = dice(pairs.foreground, captions.caption_mask, neighbours_mask)
        total = contrastive + settings.alpha * current + settings.beta * mask
    return LossTerms(total, contrastive, current, mask)


def itc(x: Tensor, y: Tensor, scale: Tensor, same: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE L_ITC(x, y) of unit vectors [B, D], scale = 1/τ, same int64 [B] or None.

    −½ (log exp(x_i·y_i/τ) / Σ_j exp(x_i·y_j/τ) + log exp(y_i·x_i/τ) / Σ_j exp(y_i·x_j/τ)), the
    mean over i.
    """
    own, hidden = _own_columns(len(x), x.device), _hidden_columns(same)
    loss = torch.zeros((), dtype=x.dtype, device=x.device)
    for rows, columns in ((x, y), (y, x)):
        logits = scale * (rows @ gather_rows(columns).T)
        if hidden is not None:
            logits = logits.masked_fill(hidden, HIDDEN)
        loss = loss + 0.5 * functional.cross_entropy(logits, own)
    return loss


def multi_label(
    video: Tensor,
    extra: Tensor,
    extra_mask: Tensor,
    scale: Tensor,
    same: Tensor | None = None,
    *,
    variant: MultiLabel = "paper",
) -> Tensor:
    """The multi-label term of L_contras: video [B, E] and captions T_1 … T_M [B, M, E].

    Video to text: −½ log [Σ_m exp(z_i·z_i^Tm/τ) / Σ_m Σ_j exp(z_i·z_j^Tm/τ)].
    Text to video: −½ (1/M) Σ_m log [exp(z_i^Tm·z_i/τ) / Σ_j exp(z_i^Tm·z_j/τ)].
    The mean over i; captions that extra_mask [B, M] leaves out are in no sum, and a window
    without any adds nothing.
    """
    if extra.shape[1] == 0:
        return video.new_zeros(())
    own, hidden = _own_columns(len(video), video.device), _hidden_columns(same)
    has_any = extra_mask.any(dim=1)
    count = extra_mask.sum(dim=1).clamp(min=1)

    # Video to text: logits [B, N, M], own captions [B, M], denominator [B]
    logits = scale * torch.einsum("be,nme->bnm", video, gather_rows(extra))
    logits = logits.masked_fill(~gather_rows(extra_mask), HIDDEN)
    if hidden is not None:
        logits = logits.masked_fill(hidden[:, :, None], HIDDEN)
    mine = logits[torch.arange(len(video), device=video.device), own]
    everyone = logits.flatten(1).logsumexp(dim=1)
    if variant == "paper":
        video_to_text = mine.logsumexp(dim=1) - everyone
    else:
        video_to_text = ((mine - everyone[:, None]) * extra_mask).sum(dim=1) / count

    # Text to video: logits [B, M, N]
    logits = scale * (extra @ gather_rows(video).T)
    if hidden is not None:
        logits = logits.masked_fill(hidden[:, None, :], HIDDEN)
    mine = logits.log_softmax(dim=2)[torch.arange(len(video), device=video.device), :, own]
    text_to_video = (mine * extra_mask).sum(dim=1) / count

    both = torch.where(has_any, video_to_text + text_to_video, 0.0)
    return -0.5 * both.mean()


def dice(foreground: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """L_dice(M_B, M_GT) of foreground [B, n] in 0 to 1, target bool [B, n], where mask bool [B, n].

    1 − (2 Σ pg + 1) / (Σ p + Σ g + 1) of each window, the mean over windows. The 1 (free in the
    paper) makes an empty prediction of an empty target cost nothing.
    """
    there = mask.to(foreground.dtype)
    p, g = foreground * there, target.to(foreground.dtype) * there
    overlap = (2 * (p * g).sum(dim=1) + 1) / (p.sum(dim=1) + g.sum(dim=1) + 1)
    return (1 - overlap).mean()


def _own_columns(rows: int, device: torch.device) -> Tensor:
    """Where this process's windows stand among all: int64 [B]."""
    return torch.arange(rows, device=device) + world()[0] * rows


def _hidden_columns(same: Tensor | None) -> Tensor | None:
    """Which of all windows say the same as each of ours and are another window: bool [B, N]."""
    if same is None:
        return None
    equal = same[:, None] == gather_rows(same)[None, :]
    own = functional.one_hot(_own_columns(len(same), same.device), equal.shape[1]).bool()
    return equal & ~own


def _precise(tensor: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 stay."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
