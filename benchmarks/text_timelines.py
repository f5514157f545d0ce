"""Can the network be taught without video? Write timelines made of text, to train on.

    python benchmarks/text_timelines.py OUT --without CLIPS/labels.json
    ovoad train --captions OUT/captions.jsonl --features OUT/features --out OUT/run …

Each "video" is a row of actions with background between. A frame of an action is the embedding of
its caption plus noise, new in every frame (--noise) and constant over an action (--shared-noise);
both are variances per number of a unit vector. Background frames are the same from sentences that
name no action. docs/training.md says what came of it.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from ovoad_model.arrays import Float32Array, unit
from ovoad_model.build import build_encoder
from ovoad_model.encoder import Encoder
from ovoad_model.training.captions import Caption, write_captions
from ovoad_model.training.feature_store import FeatureDescription
from ovoad_model.window import GRID_MS

TEMPLATES = ("a video of a person {}", "a man {}", "a woman is {}", "someone {}", "people {}")
NO_ACTION = (
    "an empty street",
    "a building",
    "the sky",
    "a crowd of people standing",
    "a close-up of a face",
    "a blank screen",
    "text on a screen",
)
FRAMES = 240
ACTION_FRAMES = (8, 48)
GAP_FRAMES = (4, 20)


def read_actions(without: Path | None) -> list[str]:
    """Read actions.txt, without those that share two words with, or are, a label of the file."""
    lines = (Path(__file__).parent / "actions.txt").read_text().splitlines()
    actions = [line for line in lines if line and not line.startswith("#")]
    if without is None:
        return actions
    entries = json.loads(without.read_text()).values()
    held_out = [_words(entry["label"]) for entry in entries if entry["label"]]
    return [
        action
        for action in actions
        if not any(
            len(_words(action) & label) >= 2 or _words(action) == label for label in held_out
        )
    ]


def _words(text: str) -> set[str]:
    return set(text.split()) - {"a", "an", "the", "on", "in"}


class Timelines:
    """Make features and captions of one timeline after another."""

    def __init__(
        self, encoder: Encoder, actions: list[str], *, noise: float, shared_noise: float, seed: int
    ) -> None:
        self._texts = [template.format(action) for action in actions for template in TEMPLATES]
        self._embedded = encoder.encode_text(self._texts)
        self._nothing = encoder.encode_text([*encoder.background, *NO_ACTION])
        self._noise = noise
        self._shared_noise = shared_noise
        self._random = np.random.default_rng(seed)

    def make(self, name: str) -> tuple[Float32Array, list[Caption]]:
        """Make one timeline's features [240, D], unit norm, and its captions."""
        features, captions = [], []
        filled = 0
        while filled < FRAMES:
            gap = int(self._random.integers(*GAP_FRAMES))
            features.append(self._stretch(self._nothing, self._pick(self._nothing), gap))
            start = filled + gap
            length = int(self._random.integers(*ACTION_FRAMES))
            chosen = self._pick(self._embedded)
            features.append(self._stretch(self._embedded, chosen, length))
            filled = start + length
            if start < FRAMES:
                end_ms = min(filled, FRAMES) * GRID_MS
                captions.append(Caption(name, start * GRID_MS, end_ms, self._texts[chosen]))
        return unit(np.concatenate(features)[:FRAMES]), captions

    def _pick(self, rows: Float32Array) -> int:
        return int(self._random.integers(len(rows)))

    def _stretch(self, rows: Float32Array, chosen: int, length: int) -> Float32Array:
        width = rows.shape[1]
        shared = self._random.normal(0, self._shared_noise**0.5, width)
        each = self._random.normal(0, self._noise**0.5, (length, width))
        return unit((rows[chosen] + shared + each).astype(np.float32))


def main(argv: list[str]) -> int:
    """Write OUT/features and OUT/captions.jsonl."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--without", type=Path, metavar="LABELS.json", help="hold these out")
    parser.add_argument("--noise", type=float, default=0.016)
    parser.add_argument("--shared-noise", type=float, default=0.0)
    parser.add_argument("--timelines", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    encoder = build_encoder("embedded")
    if encoder.feature_width != encoder.embedding_width:
        raise SystemExit("found features outside the joint space, expected them inside")
    actions = read_actions(arguments.without)
    folder = arguments.out / "features"
    FeatureDescription(encoder.name, encoder.fingerprint, encoder.feature_width).write(folder)
    timelines = Timelines(
        encoder,
        actions,
        noise=arguments.noise,
        shared_noise=arguments.shared_noise,
        seed=arguments.seed,
    )
    captions = []
    for index in range(arguments.timelines):
        name = f"text_{index:04d}"
        features, said = timelines.make(name)
        np.save(folder / f"{name}.npy", features)
        captions += said
    write_captions(arguments.out / "captions.jsonl", captions)
    print(f"{len(captions)} captions of {len(actions)} actions in {arguments.timelines} timelines")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
