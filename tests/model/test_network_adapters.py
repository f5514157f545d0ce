"""AdaptFormer adapters on open_clip's text towers, randomly initialised."""

from typing import Any

import open_clip
import pytest
import torch
from torch import nn

from ovoad_model.network.adapters import AdaptedText, adapters_for
from ovoad_model.network.network import OVOAD
from ovoad_model.network.size import image_side, parameter_counts

torch.set_num_threads(2)


def build_clip(*, layers: int = 2) -> Any:
    """A small CLIP of open_clip's own class; nothing is downloaded."""
    torch.manual_seed(0)
    return open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "patch_size": 16, "width": 64, "layers": 1},
        text_cfg={"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": layers},
    ).eval()


def draw_tokens() -> torch.Tensor:
    return torch.randint(1, 50, (3, 8), generator=torch.Generator().manual_seed(0))


def test_fresh_adapters_leave_the_text_as_it_was() -> None:
    model, tokens = build_clip(), draw_tokens()
    with torch.no_grad():
        expected = model.encode_text(tokens, normalize=True)
        found = AdaptedText(model)(tokens)
    torch.testing.assert_close(found, expected)


def test_adapter_is_the_formula_in_each_block() -> None:
    model = build_clip()
    block, adapters = model.transformer.resblocks[0], adapters_for(model)
    adapter: Any = adapters.adapters[0]
    nn.init.normal_(adapter.up.weight)
    x = torch.randn(3, 8, 32)
    with torch.no_grad():
        middle = x + block.attention(block.ln_1(x))
        normed = block.ln_2(middle)
        added = torch.relu(normed @ adapter.down.weight.T + adapter.down.bias)
        added = added @ adapter.up.weight.T + adapter.up.bias
        expected = middle + block.mlp(normed) + 0.1 * added
        with adapters.attached(model):
            torch.testing.assert_close(block(x), expected)
        assert not torch.allclose(block(x), expected)


def test_only_adapters_are_trained() -> None:
    model = build_clip()
    text = AdaptedText(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert len(list(text.parameters())) == 2 * 4
    optimizer = torch.optim.AdamW(text.parameters(), lr=0.1)
    for _ in range(2):  # gradients pass an up-projection of zero from the second step on
        optimizer.zero_grad()
        text(draw_tokens())[:, 0].sum().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in text.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_tower_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="found text tower Linear, expected one of open_clip's"):
        adapters_for(nn.Linear(2, 2))


def test_size_with_adapters_is_the_papers() -> None:
    with torch.device("meta"):
        model = open_clip.create_model("ViT-B-16", pretrained=None, device="meta")
    adapters = sum(parameter.numel() for parameter in adapters_for(model).parameters())
    assert adapters == pytest.approx(0.79e6, abs=0.01e6)
    assert image_side(parameter_counts()) + adapters == pytest.approx(109.4e6, abs=0.3e6)
    with torch.device("meta"):
        assert OVOAD().config.text_width == model.text_projection.shape[1]
