"""Convert EfficientNet-Lite2 from its pip package to image.onnx."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from embedded_compact import store_half
from embedded_export import agreement, export, save
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

INPUT_SIZE = 260
MEAN, SPREAD = 127.0, 128.0
"""Google's preprocessing for the Lite family; the package's README shows another family's."""


class FromBytes(nn.Module):
    """The network with its normalisation: uint8 [B, S, S, 3], RGB -> logits [B, 1000]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        """Normalise, move the channels to the front, run."""
        pixels = (frames.float() - MEAN) / SPREAD
        logits: Tensor = self.network(pixels.permute(0, 3, 1, 2))
        return logits


def convert_image_net(weights: Path, out: Path) -> str:
    """Write image.onnx; return how it agrees with torch on noise frames."""
    network = FromBytes(load_lite(weights)).eval()
    frames = noise_frames()
    with torch.no_grad():
        expected = network(frames).numpy()
    fold_batch_norms(network.network)
    model = export(network, frames, "frames", "logits", {0: torch.export.Dim("batch", max=1024)})
    store_half(model)
    save(model, out / "image.onnx")
    return agreement("image.onnx", out / "image.onnx", frames.numpy(), expected)


def load_lite(weights: Path) -> Any:
    """Build the package's network with its weights."""
    return EfficientNet.from_pretrained("efficientnet-lite2", weights_path=str(weights)).eval()


def noise_frames() -> Tensor:
    """Make eight smooth random frames, uint8 [8, S, S, 3]."""
    coarse = np.random.default_rng(0).uniform(0, 255, (8, 3, 9, 9))
    smooth = nn.functional.interpolate(
        torch.from_numpy(coarse), (INPUT_SIZE, INPUT_SIZE), mode="bicubic"
    )
    return smooth.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def fold_batch_norms(network: Any) -> None:
    """Fold each batch norm into the convolution before it, in place."""
    fold(network, "_conv_stem", "_bn0")
    fold(network, "_conv_head", "_bn1")
    for block in network._blocks:
        pairs = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        for convolution, norm in pairs:
            if hasattr(block, convolution):
                fold(block, convolution, norm)


def fold(holder: Any, convolution: str, norm: str) -> None:
    """Fold one batch norm into one convolution."""
    layer, batch_norm = getattr(holder, convolution), getattr(holder, norm)
    layer.weight, layer.bias = fuse_conv_bn_weights(
        layer.weight,
        layer.bias,
        batch_norm.running_mean,
        batch_norm.running_var,
        batch_norm.eps,
        batch_norm.weight,
        batch_norm.bias,
    )
    setattr(holder, norm, nn.Identity())
