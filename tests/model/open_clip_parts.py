"""For the tests of open_clip encoders: tiny architectures with random weights, nothing fetched."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip import factory
from safetensors.torch import save_file

from ovoad_model.open_clip_encoder import names
from ovoad_model.open_clip_encoder.catalogue import Architecture, Tag, architectures

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
TINY: dict[str, dict[str, Any]] = {
    "tiny-vit": {
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 64,
            "layers": 2,
            "width": 32,
            "patch_size": 16,
            "head_width": 16,
        },
        "text_cfg": TEXT,
    },
    "tiny-sigmoid": {
        "embed_dim": 32,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 64,
            "layers": 2,
            "width": 32,
            "patch_size": 16,
            "head_width": 16,
        },
        "text_cfg": TEXT | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    },
    "tiny-resnet": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
        "text_cfg": TEXT,
    },
}


def add_tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let open_clip and the catalogue know the tiny architectures; tiny-sigmoid has a tag."""
    tag = Tag("webli", False, {"mean": (0.5,) * 3, "resize_mode": "squash"}, "org/tiny", "", "")
    known: Mapping[str, Architecture] = {
        **architectures(),
        **{
            name: Architecture(name, config, {"webli": tag} if "sigmoid" in name else {})
            for name, config in TINY.items()
        },
    }
    for name, config in TINY.items():
        monkeypatch.setitem(factory._MODEL_CONFIGS, name, config)
    monkeypatch.setattr(names, "architectures", lambda: known)


def random_model(name: str, *, seed: int = 0, **settings: Any) -> Any:
    """open_clip's own model with random weights, in evaluation mode; biases and norms too."""
    torch.manual_seed(seed)
    model = open_clip.create_model(name, load_weights=False, pretrained_text=False, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


def write_weights(model: Any, path: Path) -> Path:
    """Save a model as safetensors."""
    save_file(
        {key: tensor.contiguous().clone() for key, tensor in model.state_dict().items()}, path
    )
    return path
