"""Convert all-MiniLM-L6-v2 from its pip package to text.onnx and tokenizer.json."""

import json
from pathlib import Path

import numpy as np
import torch
from embedded_compact import store_int8
from embedded_export import agreement, export, save
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ovoad_model.embedded.sentences import load_tokenizer

WIDTH, HEADS, LAYERS, INNER = 384, 12, 6, 1536
WORDS, POSITIONS, EPSILON = 30522, 512, 1e-12


class Layer(nn.Module):
    """One BERT layer (Devlin et al. 2019): attention and a two-layer perceptron, post-norm."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, EPSILON)
        self.widen, self.narrow = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.last_norm = nn.LayerNorm(WIDTH, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [B, L, 384] to the same shape."""
        query, key, value = (
            part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        weights = (query @ key.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5).softmax(-1)
        x = self.norm(x + self.out((weights @ value).transpose(1, 2).flatten(-2)))
        last: Tensor = self.last_norm(x + self.narrow(functional.gelu(self.widen(x))))
        return last


class MiniLM(nn.Module):
    """Token numbers [B, L], all of them real words, to unit sentence embeddings [B, 384]."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.kinds = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, EPSILON)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, ids: Tensor) -> Tensor:
        """Embed, run the layers, take the mean over tokens."""
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.kinds.weight[0]
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x)
        return functional.normalize(x.mean(dim=1), dim=-1)


def convert_text_net(folder: Path, out: Path) -> str:
    """Write text.onnx and tokenizer.json; return how they agree with torch."""
    network = load_minilm(folder / "model.safetensors")
    write_tokenizer(folder / "tokenizer.json", out / "tokenizer.json")
    ids = example_ids(out / "tokenizer.json")
    with torch.no_grad():
        expected = network(ids).numpy()
    sides = {0: torch.export.Dim("batch", max=1024), 1: torch.export.Dim("tokens", max=128)}
    model = export(network, ids, "ids", "embeddings", sides)
    store_int8(model)
    save(model, out / "text.onnx")
    return agreement("text.onnx", out / "text.onnx", ids.numpy(), expected)


def load_minilm(path: Path) -> MiniLM:
    """Build the network with the package's weights."""
    stored = load_file(str(path))
    network = MiniLM()
    network.load_state_dict({new: stored[old] for new, old in weight_names().items()})
    return network.eval()


def weight_names() -> dict[str, str]:
    """Map names in MiniLM to names in the package's file."""
    parts = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "out": "attention.output.dense",
        "norm": "attention.output.LayerNorm",
        "widen": "intermediate.dense",
        "narrow": "output.dense",
        "last_norm": "output.LayerNorm",
    }
    names = {
        "words.weight": "embeddings.word_embeddings.weight",
        "positions.weight": "embeddings.position_embeddings.weight",
        "kinds.weight": "embeddings.token_type_embeddings.weight",
        "norm.weight": "embeddings.LayerNorm.weight",
        "norm.bias": "embeddings.LayerNorm.bias",
    }
    for layer in range(LAYERS):
        for new, old in parts.items():
            for end in ("weight", "bias"):
                names[f"layers.{layer}.{new}.{end}"] = f"encoder.layer.{layer}.{old}.{end}"
    return names


def write_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer without its padding, so that its settings match its use here."""
    settings = json.loads(source.read_text(encoding="utf-8"))
    settings["padding"] = None
    text = json.dumps(settings, ensure_ascii=False, separators=(",", ":"))
    target.write_text(text, encoding="utf-8")


def example_ids(tokenizer: Path) -> Tensor:
    """Encode sentences of one length: [B, L]."""
    sentences = [
        "a video of a person playing the drums",
        "a video of a person riding a bicycle",
        "an empty room with nobody in it .",
        "somebody pours water into a glass bowl",
    ]
    encodings = load_tokenizer(str(tokenizer)).encode_batch(sentences)
    shortest = min(len(encoding.ids) for encoding in encodings)
    return torch.from_numpy(np.array([encoding.ids[:shortest] for encoding in encodings]))
