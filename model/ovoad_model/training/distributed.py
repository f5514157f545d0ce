"""What processes tell each other: rows with gradients, means, facts. Knows no network, no loss."""

from typing import Any, TypeVar, cast

import torch
import torch.distributed as processes
from torch import Tensor

Fact = TypeVar("Fact")


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


def mean_of_all(values: Tensor) -> Tensor:
    """Return the mean of all processes' values [..], without gradients."""
    count = world()[1]
    if count == 1:
        return values
    total = values.detach().clone()
    processes.all_reduce(total)
    return total / count


def tell_all(fact: Fact) -> Fact:
    """Return the first process's fact in every process; others' count for nothing."""
    if world()[1] == 1:
        return fact
    told = [fact]
    processes.broadcast_object_list(told, src=0)
    return told[0]


def ask_all(fact: Fact) -> list[Fact]:
    """Return all processes' facts in order of rank."""
    facts = [fact] * world()[1]
    if len(facts) > 1:
        processes.all_gather_object(facts, fact)
    return facts


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
