"""Embed sentences with all-MiniLM-L6-v2. Knows no image and no class."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ovoad_model.arrays import Float32Array
from ovoad_model.embedded.runtime import Network

WIDTH: Final = 384
MOST_TOKENS: Final = 128
BATCH: Final = 32


@dataclass(frozen=True)
class SentenceEncoder:
    """The tokenizer and the network; sentences beyond 128 tokens lose their end."""

    tokenizer: Tokenizer
    network: Network

    def embed(self, sentences: Sequence[str]) -> Float32Array:
        """Embed C sentences: [C, 384], unit norm.

        Sentences of one length share a batch, so that none is padded and the result for a
        sentence does not depend on its company.
        """
        embeddings = np.empty((len(sentences), WIDTH), np.float32)
        for rows, ids in self._batches(sentences):
            embeddings[rows] = self.network(ids)
        return embeddings

    def _batches(self, sentences: Sequence[str]) -> list[tuple[list[int], NDArray[np.int64]]]:
        encodings = self.tokenizer.encode_batch(list(sentences))
        by_length: dict[int, list[int]] = defaultdict(list)
        for row, encoding in enumerate(encodings):
            by_length[len(encoding.ids)].append(row)
        return [
            (rows[at : at + BATCH], np.array([encodings[r].ids for r in rows[at : at + BATCH]]))
            for rows in by_length.values()
            for at in range(0, len(rows), BATCH)
        ]


def load_tokenizer(path: str) -> Tokenizer:
    """Load tokenizer.json, without padding, truncating at 128 tokens."""
    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_padding()
    tokenizer.enable_truncation(MOST_TOKENS)
    return tokenizer
