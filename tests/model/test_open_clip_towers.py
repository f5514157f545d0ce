"""Cutting image towers: every kind that open_clip lists, for its shapes; scaling, folding."""

import pytest
import torch

from ovoad_model.open_clip_encoder.catalogue import architectures, sizes
from ovoad_model.open_clip_encoder.preprocess import Preprocessing
from ovoad_model.open_clip_encoder.sizes import measure
from ovoad_model.open_clip_encoder.tower import ImageTower, Projection

from .open_clip_parts import random_model

HALF = (0.5, 0.5, 0.5)


KINDS = (
    *("ViT-S-32", "coca_ViT-B-32", "RN50", "convnext_tiny", "convnext_large_d", "EVA02-B-16"),
    *("PE-Core-T-16-384", "ViT-B-32-SigLIP2-256", "ViTamin-S", "MobileCLIP2-S0"),
)
"""One of each kind of tower and of each way in which one ends."""


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_towers_of_every_kind_are_cut_to_the_widths_of_the_table(name: str) -> None:
    """Without memory for weights. The table was made in the same way for all that are listed."""
    image_millions, _, feature_width, joint = measure(architectures()[name])
    known = sizes()[name]
    found = (image_millions, feature_width, joint)
    assert found == (known.image_millions, known.feature_width, known.embedding_width)


def test_bytes_are_scaled_as_mean_and_spread_say() -> None:
    plain = Preprocessing(2, 2, "squash", "bicubic", 0, (0.1, 0.2, 0.3), (0.5, 0.25, 1.0))
    tower = ImageTower(torch.nn.Flatten(), plain)
    frame = torch.full((1, 2, 2, 3), 51, dtype=torch.uint8)  # 51 / 255 = 0.2
    assert tower(frame)[0].tolist() == pytest.approx([0.2] * 4 + [0.0] * 4 + [-0.1] * 4, abs=1e-6)


def test_a_bias_of_the_last_map_is_kept_apart() -> None:
    weight = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).numpy()
    biased = Projection(weight, torch.tensor([1.0, 0.0]).numpy())
    assert biased(torch.tensor([1.0, 4.0]).numpy()).tolist() == pytest.approx([0.6, 0.8])


@pytest.mark.slow
def test_mobileclips_branches_are_folded_without_a_change() -> None:
    model = random_model("MobileCLIP2-S0")
    from ovoad_model.open_clip_encoder.tower import cut_tower

    batch = torch.randint(0, 256, (1, 256, 256, 3), dtype=torch.uint8)
    preprocessing = Preprocessing.of_config(model.visual.preprocess_cfg)
    parameters = sum(p.numel() for p in model.visual.parameters())
    with torch.inference_mode():
        scaled = ImageTower(model.visual, preprocessing)(batch)
        tower, projection = cut_tower(model.visual, preprocessing)
        features = tower(batch).numpy()
    assert sum(p.numel() for p in tower.parameters()) < parameters
    assert projection(features) @ scaled[0].numpy() == pytest.approx(scaled[0].norm().item())
