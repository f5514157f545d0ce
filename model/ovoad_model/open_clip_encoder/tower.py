"""Cut an open_clip image tower before its last linear map: bytes to features, features to D.

Knows no file and no text.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from timm.utils.model import reparameterize_model
from torch import Tensor, nn

from ovoad_model.arrays import Float32Array, unit
from ovoad_model.open_clip_encoder.preprocess import Preprocessing


@dataclass(frozen=True)
class Projection:
    """The map from features [.., F] to the joint space: x W + b, or none where W is None."""

    weight: Float32Array | None = None
    bias: Float32Array | None = None

    def __call__(self, features: Float32Array) -> Float32Array:
        """Project features [.., F] and scale to unit norm [.., D]."""
        if self.weight is not None:
            features = features @ self.weight
        if self.bias is not None:
            features = features + self.bias
        return unit(features)


class ImageTower(nn.Module):
    """uint8 frames [B, S, S, 3] to features float32 [B, F].

    The scaling of bytes is part of it, so that one exported file is all of the image side.
    """

    def __init__(self, visual: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.visual = visual
        self.precision = torch.float32
        self.layout = torch.contiguous_format
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        self.register_buffer("scale", (1 / (255 * std))[:, None, None], persistent=False)
        self.register_buffer("shift", (-mean / std)[:, None, None], persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Scale, run the tower, return the pooled features."""
        scale, shift = cast(Tensor, self.scale), cast(Tensor, self.shift)
        pixels = frames.permute(0, 3, 1, 2).float() * scale + shift
        features = self.visual(pixels.to(self.precision, memory_format=self.layout))
        if isinstance(features, tuple):  # CoCa gives its tokens too
            features = features[0]
        return cast(Tensor, features).float()

    def in_precision(self, precision: torch.dtype) -> "ImageTower":
        """Bring the tower's weights to a precision, in place; bytes are scaled in float32."""
        self.visual.to(precision)
        self.precision = precision
        return self


def cut_tower(
    visual: nn.Module, preprocessing: Preprocessing, *, fold: bool = True
) -> tuple[ImageTower, Projection]:
    """Take the last linear map off a tower, in place, where it has one by itself.

    open_clip's ViT: W = proj behind the last norm. timm towers: the linear head, or the trunk's
    classifier where it serves as such. Else (attention pooling, as of ResNets and SigLIP; an MLP
    head) the tower's answer is the embedding and there is no map left. Branches that a tower trains
    side by side and folds into one afterwards (MobileCLIP's) are folded, unless told not to.
    """
    visual.eval()
    projection = _take_projection(visual)
    trunk = getattr(visual, "trunk", None)
    if fold and isinstance(trunk, nn.Module) and _has_branches(trunk):
        visual.trunk = reparameterize_model(trunk)
    return ImageTower(visual, preprocessing).eval().requires_grad_(False), projection


def _take_projection(visual: Any) -> Projection:
    own = getattr(visual, "proj", None)
    if isinstance(own, nn.Parameter):
        visual.proj = None
        return Projection(_numpy(own))
    head = getattr(visual, "head", None)
    if isinstance(head, nn.Sequential) and len(head):
        last = getattr(head, "proj", None)
        if not isinstance(last, nn.Linear):
            return Projection()
        head.proj = nn.Identity()
        return _linear(last)
    trunk: Any = getattr(visual, "trunk", None)
    classifier = trunk.get_classifier() if hasattr(trunk, "get_classifier") else None
    if not isinstance(classifier, nn.Linear):
        return Projection()
    _replace(trunk, classifier, nn.Identity())
    return _linear(classifier)


def _has_branches(trunk: nn.Module) -> bool:
    return any(
        hasattr(module, "reparameterize") or hasattr(module, "fuse") for module in trunk.modules()
    )


def _linear(layer: nn.Linear) -> Projection:
    """A bias of zeros is none."""
    bias = layer.bias
    has_bias = bias is not None and bool(_numpy(bias).any())
    return Projection(_numpy(layer.weight.T), _numpy(bias) if has_bias else None)


def _replace(root: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in root.modules():
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)
                return
    raise AssertionError("a classifier that is not in its network")


def _numpy(tensor: Tensor) -> Float32Array:
    if tensor.is_meta:  # a tower without values, built for its shapes (sizes.py)
        return np.zeros(tuple(tensor.shape), np.float32)
    array: Float32Array = tensor.detach().float().cpu().contiguous().numpy().copy()
    return array
