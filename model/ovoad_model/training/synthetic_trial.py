"""Train in the made-up world and score its unseen classes, beside the training-free scorers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch

from ovoad_model.metrics import average_precision
from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.network import OVOAD
from ovoad_model.network.scorer import OvoadScorer
from ovoad_model.scorers import Scorer, average_scorer, cluster_scorer, frame_scorer
from ovoad_model.training.dataset import WindowDataset
from ovoad_model.training.run import build_network
from ovoad_model.training.settings import TrainingSettings
from ovoad_model.training.synthetic import Video, World, timelines_of, truth_of
from ovoad_model.training.trainer import Trainer
from ovoad_model.window import PAST, SLOTS, WindowBatch

TRIAL_NETWORK: Final = NetworkConfig(
    width=64, heads=4, dntr_layers=2, cluster_layers_before=2, cluster_layers_after=1,
    joint_width=32, head_hidden=256, normalisation="pre",
)  # fmt: skip
"""The paper's parts in a size that two cores train in a minute."""

TRIAL_SETTINGS: Final = TrainingSettings(
    epochs=6, warmup_epochs=1, batch_size=128, learning_rate=2e-3, repeated_texts="ignored"
)
"""The paper's, but for the batch, the rate (the network is small) and the number of epochs."""

Start = Literal["current_head", "encoder"]

CHUNK: Final = 2048


@dataclass(frozen=True)
class Trained:
    """A network trained in a world, and what it took."""

    network: OVOAD
    steps: int
    seconds: float


def train_in_world(
    world: World,
    folder: Path,
    *,
    config: NetworkConfig = TRIAL_NETWORK,
    settings: TrainingSettings = TRIAL_SETTINGS,
    background_share: float = 0.2,
    start: Start = "current_head",
) -> Trained:
    """Train on the world's training videos, through the same loop as any run.

    start: "current_head", as `ovoad train` starts; "encoder", the joint heads too start as the
    world's own projection (OVOAD.start_from_encoder, on the training texts).
    """
    started_s = time.perf_counter()
    videos = world.training_videos()
    features = {video.name: video.features for video in videos}
    dataset = WindowDataset(
        timelines_of(videos),
        lambda name, start, stop: features[name][start:stop],
        feature_width=world.feature_width,
        background_share=background_share,
        seed=settings.seed,
    )
    torch.manual_seed(settings.seed)
    mean_square = np.mean([np.mean(np.square(video.features)) for video in videos])
    network = build_network(config, world, float(1 / np.sqrt(mean_square)))
    texts = torch.from_numpy(world.encode_text(dataset.texts))
    if start == "encoder":
        network.start_from_encoder(torch.from_numpy(world.image_projection), texts)
    trainer = Trainer(network, dataset, texts, settings, folder, tensorboard=False)
    trainer.run()
    return Trained(network, trainer.step, time.perf_counter() - started_s)


def training_free(world: World) -> list[Scorer]:
    """The paper's CLIP-I, CLIP-II and CLIP-III on this world's features."""
    return [frame_scorer(world), average_scorer(world), cluster_scorer(world)]


def scoring_variants(network: OVOAD) -> dict[str, Scorer]:
    """The three ways to score with one trained network (paper.md, Scoring)."""
    return {
        "P_AC + α P_DNTR": OvoadScorer(network),
        "without P_AC": OvoadScorer(network, clusters=False),
        "without P_DNTR": OvoadScorer(network, alpha=0.0),
    }


def mean_average_precision(
    scorer: Scorer, world: World, windows: WindowBatch, videos: Sequence[Video]
) -> float:
    """Per-frame mAP over the unseen classes in percent, by raw similarity, on pooled frames."""
    labels = world.unseen
    text = scorer.embed_text(world.encode_text([f"a photo of {name}" for name in labels]))
    scores = np.concatenate(
        [
            scorer.embed_windows(_rows(windows, start)).embedding @ text.T
            for start in range(0, len(windows.past), CHUNK)
        ]
    )
    truth = truth_of(videos, labels)
    values = [
        average_precision(scores[:, i], truth[:, i])
        for i in range(len(labels))
        if truth[:, i].any()
    ]
    return 100 * float(np.mean(values))


def windows_of(videos: Sequence[Video]) -> WindowBatch:
    """The window that ends at each frame of each video, in order: N windows."""
    features, masks = [], []
    for video in videos:
        length, width = video.features.shape
        padded = np.concatenate([np.zeros((SLOTS - 1, width), np.float32), video.features])
        there = np.arange(len(padded)) >= SLOTS - 1
        places = np.arange(length)[:, None] + np.arange(SLOTS)
        features.append(padded[places])
        masks.append(there[places])
    stacked, mask = np.concatenate(features), np.concatenate(masks)
    return WindowBatch(stacked[:, :PAST], mask[:, :PAST], stacked[:, PAST:], mask[:, PAST:])


def ablated(settings: TrainingSettings, *, current: bool, mask: bool) -> TrainingSettings:
    """Switch L_current or L_mask off by their weights."""
    return replace(
        settings,
        alpha=settings.alpha if current else 0.0,
        beta=settings.beta if mask else 0.0,
    )


def _rows(windows: WindowBatch, start: int) -> WindowBatch:
    rows = slice(start, start + CHUNK)
    return WindowBatch(
        windows.past[rows],
        windows.past_mask[rows],
        windows.neighbours[rows],
        windows.neighbours_mask[rows],
    )
