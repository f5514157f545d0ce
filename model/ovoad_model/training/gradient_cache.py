"""Contrastive batches larger than memory, with the same gradients (GradCache: Gao et al. 2021).

Three steps. (1) Embed the batch chunk by chunk without a graph and keep the embeddings alone.
(2) Compute the loss of the whole batch on them, and its gradient at each embedding. (3) Embed
each chunk again with a graph, the same dropout, and send its embeddings' gradients down. Memory
holds one chunk's graph at a time; the price is a second forward.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from ovoad_model.network.network import OVOAD
from ovoad_model.training.losses import (
    CaptionBatch,
    LossSettings,
    LossTerms,
    PairEmbeddings,
    WindowTensors,
    embed_captions,
    pair_losses,
)

Batch = TypeVar("Batch", WindowTensors, CaptionBatch)


class PairEmbedder(nn.Module):
    """The network and its text heads as one forward, which DistributedDataParallel can wrap.

    With a text encoder (AdaptedText), the captions' texts are token ids int64, one axis [.., L]
    in place of the embeddings' [.., D], and the text encoder is trained too.
    """

    def __init__(self, network: OVOAD, text: nn.Module | None = None) -> None:
        super().__init__()
        self.network = network
        self.text = text

    def forward(self, windows: WindowTensors, captions: CaptionBatch) -> PairEmbeddings:
        """Embed B windows and their captions."""
        if self.text is not None:
            captions = captions._replace(
                text_current=self._encode(captions.text_current),
                text_global=self._encode(captions.text_global),
                text_extra=self._encode(captions.text_extra),
            )
        return embed_captions(self.network(*windows), captions, self.network)

    def _encode(self, tokens: Tensor) -> Tensor:
        """Token ids [.., L] to text embeddings [.., D]."""
        assert self.text is not None
        encoded: Tensor = self.text(tokens.flatten(0, -2))
        return encoded.reshape(*tokens.shape[:-1], encoded.shape[-1])


def cached_backward(
    embedder: nn.Module,
    windows: WindowTensors,
    captions: CaptionBatch,
    *,
    chunk: int,
    settings: LossSettings | None = None,
    autocast: torch.dtype | None = None,
    scale_loss: Callable[[Tensor], Tensor] | None = None,
) -> LossTerms:
    """Add the gradient of the whole batch's loss to the parameters, `chunk` windows at a time.

    embedder is a PairEmbedder, bare or in DistributedDataParallel (gradients are then averaged
    over processes once, with the last chunk). autocast is the half precision to embed in, if any;
    scale_loss a GradScaler's scale. Returns the terms, detached.
    """
    count = len(windows.past)
    slices = [slice(start, min(start + chunk, count)) for start in range(0, count, chunk)]
    device = windows.past.device

    def embed(rows: slice) -> PairEmbeddings:
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            embedded = embedder(_rows(windows, rows), _rows(captions, rows))
        return cast(PairEmbeddings, embedded)

    states, parts = [], []
    with torch.no_grad():
        for rows in slices:
            states.append(_random_state(device))
            parts.append(embed(rows))
    after = _random_state(device)

    leaves = _leaves(parts)
    terms = pair_losses(
        leaves, captions, neighbours_mask=windows.neighbours_mask, settings=settings
    )
    torch.autograd.backward(terms.total if scale_loss is None else scale_loss(terms.total))

    for index, rows in enumerate(slices):
        last = index == len(slices) - 1
        _restore_random_state(states[index], device)
        with nullcontext() if last else _without_sync(embedder):
            _send_down(embed(rows), leaves, rows, last=last)
    _restore_random_state(after, device)
    return LossTerms(*(term.detach() for term in terms))


def _leaves(parts: list[PairEmbeddings]) -> PairEmbeddings:
    """Join chunks into one batch of tensors without history that collect gradients."""
    joined = (
        torch.cat(tensors) if tensors[0].dim() else tensors[0].clone()
        for tensors in zip(*parts, strict=True)
    )
    return PairEmbeddings(*(tensor.detach().requires_grad_() for tensor in joined))


def _send_down(again: PairEmbeddings, leaves: PairEmbeddings, rows: slice, *, last: bool) -> None:
    """Backpropagate a chunk's share; scalars, shared by all chunks, go down with the last."""
    tensors, gradients = [], []
    for tensor, leaf in zip(again, leaves, strict=True):
        if tensor.requires_grad and leaf.grad is not None and (tensor.dim() or last):
            tensors.append(tensor)
            gradients.append(leaf.grad[rows] if tensor.dim() else leaf.grad)
    torch.autograd.backward(tensors, gradients)


def _without_sync(embedder: nn.Module) -> AbstractContextManager[None]:
    """Keep DistributedDataParallel from averaging gradients before the last chunk."""
    if isinstance(embedder, nn.parallel.DistributedDataParallel):
        return cast(AbstractContextManager[None], embedder.no_sync())
    return nullcontext()


def _rows(batch: Batch, rows: slice) -> Batch:
    """Cut some rows out of every tensor of a batch."""
    cut: Any = (None if tensor is None else tensor[rows] for tensor in batch)
    return type(batch)(*cut)


RandomState = tuple[Tensor, Tensor | None]


def _random_state(device: torch.device) -> RandomState:
    """The generators that dropout draws from: the CPU's and, on a GPU, the device's."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), cuda


def _restore_random_state(state: RandomState, device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
