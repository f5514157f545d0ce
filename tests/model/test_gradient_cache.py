"""Gradient caching and several processes: the same gradients as one batch in one process."""

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as processes
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.network import OVOAD
from ovoad_model.training.gradient_cache import PairEmbedder, cached_backward
from ovoad_model.training.losses import (
    CaptionBatch,
    LossSettings,
    LossTerms,
    PairEmbeddings,
    WindowTensors,
    pair_losses,
)

torch.set_num_threads(2)

SETTINGS = LossSettings(alpha=0.5, beta=0.7)
BATCH = 8


def build(dropout: float = 0.0) -> PairEmbedder:
    torch.manual_seed(0)
    config = NetworkConfig(
        feature_width=16, width=32, past=6, neighbours=4, groups=3, heads=4, dntr_layers=1,
        cluster_layers_before=1, cluster_layers_after=1, text_width=12, current_width=8,
        joint_width=8, head_hidden=16, dropout=dropout,
    )  # fmt: skip
    return PairEmbedder(OVOAD(config)).train()


def draw_batch() -> tuple[WindowTensors, CaptionBatch]:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    neighbours_mask = normal(BATCH, 4) < 0.5
    neighbours_mask[:, -1] = True
    windows = WindowTensors(
        normal(BATCH, 6, 16), normal(BATCH, 4, 16), normal(BATCH, 6) < 0.5, neighbours_mask
    )
    captions = CaptionBatch(
        text_current=normal(BATCH, 12),
        text_global=normal(BATCH, 12),
        text_extra=normal(BATCH, 2, 12),
        extra_mask=normal(BATCH, 2) < 0.5,
        caption_mask=normal(BATCH, 4) < 0.0,
        current_id=torch.tensor([0, 1, 2, 3, 0, 1, 4, 5]),
        global_id=torch.tensor([0, 1, 2, 3, 4, 0, 5, 0]),
    )
    return windows, captions


def part(batch: Any, rows: slice) -> Any:
    return type(batch)(*(tensor[rows] for tensor in batch))


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {
        name.removeprefix("module."): parameter.grad.clone()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def full_backward(embedder: nn.Module, windows: WindowTensors, captions: CaptionBatch) -> LossTerms:
    embeddings = embedder(windows, captions)
    terms = pair_losses(
        embeddings, captions, neighbours_mask=windows.neighbours_mask, settings=SETTINGS
    )
    torch.autograd.backward(terms.total)
    return terms


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("chunk", [1, 3, 8, 20])
def test_cached_gradients_are_the_full_batchs(chunk: int) -> None:
    windows, captions = draw_batch()
    full, cached = build(), build()
    expected = full_backward(full, windows, captions)
    found = cached_backward(cached, windows, captions, chunk=chunk, settings=SETTINGS)
    torch.testing.assert_close(tuple(found), tuple(expected), atol=1e-5, rtol=1e-5)
    assert_same(gradients(cached), gradients(full))


def test_dropout_is_the_same_in_both_passes() -> None:
    windows, captions = draw_batch()
    full, cached = build(dropout=0.3), build(dropout=0.3)
    torch.manual_seed(5)
    parts = [full(part(windows, rows), part(captions, rows)) for rows in (slice(0, 4), slice(4, 8))]
    joined = PairEmbeddings(
        *(torch.cat(one) if one[0].dim() else one[0] for one in zip(*parts, strict=True))
    )
    torch.autograd.backward(
        pair_losses(
            joined, captions, neighbours_mask=windows.neighbours_mask, settings=SETTINGS
        ).total
    )
    expected_draw = torch.rand(1)
    torch.manual_seed(5)
    cached_backward(cached, windows, captions, chunk=4, settings=SETTINGS)
    assert torch.rand(1) == expected_draw
    assert_same(gradients(cached), gradients(full))


def test_gradients_add_to_those_already_there() -> None:
    windows, captions = draw_batch()
    once, twice = build(), build()
    cached_backward(once, windows, captions, chunk=3, settings=SETTINGS)
    for _ in range(2):
        cached_backward(twice, windows, captions, chunk=3, settings=SETTINGS)
    assert_same(gradients(twice), {name: 2 * value for name, value in gradients(once).items()})


def test_scaled_loss_scales_gradients() -> None:
    windows, captions = draw_batch()
    plain, scaled = build(), build()
    cached_backward(plain, windows, captions, chunk=3)
    cached_backward(scaled, windows, captions, chunk=3, scale_loss=lambda loss: 4 * loss)
    assert_same(gradients(scaled), {name: 4 * value for name, value in gradients(plain).items()})


def test_half_precision_stays_near_the_full_one() -> None:
    windows, captions = draw_batch()
    full, half = build(), build()
    expected = cached_backward(full, windows, captions, chunk=3)
    found = cached_backward(half, windows, captions, chunk=3, autocast=torch.bfloat16)
    assert found.total.dtype == torch.float32
    torch.testing.assert_close(found.total, expected.total, atol=0.1, rtol=0.05)


def run_process(rank: int, port: int, cached: bool, folder: str) -> None:
    """One of two processes: half the batch through DistributedDataParallel."""
    torch.set_num_threads(1)
    processes.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    windows, captions = draw_batch()
    rows = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
    embedder = nn.parallel.DistributedDataParallel(build())
    mine = part(windows, rows), part(captions, rows)
    if cached:
        terms = cached_backward(embedder, *mine, chunk=3, settings=SETTINGS)
    else:
        terms = full_backward(embedder, *mine)
    torch.save((gradients(embedder), terms.total.detach()), Path(folder) / f"{rank}.pt")
    processes.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("cached", [False, True])
def test_two_processes_equal_one(cached: bool, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(run_process, (port, cached, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    alone = build()
    expected = full_backward(alone, *draw_batch())
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for found, _ in results:
        assert_same(found, gradients(alone))
    mean = (results[0][1] + results[1][1]) / 2
    torch.testing.assert_close(mean, expected.total.detach(), atol=1e-5, rtol=1e-5)
