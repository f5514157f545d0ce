"""Batches gathered from all processes, with gradients. Knows no network and no loss."""

from typing import Any, cast

import torch
import torch.distributed as processes
from torch import Tensor


def world() -> tuple[int, int]:
    """Return (this process's rank, number of processes); (0, 1) without torch.distributed."""
    if processes.is_available() and processes.is_initialized():
        return processes.get_rank(), processes.get_world_size()
    return 0, 1


def gather_rows(rows: Tensor) -> Tensor:
    """Stack the rows [B, ..] of all processes in order of rank: [R·B, ..]; same B everywhere.

    Gradients flow back to the process that a row came from, summed over all processes. Averaging
    parameter gradients over processes, as DistributedDataParallel does, then gives the gradient
    of the mean of all processes' losses.
    """
    if world()[1] == 1:
        return rows
    if not rows.is_floating_point():
        return _gather(rows.to(torch.int64)).to(rows.dtype)
    return cast(Tensor, _GatherRows.apply(rows))


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        context.rows = len(rows)
        return _gather(rows)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous()
        processes.all_reduce(total)
        start = world()[0] * context.rows
        return total[start : start + context.rows]


def _gather(rows: Tensor) -> Tensor:
    """all_gather without gradients."""
    parts = [torch.empty_like(rows) for _ in range(world()[1])]
    processes.all_gather(parts, rows.contiguous())
    return torch.cat(parts)
