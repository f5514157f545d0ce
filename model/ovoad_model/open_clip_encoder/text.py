"""Sentences to unit vectors by an open_clip model's text side: tokenizer, batches, progress.

The text tower runs in torch and float32 whatever runs the image side: texts are embedded once and
cached. Knows no picture.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Final, cast

import numpy as np
import open_clip
import torch
from torch import Tensor, nn

from ovoad_model.arrays import Float32Array
from ovoad_model.errors import MissingRuntimeError
from ovoad_model.open_clip_encoder.errors import UnfetchedError
from ovoad_model.open_clip_encoder.names import OpenClipName
from ovoad_model.open_clip_encoder.weights import hub_remedy, reason_of

LOGGER: Final = logging.getLogger(__name__)
BATCH: Final = 64
PROGRESS_S: Final = 5.0
TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class TextSide:
    """A model's tokenizer and text tower; texts longer than its context lose their end."""

    model: nn.Module
    tokenizer: Any
    context_length: int
    width: int
    _turn: Lock = field(default_factory=Lock)  # a tokenizer of transformers fails in two threads

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return token ids int64 [C, L], L the model's context length."""
        if not texts:
            return torch.empty((0, self.context_length), dtype=torch.int64)
        with self._turn:
            tokens: Tensor = self.tokenizer(list(texts))
        return tokens.to(torch.int64)

    def tokens_in(self, text: str) -> int:
        """Count a text's tokens with begin and end, were there no limit."""
        if isinstance(self.tokenizer, open_clip.SimpleTokenizer):
            return len(self.tokenizer.encode(text)) + 2
        with self._turn:
            return len(self.tokenizer.tokenizer(text).input_ids)

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """Embed C sentences in batches: [C, D], unit norm; logs how far it is every 5 s.

        Memory does not grow with C but for tokens and answers. Shorter batches of a causal tower
        leave the padding behind the longest text out, which changes nothing before it.
        """
        embeddings = np.empty((len(texts), self.width), np.float32)
        said_s = time.monotonic()
        for start in range(0, len(texts), BATCH):
            rows = slice(start, start + BATCH)
            embeddings[rows] = self._encode_batch(texts[rows])
            if time.monotonic() - said_s > PROGRESS_S:
                said_s = time.monotonic()
                LOGGER.info("embedded %d of %d texts", start + len(texts[rows]), len(texts))
        return embeddings

    def _encode_batch(self, texts: Sequence[str]) -> Float32Array:
        device = next(self.model.parameters()).device
        tokens = self.tokenize(texts).to(device)
        with torch.inference_mode():
            if is_causal(self.model):
                encoded = encode_causal(self.model, tokens)
            else:
                encoded = cast(Any, self.model).encode_text(tokens, normalize=True)
        array: Float32Array = encoded.float().cpu().numpy()
        return array


def is_causal(model: Any) -> bool:
    """Tell whether the text tower is open_clip's causal one, read at the end-of-text token."""
    return (
        isinstance(model, open_clip.CLIP)
        and getattr(model, "attn_mask", None) is not None
        and model.text_pool_type == "argmax"
    )


def encode_causal(model: Any, tokens: Tensor) -> Tensor:
    """Do what CLIP.encode_text does, on no more places than the longest text has: [C, D]."""
    ends = tokens.argmax(dim=-1)  # the end-of-text token has the greatest id
    length = int(ends.max()) + 1
    places = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    places = model.transformer(places, attn_mask=model.attn_mask[:length, :length])
    last = model.ln_final(places[torch.arange(len(tokens), device=tokens.device), ends])
    projection = model.text_projection
    if isinstance(projection, nn.Linear):
        last = projection(last)
    elif projection is not None:
        last = last @ projection
    return nn.functional.normalize(last, dim=-1)


def load_text_side(name: OpenClipName, model: Any, folder: Path) -> TextSide:
    """Join a model's text tower with its tokenizer, which may lie beside the weights."""
    config = name.model.config
    return TextSide(
        model=model,
        tokenizer=load_tokenizer(name, folder),
        context_length=int(config["text_cfg"].get("context_length", 77)),
        width=int(config["embed_dim"]),
    )


def load_tokenizer(name: OpenClipName, folder: Path) -> Any:
    """Make the model's tokenizer; CLIP's own ships with open_clip, others come from a hub.

    Files of the tokenizer beside the weights go first.
    """
    repository = name.model.tokenizer
    if repository is None:
        return open_clip.get_tokenizer(name.model.name)
    try:
        if (folder / TOKENIZER_FILES[0]).is_file():
            return _from_folder(name, folder)
        return open_clip.get_tokenizer(name.model.name)
    except ImportError as error:
        raise MissingRuntimeError("transformers") from error
    except (OSError, ValueError) as error:
        remedy = hub_remedy(repository, *TOKENIZER_FILES)
        raise UnfetchedError(
            f"tokenizer {repository} of {name.model.name}",
            reason_of(error),
            f"{remedy}; or put these files beside the weights and name those: "
            f"open_clip:{name.model.name}@FILE",
        ) from error


def _from_folder(name: OpenClipName, folder: Path) -> Any:
    """open_clip's own wrapper around a tokenizer in a folder."""
    settings = name.model.config["text_cfg"]
    return open_clip.tokenizer.HFTokenizer(
        str(folder),
        context_length=settings.get("context_length", 77),
        tokenizer_mode=settings.get("tokenizer_mode"),
        **settings.get("tokenizer_kwargs", {}),
    )
