"""Read names of the form open_clip:MODEL/TAG and open_clip:MODEL@FILE. Knows no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ovoad_model.open_clip_encoder.catalogue import Architecture, Tag, architectures
from ovoad_model.open_clip_encoder.errors import OpenClipNameError, WeightsFileError, nearest

PREFIX: Final = "open_clip:"
FORMS: Final = (
    "open_clip:MODEL/TAG, open_clip:MODEL@FILE or open_clip:MODEL/TAG@FILE; "
    "`ovoad encoders --open-clip` lists models and tags"
)
FILE_ENDINGS: Final = (".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class OpenClipName:
    """A model of open_clip's list with published weights (tag), a local file, or both.

    Beside a file the tag tells how the weights were trained: preprocessing and activation.
    """

    text: str
    model: Architecture
    tag: Tag | None
    file: Path | None

    @property
    def shown(self) -> str:
        """The name without the file's folder, which is nobody's business but the operator's."""
        if self.file is None:
            return self.text
        tag = f"/{self.tag.name}" if self.tag else ""
        return f"{PREFIX}{self.model.name}{tag}@{self.file.name}"

    @property
    def quick_gelu(self) -> bool:
        """Whether the weights were trained with the activation x·sigmoid(1.702 x)."""
        own = bool(self.model.config.get("quick_gelu", False))
        return own if self.tag is None else own or self.tag.quick_gelu


def parse_name(text: str) -> OpenClipName:
    """Find the model, the tag and the file; raises OpenClipNameError or WeightsFileError."""
    rest = text.removeprefix(PREFIX)
    named, at, file = rest.partition("@")
    model_name, slash, tag_name = named.partition("/")
    known = architectures()
    if model_name not in known:
        hint = nearest(model_name, list(known))
        raise OpenClipNameError(
            text, f"open_clip has no model {model_name!r}, {hint}; expected {FORMS}", list(known)
        )
    model = known[model_name]
    if not (slash or at):
        tags = ", ".join(model.tags) or "none"
        raise OpenClipNameError(
            text, f"found no weights (tags of {model_name}: {tags}), expected {FORMS}", ()
        )
    tag = _find_tag(text, model, tag_name) if slash else None
    return OpenClipName(text, model, tag, _find_file(file) if at else None)


def _find_tag(text: str, model: Architecture, name: str) -> Tag:
    """open_clip takes tags in any case, - for _."""
    tag = model.tags.get(name.lower().replace("-", "_"))
    if tag is None:
        listed = ", ".join(model.tags) or "none: name a file, open_clip:MODEL@FILE"
        raise OpenClipNameError(
            text,
            f"{model.name} has no weights tagged {name!r}, expected one of {listed}",
            list(model.tags),
        )
    return tag


def _find_file(text: str) -> Path:
    path = Path(text).expanduser()
    if path.suffix not in FILE_ENDINGS:
        raise WeightsFileError(
            path, f"found ending {path.suffix!r}, expected one of {', '.join(FILE_ENDINGS)}"
        )
    if not path.is_file():
        raise WeightsFileError(path, "found no such file")
    return path


def preprocessing_of(name: OpenClipName, beside: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Tell how pictures are prepared for these weights, as open_clip's preprocess settings.

    The tag's way; else what open_clip_config.json beside the file says; else that which all the
    model's tags share. Raises OpenClipNameError where tags differ and none is named.
    """
    if name.tag is not None:
        return name.tag.preprocessing
    if beside is not None:
        return beside
    ways = [tag.preprocessing for tag in name.model.tags.values()]
    if any(way != ways[0] for way in ways):
        tags = ", ".join(name.model.tags)
        raise OpenClipNameError(
            name.text,
            f"weights of {name.model.name} were trained on pictures prepared in different ways; "
            f"expected {PREFIX}{name.model.name}/TAG@FILE with the tag most like yours: {tags}",
            list(name.model.tags),
        )
    return ways[0] if ways else {}
