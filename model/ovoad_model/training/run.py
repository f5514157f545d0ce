"""One training run from files to files: captions and features in, trained weights out.

Joins the parts; knows no command line.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ovoad_model.arrays import Float32Array
from ovoad_model.encoder import Encoder
from ovoad_model.network.adapters import AdaptedText
from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.network import OVOAD
from ovoad_model.network.weights import WeightsInfo, save_weights
from ovoad_model.training.captions import (
    Caption,
    CaptionError,
    check_against_features,
    read_captions,
)
from ovoad_model.training.dataset import WindowDataset
from ovoad_model.training.distributed import tell_all, world
from ovoad_model.training.feature_store import FeatureDescription, FeatureError, FeatureStore
from ovoad_model.training.fingerprint import describe_data
from ovoad_model.training.phrases import PhrasesUnavailableError, in_templates, load_phrases
from ovoad_model.training.settings import TrainingError, TrainingSettings
from ovoad_model.training.trainer import CHECKPOINT_NAME, Trainer
from ovoad_model.training.windows import Timeline, build_timelines
from ovoad_model.window import NEIGHBOURS, PAST

PhrasesUse = Literal["auto", "on", "off"]
Say = Callable[[str], None]

SCALE_FRAMES: Final = 2000
"""How many frames the root mean square of the features is measured on."""

SMALL: Final = NetworkConfig(
    width=256, heads=4, dntr_layers=2, cluster_layers_before=2, cluster_layers_after=1,
    head_hidden=1024,
)  # fmt: skip
"""A network that a laptop trains: the paper's parts, fewer and narrower."""


@dataclass(frozen=True)
class RunOptions:
    """What to train on and where to put it.

    network gives the sizes; feature, text and current widths are replaced by the encoder's.
    phrases: "auto" makes phrases where the parser is installed and says so where not; "on" stops
    without it. skip_bad_lines: leave bad captions out after naming them, instead of stopping.
    """

    captions: Path
    features: Path
    out: Path
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    background_share: float = 0.2
    extra_texts: int = 2
    windows_per_epoch: int | None = None
    phrases: PhrasesUse = "auto"
    skip_bad_lines: bool = False
    text_adapters: bool = False
    resume: bool = False
    device: str = "cpu"
    tensorboard: bool = True

    def __post_init__(self) -> None:
        share, windows = self.background_share, self.windows_per_epoch
        if not 0 <= share < 1:
            raise TrainingError(f"found background share {share}, expected 0 to below 1")
        if self.extra_texts < 0:
            raise TrainingError(f"found {self.extra_texts} extra texts, expected 0 or more")
        if windows is not None and windows < 1:
            raise TrainingError(f"found {windows} windows an epoch, expected 1 or more")


@dataclass(frozen=True)
class PreparedRun:
    """A trainer ready to run, and what its weights will belong to."""

    trainer: Trainer
    options: RunOptions
    encoder: Encoder
    text: AdaptedText | None
    summary: dict[str, object]

    def finish(self) -> Path:
        """Write the trained weights for the scorer; returns their folder.

        Raises TrainingError, writing nothing, where a weight is not finite.
        """
        network = self.trainer.network
        info = WeightsInfo(
            config=network.config,
            encoder_name=self.encoder.name,
            encoder_fingerprint=self.encoder.fingerprint,
            trained_steps=self.trainer.step,
            training=self.summary,
        )
        adapters = None if self.text is None else self.text.adapters
        folder = self.options.out / "weights"
        try:
            save_weights(folder, network, info, text_adapters=adapters)
        except ValueError as error:
            raise TrainingError(f"{folder}: {error}") from error
        return folder


def prepare(options: RunOptions, encoder: Encoder, say: Say) -> PreparedRun:
    """Read and check everything, build network and trainer, and resume where asked to.

    Raises CaptionError, FeatureError, PhrasesUnavailableError or TrainingError.
    """
    if not options.resume and (options.out / CHECKPOINT_NAME).exists():
        raise TrainingError(
            f"{options.out}: found a checkpoint, expected --resume to go on or another folder"
        )
    _check_encoder(options.features, encoder)
    store = FeatureStore(options.features, encoder.feature_width)
    captions = load_captions(options, store, say)
    lengths = {video: store.length(video) for video in {c.video for c in captions}}
    timelines = build_timelines(captions, lengths)
    dataset = WindowDataset(
        timelines,
        store.rows,
        feature_width=encoder.feature_width,
        background_share=options.background_share,
        extra_count=options.extra_texts,
        windows_per_epoch=options.windows_per_epoch,
        phrases=find_phrases(options.phrases, captions, say) if options.extra_texts else {},
        seed=options.settings.seed,
    )
    torch.manual_seed(options.settings.seed)
    network = build_network(options.network, encoder, measure_scale(store, timelines))
    network.to(options.device)
    text = _adapted_text(encoder, options.device) if options.text_adapters else None
    trainer = Trainer(
        network,
        dataset,
        _text_table(encoder, dataset.texts, tokens=options.text_adapters),
        options.settings,
        options.out,
        text=text,
        data=describe_data(encoder, captions, store),
        tensorboard=options.tensorboard,
    )
    if tell_all(options.resume and trainer.checkpoint_path.exists()):
        trainer.resume()
        say(f"resumed at step {trainer.step} of {trainer.total_steps}")
    summary = {
        "captions": len(captions),
        "videos": len(timelines),
        "texts": len(dataset.texts),
        "windows_per_epoch": dataset.windows_per_epoch,
        "background_share": dataset.background_share,
        "settings": asdict(options.settings),
    }
    say(
        f"{len(captions)} captions of {len(timelines)} videos, {len(dataset.texts)} texts, "
        f"{trainer.total_steps} steps, {sum(p.numel() for p in network.parameters()):,} weights"
    )
    return PreparedRun(trainer, options, encoder, text, summary)


def load_captions(options: RunOptions, store: FeatureStore, say: Say) -> list[Caption]:
    """Read captions and check them against the features; stop at bad lines, or leave them out."""
    try:
        captions, problems = read_captions(options.captions)
    except OSError as error:
        raise TrainingError(f"{options.captions}: found no readable file ({error})") from error
    captions, unfit = check_against_features(options.captions, captions, store)
    problems = sorted([*problems, *unfit], key=lambda problem: problem.line)
    if problems and not options.skip_bad_lines:
        raise CaptionError(problems)
    for problem in problems:
        say(f"left out: {problem}")
    if not captions:
        raise TrainingError(f"{options.captions}: found no caption that can be used")
    return captions


def find_phrases(use: PhrasesUse, captions: list[Caption], say: Say) -> dict[str, tuple[str, ...]]:
    """Make sentences of each caption's verb–object phrases."""
    if use == "off":
        return {}
    try:
        phrases = load_phrases()
    except PhrasesUnavailableError as error:
        if use == "on":
            raise
        say(f"training without verb–object phrases: {error}")
        return {}
    texts = list(dict.fromkeys(caption.text for caption in captions))
    return {
        text: tuple(sentence for phrase in found for sentence in in_templates(phrase))
        for text, found in zip(texts, phrases(texts), strict=True)
        if found
    }


def build_network(config: NetworkConfig, encoder: Encoder, feature_scale: float) -> OVOAD:
    """Build a network for this encoder; its current-frame head starts as the encoder's own map.

    That map is known where features already lie in the joint space (embedded: the identity), or
    where the encoder tells its image projection [F, D]. The joint heads start random:
    OVOAD.start_from_encoder, which would start them too, is not called here.
    """
    _check_window(config)
    fitted = replace(
        config,
        feature_width=encoder.feature_width,
        feature_scale=feature_scale,
        text_width=encoder.embedding_width,
        current_width=encoder.embedding_width,
    )
    network = OVOAD(fitted)
    projection = image_projection(encoder)
    if projection is not None:
        network.initialise_current_head(torch.from_numpy(projection))
    return network


def _check_window(config: NetworkConfig) -> None:
    """Refuse a network of windows that neither the data set nor the scorer gives."""
    if config.past > PAST or config.neighbours != NEIGHBOURS:
        raise TrainingError(
            f"found a network of {config.past} past and {config.neighbours} neighbouring frames, "
            f"expected at most {PAST} and exactly {NEIGHBOURS}"
        )


def image_projection(encoder: Encoder) -> Float32Array | None:
    """Return the linear map [F, D] from features to the joint space, where there is one."""
    told = getattr(encoder, "image_projection", None)
    if told is not None:
        return np.asarray(told, dtype=np.float32)
    width = encoder.feature_width
    if width != encoder.embedding_width:
        return None
    basis = np.eye(width, dtype=np.float32)
    return basis if np.allclose(encoder.project(basis), basis, atol=1e-5) else None


def measure_scale(store: FeatureStore, timelines: list[Timeline]) -> float:
    """1 / root mean square of the features' components, on frames spread over all videos."""
    count = max(1, SCALE_FRAMES // len(timelines))
    rows = [store.rows(t.video, 0, t.length)[:: max(1, t.length // count)] for t in timelines]
    mean_square = float(np.mean(np.square(np.concatenate(rows), dtype=np.float64)))
    if mean_square == 0:
        raise FeatureError(store.folder, "found features that are all zero")
    return float(1 / np.sqrt(mean_square))


def _check_encoder(folder: Path, encoder: Encoder) -> None:
    """Refuse features that another encoder made."""
    found = FeatureDescription.read(folder) if folder.is_dir() else None
    if found is not None and found.fingerprint != encoder.fingerprint:
        raise FeatureError(
            folder,
            f"found features of {found.encoder} ({found.fingerprint[:12]}), expected "
            f"{encoder.name} ({encoder.fingerprint[:12]})",
        )


def _adapted_text(encoder: Encoder, device: str) -> AdaptedText:
    model = getattr(encoder, "text_model", None)
    if not isinstance(model, nn.Module):
        raise TrainingError(
            f"found encoder {encoder.name}, expected an open_clip encoder for text adapters"
        )
    return AdaptedText(model.to(device))


def _text_table(encoder: Encoder, texts: tuple[str, ...], *, tokens: bool) -> Tensor:
    """Embeddings [U, D] of all texts, or their token ids [U, T] for a trainable text side."""
    if tokens:
        found: Tensor = encoder.tokenize(list(texts))  # type: ignore[attr-defined]
        return found
    parts = [encoder.encode_text(texts[i : i + 256]) for i in range(0, len(texts), 256)]
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))


def is_first_process() -> bool:
    """Tell whether this process speaks and writes for all."""
    return world()[0] == 0
