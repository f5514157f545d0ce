"""What must be the same for a run to go on, and in all processes of one. Knows no files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from torch import nn

from ovoad_model.network.network import OVOAD
from ovoad_model.training.dataset import WindowDataset
from ovoad_model.training.fingerprint import differences, digest_lines
from ovoad_model.training.settings import TrainingError, TrainingSettings


def describe_run(
    settings: TrainingSettings,
    network: OVOAD,
    dataset: WindowDataset,
    data: Mapping[str, object],
    text: nn.Module | None,
) -> str:
    """What must be the same for a run to go on; how often it is saved or logged need not."""
    compared = asdict(settings)
    for name in ("checkpoint_minutes", "log_steps"):
        del compared[name]
    return json.dumps(
        {
            "settings": compared,
            "network": asdict(network.config),
            "text_adapters": text is not None,
            "background_share": dataset.background_share,
            "extra_texts": dataset.extra_count,
            "windows_per_epoch": dataset.windows_per_epoch,
            "data": {**data, "texts": digest_lines(iter(dataset.texts))},
        }
    )


def check_same_run(runs: Sequence[str]) -> None:
    """Refuse processes that would train on different data or with different settings."""
    for rank, run in enumerate(runs):
        if run != runs[0]:
            raise TrainingError(
                f"found process {rank} with another run than process 0: {differences(run, runs[0])}"
            )
