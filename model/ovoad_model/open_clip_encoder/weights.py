"""From a name to a model with its weights: find or fetch the file, build, fill, check.

Weights load as tensors alone (safetensors, or torch's weights_only): a file cannot run code.
"""

import errno
import hashlib
import json
import logging
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import open_clip
import torch
from open_clip import factory
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from safetensors import SafetensorError
from torch import nn
from torch.overrides import TorchFunctionMode

from ovoad_model.open_clip_encoder.catalogue import Tag, hub_folder
from ovoad_model.open_clip_encoder.errors import (
    NoSpaceError,
    UnfetchedError,
    WeightsFileError,
    WrongCheckpointError,
)
from ovoad_model.open_clip_encoder.names import OpenClipName, preprocessing_of
from ovoad_model.open_clip_encoder.preprocess import Preprocessing

LOGGER: Final = logging.getLogger(__name__)
REVISION: Final = 1
"""Counts changes of this package that change features or text embeddings."""

BESIDE: Final = "open_clip_config.json"


@dataclass(frozen=True)
class LoadedModel:
    """An open_clip model in evaluation mode with its weights, float32 on the CPU.

    fingerprint: sha256 over its configuration, preprocessing and every tensor, hexadecimal.
    folder: of the weights, where its tokenizer may lie too.
    """

    model: nn.Module
    preprocessing: Preprocessing
    fingerprint: str
    folder: Path


def load_model(name: OpenClipName) -> LoadedModel:
    """Find or fetch the weights and fill the model; every failure is a ModelError."""
    path = name.file or _fetched(name)
    config = preprocessing_of(name, _beside(path))
    model = build_model(name, config)
    _fill(model, path, name.model.name)
    model.eval().requires_grad_(False)
    preprocessing = Preprocessing.of_config(visual_of(model).preprocess_cfg)
    return LoadedModel(model, preprocessing, fingerprint(name, model, preprocessing), path.parent)


def build_model(name: OpenClipName, preprocessing: Mapping[str, Any]) -> nn.Module:
    """Build the architecture, its weights to be filled; fetches nothing but a text tower's config.

    Random numbers are not drawn: they would be overwritten, and take longer than all the rest.
    """
    try:
        with _silent_root(), _WithoutDrawing():
            model: nn.Module = open_clip.create_model(
                name.model.name,
                load_weights=False,
                force_quick_gelu=name.quick_gelu,
                force_preprocess_cfg=dict(preprocessing),
                pretrained_text=False,
            )
    except OSError as error:
        tower = name.model.text_tower
        if tower is None:
            raise
        raise UnfetchedError(
            f"config of the text tower {tower}", reason_of(error), hub_remedy(tower, "config.json")
        ) from error
    return model


def fingerprint(name: OpenClipName, model: nn.Module, preprocessing: Preprocessing) -> str:
    """Digest what decides features and text embeddings, in whatever file the weights came."""
    config = deepcopy(dict(name.model.config)) | {"quick_gelu": name.quick_gelu}
    digest = hashlib.sha256(f"{REVISION}\n{preprocessing}\n".encode())
    digest.update(json.dumps(config, sort_keys=True).encode())
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"\n{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def visual_of(model: nn.Module) -> Any:
    """Return the image tower; open_clip carries no types."""
    return model.visual


def _fetched(name: OpenClipName) -> Path:
    """Return the tag's file, from the cache or by open_clip's own download."""
    assert name.tag is not None
    cached = name.tag.cached_file()
    if cached is not None:
        return cached
    what = f"weights {name.model.name}/{name.tag.name}"
    LOGGER.warning("%s: fetching, which may take minutes", what)
    try:
        found = download_pretrained(get_pretrained_cfg(name.model.name, name.tag.name))
    except (OSError, RuntimeError, ValueError) as error:
        reason = reason_of(error)
        if "o space left" in reason or _errno(error) == errno.ENOSPC:
            raise NoSpaceError(_download_folder(name.tag), what) from error
        raise UnfetchedError(what, reason, _weights_remedy(name)) from error
    return Path(found)


def _weights_remedy(name: OpenClipName) -> str:
    """Say how to bring the file from a machine that has network."""
    tag = name.tag
    assert tag is not None
    file = tag.files()[0]
    if tag.hub_repository:
        fetch = (
            f"on a machine with network: `hf download {tag.hub_repository} {file} --local-dir .` "
            f"or https://huggingface.co/{tag.hub_repository}/resolve/main/{file}"
        )
    else:
        fetch = f"on a machine with network fetch {tag.url}"
    return f"{fetch}; copy it here and name it: {name.text}@/path/to/{file}"


def hub_remedy(repository: str, *files: str) -> str:
    """Say how to bring files into the hub's cache from a machine that has network."""
    folder = f"models--{repository.replace('/', '--')}"
    return (
        f"on a machine with network: `hf download {repository} {' '.join(files)}`, then copy "
        f"~/.cache/huggingface/hub/{folder} to {hub_folder() / folder}"
    )


def _fill(model: nn.Module, path: Path, name: str) -> None:
    """Load a checkpoint; refuse a damaged one, or one with other tensors than the model's."""
    try:
        with _silent_root():
            keys = factory.load_checkpoint(model, str(path), strict=False, weights_only=True)
    except RuntimeError as error:
        shapes = [
            line.strip().removeprefix("size mismatch for ").partition(":")[0]
            for line in str(error).splitlines()
            if "size mismatch for" in line
        ]
        if shapes:
            raise WrongCheckpointError(path, name, misshapen=shapes) from error
        raise WeightsFileError(path, _unreadable(path, error)) from error
    except (SafetensorError, EOFError, pickle.UnpicklingError, OSError, ValueError) as error:
        raise WeightsFileError(path, _unreadable(path, error)) from error
    except (AttributeError, KeyError, IndexError, StopIteration, TypeError) as error:
        raise WeightsFileError(
            path, f"found no state dict of {name} ({type(error).__name__}: {error})"
        ) from error
    if keys.missing_keys or keys.unexpected_keys:
        raise WrongCheckpointError(
            path, name, missing=keys.missing_keys, extra=keys.unexpected_keys
        )


def _unreadable(path: Path, error: Exception) -> str:
    """Say what is wrong with a file that does not load."""
    text = str(error)
    size = path.stat().st_size
    if "TorchScript" in text:
        return "found a TorchScript archive, expected a state dict or safetensors"
    if isinstance(error, pickle.UnpicklingError) and "eights only load failed" in text:
        return "found more than tensors in a pickle, which could run code; expected tensors alone"
    first = text.splitlines()[0] if text else type(error).__name__
    return (
        f"found {size} bytes, damaged or cut short ({first:.120}); expected it whole: fetch it anew"
    )


def _beside(path: Path) -> Mapping[str, Any] | None:
    """Read the preprocessing from a hub repository's config beside the weights, if there is one."""
    config = path.parent / BESIDE
    try:
        members = json.loads(config.read_text(encoding="utf-8"))
        found = members.get("preprocess_cfg")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsFileError(config, f"found no valid JSON object ({error})") from error
    return found if isinstance(found, dict) else None


def _download_folder(tag: Tag) -> Path:
    return hub_folder() if tag.hub_repository else Path.home() / ".cache" / "clip"


def _errno(error: BaseException) -> int | None:
    """Find the system's error number in an error or what caused it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause.errno
        cause = cause.__cause__ or cause.__context__
    return None


def reason_of(error: Exception) -> str:
    """The last line that says something, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[-1] if lines else type(error).__name__:.200}"


class _WithoutDrawing(TorchFunctionMode):
    """Leave tensors as they are where they would be filled with random numbers."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name, module = getattr(func, "__name__", ""), getattr(func, "__module__", "")
        if name in ("normal_", "uniform_") or module == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))


@contextmanager
def _silent_root() -> Iterator[None]:
    """Keep open_clip from telling the root logger that weights are random: they are filled next."""
    root = logging.getLogger()
    quiet, nothing = logging.NullHandler(), _drop
    root.addFilter(nothing)
    root.addHandler(quiet)  # else logging would set up handlers of its own
    try:
        yield
    finally:
        root.removeFilter(nothing)
        root.removeHandler(quiet)


def _drop(record: logging.LogRecord) -> bool:
    return False
