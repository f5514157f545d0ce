"""Trained weights on disk: a directory with model.safetensors and config.json.

config.json says what the weights belong to: the network's config, the encoder by name and
fingerprint, how long it was trained, and the sha256 of model.safetensors.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ovoad_model.encoder import Encoder
from ovoad_model.errors import DamagedFileError, ModelError
from ovoad_model.network.adapters import TextAdapters
from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.network import OVOAD

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
ADAPTERS_PREFIX = "text_adapters."


class WeightsError(ModelError):
    """Weights are absent, damaged, untrained, or made for something else."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(f"weights {path}: {message}")
        self.path = path


class WrongEncoderError(WeightsError):
    """Weights were made for another encoder."""

    def __init__(self, path: Path, *, made_for: str, found: str) -> None:
        super().__init__(path, f"made for encoder {made_for}, found encoder {found}")
        self.made_for = made_for
        self.found = found


@dataclass(frozen=True)
class WeightsInfo:
    """What weights belong to. training is a free summary for people (data, losses, settings)."""

    config: NetworkConfig
    encoder_name: str
    encoder_fingerprint: str
    trained_steps: int
    training: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedWeights:
    """A network in evaluation mode, its info, and the text adapters where it was trained so."""

    network: OVOAD
    info: WeightsInfo
    text_adapters: TextAdapters | None


def save_weights(
    directory: Path, network: OVOAD, info: WeightsInfo, *, text_adapters: TextAdapters | None = None
) -> None:
    """Write both files; each appears whole or not at all, and a torn pair fails its checksum.

    Raises ValueError, writing nothing, where a weight is not finite.
    """
    tensors = _plain(network.state_dict())
    if text_adapters is not None:
        tensors |= _plain(text_adapters.state_dict(), prefix=ADAPTERS_PREFIX)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"found values in {name} that are not finite, expected trained ones")
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = directory / f"{WEIGHTS_FILE}.unfinished"
    save_file(tensors, unfinished)
    members = asdict(info) | {"weights_sha256": _sha256(unfinished)}
    os.replace(unfinished, directory / WEIGHTS_FILE)
    unfinished = directory / f"{CONFIG_FILE}.unfinished"
    unfinished.write_text(json.dumps(members, indent=2) + "\n", encoding="utf-8")
    os.replace(unfinished, directory / CONFIG_FILE)


def load_weights(path: Path, encoder: Encoder) -> LoadedWeights:
    """Load trained weights made for this encoder from a directory or its model.safetensors."""
    directory = path.parent if path.suffix == ".safetensors" else path
    weights = path if path.suffix == ".safetensors" else directory / WEIGHTS_FILE
    info, expected_sha256 = _read_config(directory / CONFIG_FILE)
    _check_encoder(directory, info, encoder)
    if info.trained_steps < 1:
        raise WeightsError(
            directory, f"found {info.trained_steps} trained steps, expected 1 at least"
        )
    found_sha256 = _sha256(weights) if weights.is_file() else None
    if found_sha256 != expected_sha256:
        raise DamagedFileError(weights, expected_sha256=expected_sha256, found_sha256=found_sha256)
    return _build(weights, info)


def _build(weights: Path, info: WeightsInfo) -> LoadedWeights:
    """Fill a network, and adapters if there are any, with the tensors of a checked file."""
    network = OVOAD(info.config)
    try:
        tensors = load_file(weights)
        adapted = {name for name in tensors if name.startswith(ADAPTERS_PREFIX)}
        own = {name.removeprefix(ADAPTERS_PREFIX): tensors.pop(name) for name in adapted}
        network.load_state_dict(tensors)
        adapters = _build_adapters(own) if own else None
    except (SafetensorError, RuntimeError) as error:
        raise WeightsError(weights, f"do not fit their config: {error}") from error
    return LoadedWeights(network.eval().requires_grad_(False), info, adapters)


def _build_adapters(tensors: Mapping[str, Tensor]) -> TextAdapters:
    downs = [tensor for name, tensor in tensors.items() if name.endswith("down.weight")]
    adapters = TextAdapters(len(downs), downs[0].shape[1])
    adapters.load_state_dict(tensors)
    return adapters.eval().requires_grad_(False)


def _read_config(path: Path) -> tuple[WeightsInfo, str]:
    """Read config.json: the info and the sha256 that the weights should have."""
    try:
        members = json.loads(path.read_text(encoding="utf-8"))
        config = NetworkConfig.from_json(json.dumps(members.pop("config")))
        expected_sha256 = str(members.pop("weights_sha256"))
        return WeightsInfo(config=config, **members), expected_sha256
    except FileNotFoundError as error:
        raise WeightsError(
            path.parent, f"found no {CONFIG_FILE}, expected it beside {WEIGHTS_FILE}"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(path, f"found no valid config ({error})") from error


def _check_encoder(directory: Path, info: WeightsInfo, encoder: Encoder) -> None:
    """Refuse weights of another encoder, or of another state of the same one.

    What of a name follows / or @ says where an encoder's own weights came from; the fingerprint
    says what they are.
    """
    same_model = _model_of(info.encoder_name) == _model_of(encoder.name)
    if same_model and info.encoder_fingerprint == encoder.fingerprint:
        return
    raise WrongEncoderError(
        directory,
        made_for=f"{info.encoder_name!r} ({info.encoder_fingerprint[:12]})",
        found=f"{encoder.name!r} ({encoder.fingerprint[:12]})",
    )


def _model_of(encoder_name: str) -> str:
    return encoder_name.partition("@")[0].partition("/")[0]


def _plain(state: Mapping[str, Tensor], *, prefix: str = "") -> dict[str, Tensor]:
    """A state dict as safetensors takes it: on the CPU, contiguous."""
    return {prefix + name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
