"""Write sizes.json: parameters and widths of every model that open_clip lists.

    python -m ovoad_model.open_clip_encoder.sizes

Builds them without memory for weights (torch's meta device); fetches nothing, so the text towers
whose config lies on a hub are left out. `ovoad encoders` reads the file and needs no torch.
"""

import json
import sys
from typing import Any

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg, _build_text_tower, _build_vision_tower
from torch import nn

from ovoad_model.open_clip_encoder.catalogue import (
    SIZES,
    Architecture,
    architectures,
    open_clip_version,
)
from ovoad_model.open_clip_encoder.preprocess import Preprocessing
from ovoad_model.open_clip_encoder.tower import cut_tower

SizeRow = tuple[float, float | None, int, int]


def main() -> int:
    """Build every model in turn and write the table."""
    sizes: dict[str, SizeRow] = {}
    for name, architecture in architectures().items():
        sizes[name] = measure(architecture)
        print(name, *sizes[name])
    members = {"open_clip": open_clip_version(), "sizes": sizes}
    SIZES.write_text(json.dumps(members, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(architecture: Architecture) -> SizeRow:
    """Million parameters of the image and the text tower, feature width F, joint width D."""
    config = architecture.config
    joint = int(config["embed_dim"])
    vision = CLIPVisionCfg(**{**config["vision_cfg"], "timm_model_pretrained": False})
    with torch.device("meta"):
        visual = _build_vision_tower(joint, vision)
        text = None
        if architecture.text_tower is None:
            text = _build_text_tower(joint, CLIPTextCfg(**config["text_cfg"]))
    image_millions = _millions(visual)
    return image_millions, None if text is None else _millions(text), feature_width(visual), joint


def feature_width(visual: Any) -> int:
    """Cut the tower and run it without values: the width of its features."""
    height, width = open_clip.utils.to_2tuple(visual.image_size)
    three = (0.5, 0.5, 0.5)
    with torch.device("meta"):
        plain = Preprocessing(height, width, "shortest", "bicubic", 0, three, three)
        tower, _ = cut_tower(visual, plain, fold=False)
        return int(tower(torch.zeros((2, height, width, 3), dtype=torch.uint8)).shape[-1])


def _millions(module: nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 1)


if __name__ == "__main__":
    sys.exit(main())
