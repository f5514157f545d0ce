"""The training loop: batches in, a trained network out; stops and resumes exactly.

Knows no file formats but its own checkpoint, and no encoder: texts come as a table of embeddings.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ovoad_model.network.network import OVOAD
from ovoad_model.training.checkpoint import (
    Checkpoint,
    name_not_finite,
    random_state,
    restore_random_state,
)
from ovoad_model.training.dataset import Batch, WindowDataset
from ovoad_model.training.distributed import ask_all, mean_of_all, tell_all, world
from ovoad_model.training.fingerprint import differences
from ovoad_model.training.gradient_cache import PairEmbedder, cached_backward
from ovoad_model.training.losses import (
    CaptionBatch,
    LossSettings,
    LossTerms,
    PairEmbeddings,
    WindowTensors,
    pair_losses,
)
from ovoad_model.training.run_description import check_same_run, describe_run
from ovoad_model.training.run_log import LogRow, RunLog
from ovoad_model.training.settings import TrainingError, TrainingSettings, learning_rate_at

CHECKPOINT_NAME = "checkpoint.pt"

LEAST_LOSS_SCALE: Final = 2.0**-16
"""Where float16's loss scale ends: each step with an infinite gradient halves it, from 2**16 on."""


@dataclass(frozen=True)
class StepResult:
    """What one step measured, on the whole batch of all processes."""

    terms: LossTerms
    gradient_norm: float
    learning_rate: float


class Trainer:
    """Train a network on a data set of windows.

    text_table [U, D] has the embedding of each of the data set's `texts`; with `text`, a trainable
    text encoder (open_clip's with adapters), their token ids [U, T].

    FOLDER/checkpoint.pt holds the state. With one process or, started by torchrun, several: each
    takes its share of every batch, negatives are gathered from all, the first one alone reads and
    writes files. `data` describes what the data set was made of; a checkpoint of other data is not
    resumed, and processes of different data do not train together.
    """

    def __init__(
        self,
        network: OVOAD,
        dataset: WindowDataset,
        text_table: Tensor,
        settings: TrainingSettings,
        folder: Path,
        *,
        text: nn.Module | None = None,
        data: Mapping[str, object] | None = None,
        tensorboard: bool = True,
    ) -> None:
        self.network = network
        self.settings = settings
        self.step = 0
        self._stop_asked = False
        self._dataset = dataset
        self._device = next(network.parameters()).device
        self._texts = text_table.to(self._device)
        self._folder = folder
        self._tensorboard = tensorboard
        self._rank, self._processes = world()
        self._batch_size = _batch_size(settings, dataset.windows_per_epoch, self._processes)
        self.steps_per_epoch = dataset.windows_per_epoch // self._batch_size
        self.total_steps = settings.epochs * self.steps_per_epoch
        self._run = describe_run(settings, network, dataset, data or {}, text)
        check_same_run(ask_all(self._run))
        self._losses = LossSettings(alpha=settings.alpha, beta=settings.beta)
        self._precision: torch.dtype = getattr(torch, settings.precision)
        self._embedder = PairEmbedder(network, text)
        self._shared: nn.Module = self._embedder
        if self._processes > 1:
            self._shared = DistributedDataParallel(self._embedder)
        self._optimizer = build_optimizer(self._embedder, settings)
        scaled = settings.precision == "float16" and self._device.type == "cuda"
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=scaled)
        # Processes must not drop the same units; the network itself is the same in all.
        torch.manual_seed(settings.seed + 1_000_003 * self._rank)

    def ask_to_stop(self) -> None:
        """Let `run` end after the step at hand, with a checkpoint; safe in a signal handler."""
        self._stop_asked = True

    @property
    def checkpoint_path(self) -> Path:
        """Where the run's state is kept."""
        return self._folder / CHECKPOINT_NAME

    def resume(self) -> None:
        """Go on from the checkpoint; raises TrainingError where it is of another run.

        The first process reads it for all: other machines need not see the folder.
        """
        first = self._rank == 0
        checkpoint = tell_all(Checkpoint.read(self.checkpoint_path) if first else None)
        assert checkpoint is not None
        if checkpoint.run != self._run:
            raise TrainingError(
                f"{self.checkpoint_path}: found a checkpoint of another run: "
                f"{differences(checkpoint.run, self._run)}"
            )
        if len(checkpoint.random) != self._processes:
            raise TrainingError(
                f"{self.checkpoint_path}: found a checkpoint of {len(checkpoint.random)} "
                f"processes, expected {self._processes}"
            )
        self._embedder.load_state_dict(checkpoint.network)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        self._scaler.load_state_dict(checkpoint.scaler)
        restore_random_state(checkpoint.random[self._rank])
        self.step = checkpoint.step

    def save(self) -> None:
        """Write the checkpoint; every process takes part, the first one writes.

        Raises TrainingError, writing nothing, where the state is not finite.
        """
        network, optimizer = self._embedder.state_dict(), self._optimizer.state_dict()
        spoilt = name_not_finite({"network": network, "optimizer": optimizer})
        if spoilt is not None:
            raise TrainingError(
                f"found values in {spoilt} that are not finite after step {self.step}, expected "
                "numbers; the last checkpoint is untouched"
            )
        states = ask_all(random_state())
        if self._rank == 0:
            Checkpoint(
                step=self.step,
                run=self._run,
                network=network,
                optimizer=optimizer,
                scaler=self._scaler.state_dict(),
                random=states,
            ).write(self.checkpoint_path)

    def run(self) -> bool:
        """Train to the end, or until asked to stop; tell whether the end was reached.

        Writes a checkpoint every checkpoint_minutes and when it stops, either way.
        """
        self._embedder.train()
        log = None
        if self._rank == 0:
            log = RunLog(self._folder, self.step, tensorboard=self._tensorboard)
        try:
            last_save_s = last_log_s = time.monotonic()
            for epoch, batch in self._batches():
                result = self.train_step(batch)
                if log is not None and (self.step - 1) % self.settings.log_steps == 0:
                    now_s = time.monotonic()
                    log.add(self._log_row(result, epoch, now_s - last_log_s))
                    last_log_s = now_s
                due = time.monotonic() - last_save_s > 60 * self.settings.checkpoint_minutes
                if self._agreed(due):
                    self.save()
                    last_save_s = time.monotonic()
                if self._agreed(self._stop_asked):
                    break
            self.save()
        finally:
            if log is not None:
                log.close()
        return self.step == self.total_steps

    def train_step(self, batch: Batch) -> StepResult:
        """Take one step of the optimiser on this process's share of a batch.

        Raises TrainingError, leaving the weights alone, where loss or gradient is not finite;
        with float16's loss scaling an infinite gradient is ordinary, and the step is skipped.
        """
        windows, captions = self._to_tensors(batch)
        rate = learning_rate_at(self.step, self.settings, self.steps_per_epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        terms = _of_whole_batch(self._backward(windows, captions))
        if not torch.isfinite(terms.total):
            raise TrainingError(
                f"found loss {float(terms.total)} at step {self.step}, expected a number; the "
                "last checkpoint is untouched"
            )
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._embedder.parameters(), self.settings.clip_norm)
        self._check_gradient(float(norm))
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.network.clip_scales()
        self.step += 1
        return StepResult(terms, float(norm), rate)

    def _check_gradient(self, norm: float) -> None:
        """Refuse a gradient that would spoil the weights and that no loss scale would mend."""
        scaled = self._scaler.is_enabled()
        if math.isfinite(norm) or (scaled and self._scaler.get_scale() >= LEAST_LOSS_SCALE):
            return
        raise TrainingError(
            f"found gradient norm {norm} at step {self.step}, expected a number; the last "
            "checkpoint is untouched"
        )

    def _backward(self, windows: WindowTensors, captions: CaptionBatch) -> LossTerms:
        """Put the batch's gradients into the parameters, in chunks where the settings say so."""
        chunk = self.settings.chunk
        half = None if self._precision == torch.float32 else self._precision
        if chunk is not None and chunk < len(windows.past):
            return cached_backward(
                self._shared,
                windows,
                captions,
                chunk=chunk,
                settings=self._losses,
                autocast=half,
                scale_loss=self._scaler.scale,
            )
        with torch.autocast(self._device.type, dtype=half, enabled=half is not None):
            embeddings = cast(PairEmbeddings, self._shared(windows, captions))
        terms = pair_losses(
            embeddings,
            captions,
            neighbours_mask=windows.neighbours_mask,
            settings=self._losses,
        )
        self._scaler.scale(terms.total).backward()  # type: ignore[no-untyped-call]
        return LossTerms(*(term.detach() for term in terms))

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        """Yield (epoch, this process's share of a batch) from the step reached on."""
        share = self._batch_size // self._processes
        while self.step < self.total_steps:
            epoch, position = divmod(self.step, self.steps_per_epoch)
            draws = self._dataset.draw(epoch)
            for place in range(position, self.steps_per_epoch):
                first = place * self._batch_size + self._rank * share
                rows = range(first, first + share)
                yield epoch, self._dataset.batch(draws, epoch, rows)

    def _to_tensors(self, batch: Batch) -> tuple[WindowTensors, CaptionBatch]:
        past = self.network.config.past  # may be fewer than the data set's 24: the latest ones
        windows = WindowTensors(
            past=self._tensor(batch.past[:, -past:]),
            neighbours=self._tensor(batch.neighbours),
            past_mask=self._tensor(batch.past_mask[:, -past:]),
            neighbours_mask=self._tensor(batch.neighbours_mask),
        )
        ignore = self.settings.repeated_texts == "ignored"
        whole, current = self._tensor(batch.whole), self._tensor(batch.current)
        captions = CaptionBatch(
            text_current=self._texts[current],
            text_global=self._texts[whole],
            text_extra=self._texts[self._tensor(batch.extra)],
            extra_mask=self._tensor(batch.extra_mask),
            caption_mask=self._tensor(batch.inside),
            current_id=current if ignore else None,
            global_id=whole if ignore else None,
        )
        return windows, captions

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device, non_blocking=True)

    def _agreed(self, wish: bool) -> bool:
        """Tell whether any process wishes it, so that all do the same."""
        if self._processes == 1:
            return wish
        flag = torch.tensor([wish], dtype=torch.int32, device=self._device)
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
        return bool(flag.item())

    def _log_row(self, result: StepResult, epoch: int, elapsed_s: float) -> LogRow:
        steps = min(self.settings.log_steps, self.step)
        return LogRow(
            step=self.step - 1,
            epoch=epoch,
            learning_rate=result.learning_rate,
            total=float(result.terms.total),
            contrastive=float(result.terms.contrastive),
            current=float(result.terms.current),
            mask=float(result.terms.mask),
            gradient_norm=result.gradient_norm,
            temperature_current=1 / float(self.network.scale_current().detach()),
            temperature_joint=1 / float(self.network.scale_joint().detach()),
            windows_per_second=steps * self._batch_size / max(elapsed_s, 1e-9),
        )


def build_optimizer(network: nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices alone: none on biases, norms and single numbers."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def _batch_size(settings: TrainingSettings, windows_per_epoch: int, processes: int) -> int:
    """How many windows a batch has, all processes together: no more than an epoch has."""
    if settings.batch_size % processes:
        raise TrainingError(
            f"found batch size {settings.batch_size}, expected a multiple of {processes} processes"
        )
    if windows_per_epoch < processes:
        raise TrainingError(
            f"found {windows_per_epoch} windows an epoch, expected {processes} at least, one for "
            "each process"
        )
    return min(settings.batch_size, windows_per_epoch - windows_per_epoch % processes)


def _of_whole_batch(terms: LossTerms) -> LossTerms:
    """Return the losses of all processes' windows: the mean over processes, of equal shares."""
    return LossTerms(*mean_of_all(torch.stack(terms)))
