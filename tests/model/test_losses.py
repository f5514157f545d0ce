"""Each loss against a slow float64 reference, written as the formula stands."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.network import OVOAD
from ovoad_model.training.losses import (
    CaptionBatch,
    LossSettings,
    dice,
    itc,
    multi_label,
    total_loss,
)

torch.set_num_threads(2)

Array = NDArray[np.float64]
TAU = 0.07
SCALE = torch.tensor(1 / TAU)


def draw_unit(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


def array(tensor: Tensor) -> Array:
    return tensor.double().numpy()


def itc_formula(x: Array, y: Array, same: list[int] | None = None) -> float:
    size = len(x)
    same = same or list(range(size))
    total = 0.0
    for i in range(size):
        others = [j for j in range(size) if j == i or same[j] != same[i]]
        to_y = math.exp(x[i] @ y[i] / TAU) / sum(math.exp(x[i] @ y[j] / TAU) for j in others)
        to_x = math.exp(y[i] @ x[i] / TAU) / sum(math.exp(y[i] @ x[j] / TAU) for j in others)
        total += -0.5 * (math.log(to_y) + math.log(to_x))
    return total / size


def multi_label_formula(
    z: Array, t: Array, there: NDArray[np.bool_], same: list[int] | None = None, *, paper: bool
) -> float:
    size, count = t.shape[:2]
    same = same or list(range(size))
    total = 0.0
    for i in range(size):
        mine = [m for m in range(count) if there[i, m]]
        if not mine:
            continue
        others = [j for j in range(size) if j == i or same[j] != same[i]]
        everyone = sum(
            math.exp(z[i] @ t[j, m] / TAU) for m in range(count) for j in others if there[j, m]
        )
        positives = [math.exp(z[i] @ t[i, m] / TAU) for m in mine]
        if paper:
            video_to_text = math.log(sum(positives) / everyone)
        else:
            video_to_text = sum(math.log(p / everyone) for p in positives) / len(mine)
        text_to_video = 0.0
        for m in mine:
            over = sum(math.exp(t[i, m] @ z[j] / TAU) for j in others)
            text_to_video += math.log(math.exp(t[i, m] @ z[i] / TAU) / over) / len(mine)
        total += -0.5 * (video_to_text + text_to_video)
    return float(total / size)


@pytest.mark.parametrize("same", [None, [0, 1, 0, 2, 1], [0, 0, 0, 0, 0]])
def test_itc_is_the_formula(same: list[int] | None) -> None:
    x, y = draw_unit(5, 8, seed=1), draw_unit(5, 8, seed=2)
    ids = None if same is None else torch.tensor(same)
    assert itc(x, y, SCALE, ids).item() == pytest.approx(
        itc_formula(array(x), array(y), same), abs=1e-5
    )


@pytest.mark.parametrize("variant", ["paper", "mean_of_logs"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("same", [None, [0, 1, 0, 2, 1]])
def test_multi_label_is_the_formula(variant: Any, count: int, same: list[int] | None) -> None:
    video, extra = draw_unit(5, 8, seed=1), draw_unit(5, count, 8, seed=2)
    there = torch.rand(5, count, generator=torch.Generator().manual_seed(3)) < 0.7
    there[0], there[1] = True, False
    ids = None if same is None else torch.tensor(same)
    found = multi_label(video, extra, there, SCALE, ids, variant=variant)
    expected = multi_label_formula(
        array(video), array(extra), there.numpy(), same, paper=variant == "paper"
    )
    assert found.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("variant", ["paper", "mean_of_logs"])
def test_one_extra_caption_of_everyone_is_plain_itc(variant: Any) -> None:
    video, extra = draw_unit(5, 8, seed=1), draw_unit(5, 1, 8, seed=2)
    found = multi_label(video, extra, torch.ones(5, 1) > 0, SCALE, variant=variant)
    torch.testing.assert_close(found, itc(video, extra[:, 0], SCALE))


def test_no_extra_captions_add_nothing() -> None:
    video = draw_unit(5, 8).requires_grad_()
    assert multi_label(video, torch.zeros(5, 0, 8), torch.ones(5, 0) > 0, SCALE).item() == 0.0


def test_absent_extra_captions_add_nothing_and_their_gradient_is_zero() -> None:
    video, extra = draw_unit(5, 8).requires_grad_(), draw_unit(5, 2, 8, seed=2).requires_grad_()
    loss = multi_label(video, extra, torch.zeros(5, 2) > 0, SCALE)
    torch.autograd.backward(loss)
    assert loss.item() == 0.0
    assert video.grad is not None
    assert extra.grad is not None
    assert not video.grad.any()
    assert not extra.grad.any()


def test_dice_is_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    foreground = torch.rand(6, 4, generator=generator)
    target = torch.rand(6, 4, generator=generator) < 0.5
    there = torch.rand(6, 4, generator=generator) < 0.7
    expected = 0.0
    for p_row, g_row, seen in zip(array(foreground), array(target), there.numpy(), strict=True):
        overlap = sum(p * g for p, g, s in zip(p_row, g_row, seen, strict=True) if s)
        sizes = sum(p + g for p, g, s in zip(p_row, g_row, seen, strict=True) if s)
        expected += (1 - (2 * overlap + 1) / (sizes + 1)) / 6
    assert dice(foreground, target, there).item() == pytest.approx(expected, abs=1e-6)


def test_dice_of_empty_masks() -> None:
    nothing, everything = torch.zeros(1, 4), torch.ones(1, 4)
    there = everything > 0
    assert dice(nothing, nothing > 0, there).item() == 0.0
    assert dice(everything, everything > 0, there).item() == 0.0
    assert dice(everything, nothing > 0, there).item() == pytest.approx(1 - 1 / 5)
    assert dice(nothing, everything > 0, there).item() == pytest.approx(1 - 1 / 5)


def test_dice_of_an_empty_target_pushes_the_prediction_down() -> None:
    foreground = torch.full((1, 4), 0.5, requires_grad=True)
    torch.autograd.backward(dice(foreground, torch.zeros(1, 4) > 0, torch.ones(1, 4) > 0))
    assert foreground.grad is not None
    assert (foreground.grad > 0).all()


@pytest.mark.parametrize("variant", ["paper", "mean_of_logs"])
def test_total_is_the_weighted_sum_of_the_formulas(variant: Any) -> None:
    torch.manual_seed(0)
    config = NetworkConfig(
        feature_width=16, width=32, past=6, neighbours=4, groups=3, heads=4, dntr_layers=1,
        cluster_layers_before=1, cluster_layers_after=1, text_width=12, current_width=12,
        joint_width=8, head_hidden=16,
    )  # fmt: skip
    network = OVOAD(config).eval()
    past_mask, there = torch.rand(5, 6) < 0.6, torch.rand(5, 4) < 0.6
    there[:, -1] = True
    captions = CaptionBatch(
        text_current=torch.randn(5, 12),
        text_global=torch.randn(5, 12),
        text_extra=torch.randn(5, 2, 12),
        extra_mask=torch.rand(5, 2) < 0.6,
        caption_mask=torch.rand(5, 4) < 0.5,
    )
    settings = LossSettings(alpha=0.3, beta=0.7, multilabel=variant)
    with torch.no_grad():
        output = network(torch.randn(5, 6, 16), torch.randn(5, 4, 16), past_mask, there)
        terms = total_loss(output, captions, network, neighbours_mask=there, settings=settings)
        text_global = array(network.embed_text_joint(captions.text_global))
        text_extra = array(network.embed_text_joint(captions.text_extra))
        text_current = array(network.embed_text_current(captions.text_current))
    contrastive = itc_formula(array(output.video), text_global) + multi_label_formula(
        array(output.video), text_extra, captions.extra_mask.numpy(), paper=variant == "paper"
    )
    current = itc_formula(array(output.current), text_current)
    # M_B = A · G · Tᵀ, squashed by the network's sigmoid
    similarity = np.einsum("bnk,bke,be->bn", output.assignment, array(output.groups), text_global)
    foreground = 1 / (1 + np.exp(-(10 * similarity + 0)))
    mask = dice(torch.tensor(foreground), captions.caption_mask, there).item()
    assert terms.contrastive.item() == pytest.approx(contrastive, abs=1e-5)
    assert terms.current.item() == pytest.approx(current, abs=1e-5)
    assert terms.mask.item() == pytest.approx(mask, abs=1e-5)
    assert terms.total.item() == pytest.approx(contrastive + 0.3 * current + 0.7 * mask, abs=1e-5)
