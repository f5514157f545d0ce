"""What open_clip lists: models, pretrained tags, their files and what is cached.

Reads the installed package's files without importing it, and so without torch: the list is to
come at once. Knows no network and no weights.
"""

import builtins
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from ovoad_model.errors import MissingRuntimeError

SIZES: Final = Path(__file__).parent / "sizes.json"
SAFE_FILES: Final = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Tag:
    """One set of published weights: how its pictures are prepared and where its file lies."""

    name: str
    quick_gelu: bool
    preprocessing: Mapping[str, Any]
    hub_repository: str
    hub_file: str
    url: str

    def files(self) -> tuple[str, ...]:
        """Name the files that would do, the preferred one first."""
        if not self.hub_repository:
            return (self.url.rsplit("/", 1)[-1],)
        if not self.hub_file:
            return SAFE_FILES
        stem, dot, ending = self.hub_file.rpartition(".")
        safe = f"{stem}.safetensors" if dot and ending in ("bin", "pth") else self.hub_file
        return tuple(dict.fromkeys((safe, self.hub_file)))

    def cached_file(self) -> Path | None:
        """Find the file where open_clip would have left it on this machine."""
        if not self.hub_repository:
            path = Path.home() / ".cache" / "clip" / self.files()[0]
            return path if path.is_file() else None
        folder = hub_folder() / f"models--{self.hub_repository.replace('/', '--')}" / "snapshots"
        for name in self.files():
            found = sorted(folder.glob(f"*/{name}"))
            if found:
                return found[-1]
        return None


@dataclass(frozen=True)
class Architecture:
    """One model of open_clip's list: its config and the tags that it has weights for."""

    name: str
    config: Mapping[str, Any]
    tags: Mapping[str, Tag]

    @property
    def input_size(self) -> int:
        """Side of the square input in pixels."""
        return int(self.config["vision_cfg"].get("image_size", 224))

    @property
    def tokenizer(self) -> str | None:
        """The hub repository of its tokenizer; None for CLIP's own, which open_clip carries."""
        name: str | None = self.config["text_cfg"].get("hf_tokenizer_name")
        return name

    @property
    def text_tower(self) -> str | None:
        """The hub repository of a text tower's config; None for open_clip's own towers."""
        name: str | None = self.config["text_cfg"].get("hf_model_name")
        return name


@dataclass(frozen=True)
class Size:
    """Million parameters of both towers (text None where a hub must tell) and widths F and D."""

    image_millions: float
    text_millions: float | None
    feature_width: int
    embedding_width: int


@lru_cache(maxsize=1)
def architectures() -> Mapping[str, Architecture]:
    """Read open_clip's list; raises MissingRuntimeError where it is not installed."""
    package = package_folder()
    tags = _pretrained(package)
    models = {}
    for path in sorted((package / "model_configs").glob("*.json"), key=lambda p: p.stem.lower()):
        config = json.loads(path.read_text(encoding="utf-8"))
        if {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
            models[path.stem] = Architecture(path.stem, config, tags.get(path.stem, {}))
    return models


def package_folder() -> Path:
    """Where open_clip is installed."""
    found = find_spec("open_clip")
    if found is None or found.origin is None:
        raise MissingRuntimeError("open_clip_torch")
    return Path(found.origin).parent


@lru_cache(maxsize=1)
def sizes() -> Mapping[str, Size]:
    """Read the table that `python -m ovoad_model.open_clip_encoder.sizes` wrote."""
    members = json.loads(SIZES.read_text(encoding="utf-8"))
    return {name: Size(*values) for name, values in members["sizes"].items()}


def hub_folder() -> Path:
    """Where huggingface_hub keeps what it fetched."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub"))


def cached_hub_file(repository: str, name: str) -> Path | None:
    """Find a file of a hub repository that was fetched before."""
    folder = hub_folder() / f"models--{repository.replace('/', '--')}" / "snapshots"
    found = sorted(folder.glob(f"*/{name}"))
    return found[-1] if found else None


def _pretrained(package: Path) -> dict[str, dict[str, Tag]]:
    """Run open_clip's list of weights by itself, without what it would import to fetch them."""
    members: dict[str, Any] = {
        "__name__": "open_clip.pretrained",
        "__builtins__": {**vars(builtins), "__import__": _lean_import(package)},
    }
    source = package / "pretrained.py"
    exec(compile(source.read_text(encoding="utf-8"), str(source), "exec"), members)
    return {
        model: {name: _tag(name, entry) for name, entry in entries.items()}
        for model, entries in members["_PRETRAINED"].items()
    }


def _lean_import(package: Path) -> Any:
    """An import that reads siblings as plain files and has nothing outside the standard library."""

    def load(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: tuple[str, ...] = (),
        level: int = 0,
    ) -> Any:
        if level:
            members: dict[str, Any] = {}
            source = package / f"{name}.py"
            exec(compile(source.read_text(encoding="utf-8"), str(source), "exec"), members)
            return SimpleNamespace(**members)
        if name == "tqdm":
            return SimpleNamespace(tqdm=None)
        if name.partition(".")[0] in ("safetensors", "huggingface_hub"):
            raise ImportError(name)
        return builtins.__import__(name, globals, locals, fromlist, level)

    return load


def _tag(name: str, entry: Mapping[str, Any]) -> Tag:
    kept = ("mean", "std", "interpolation", "resize_mode")
    repository, _, file = entry.get("hf_hub", "").rpartition("/")
    return Tag(
        name=name,
        quick_gelu=bool(entry.get("quick_gelu", False)),
        preprocessing={key: entry[key] for key in kept if entry.get(key) is not None},
        hub_repository=repository,
        hub_file=file,
        url=entry.get("url", ""),
    )


def open_clip_version() -> str:
    """The installed version."""
    return version("open_clip_torch")
