"""AdaptFormer adapters beside the feed-forward parts of open_clip's text tower (Chen et al. 2022).

x + MLP(LN(x)) becomes x + MLP(LN(x)) + s · up(ReLU(down(LN(x)))): a bottleneck of 64, s = 0.1, and
an up-projection that starts at zero, so that the tower first answers as it did (paper.md, Network).
The tower's own weights stay frozen and its state dict unchanged: adapters hang on forward hooks.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

BOTTLENECK = 64
ADAPTER_SCALE = 0.1


class Adapter(nn.Module):
    """One bottleneck beside one feed-forward part."""

    def __init__(self, width: int, *, bottleneck: int = BOTTLENECK) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return what is added to the part's answer, for its input [.., width]."""
        added: Tensor = self.up(functional.relu(self.down(tokens)))
        return ADAPTER_SCALE * added


class TextAdapters(nn.Module):
    """One adapter for each block of a text tower; alone their weights are trained and saved."""

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(Adapter(width) for _ in range(blocks))

    def attach(self, model: nn.Module) -> list[RemovableHandle]:
        """Let the adapters work beside the text blocks of an open_clip model; handles undo it."""
        parts = [cast(nn.Module, block.mlp) for block in text_blocks(model)]
        return [
            part.register_forward_hook(_adding(adapter))
            for part, adapter in zip(parts, self.adapters, strict=True)
        ]

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """Attach until the exit."""
        handles = self.attach(model)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class AdaptedText(nn.Module):
    """An open_clip model's frozen text side with trainable adapters."""

    def __init__(self, model: nn.Module, adapters: TextAdapters | None = None) -> None:
        super().__init__()
        self.adapters = adapters or adapters_for(model)
        # In a tuple, so that the frozen tower is neither trained, averaged nor saved
        self._model = (model.requires_grad_(False).eval(),)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids int64 [C, L] to text embeddings [C, D], unit norm."""
        model = cast(Any, self._model[0])
        with self.adapters.attached(model):
            return cast(Tensor, model.encode_text(tokens, normalize=True))


def adapters_for(model: nn.Module) -> TextAdapters:
    """Build adapters that fit an open_clip model's text tower."""
    blocks = text_blocks(model)
    width = cast(nn.LayerNorm, blocks[0].ln_2).normalized_shape[0]
    device = next(blocks[0].parameters()).device
    with torch.device(device):
        return TextAdapters(len(blocks), width)


def fingerprint_of(adapters: TextAdapters) -> str:
    """Digest the weights of adapters: text embeddings depend on them, hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(adapters.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def text_blocks(model: nn.Module) -> list[nn.Module]:
    """Find the residual blocks of an open_clip model's text tower."""
    tower = getattr(model, "text", model)
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", None)
    if blocks is None:
        raise ValueError(
            f"found text tower {type(tower).__name__}, expected one of open_clip's own transformers"
        )
    return list(blocks)


def _adding(adapter: nn.Module) -> Any:
    """A forward hook that adds the adapter's answer to its neighbour's."""

    def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + cast(Tensor, adapter(inputs[0]))

    return add
