"""Check "none of these" of encoder `embedded` on labelled clips: the numbers of docs/embedded.md.

    python benchmarks/embedded_background.py [CLIPS]

One label at a time: how often does the right one beat background, and background the wrong one?
Then 30 labels: are probabilities as often right as they say? Scorers frame and average (reset at
cuts). The threshold check leaves each clip out in turn.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from embedded_trial import (
    Clips,
    Words,
    averaged,
    clip_folder,
    draw_sets,
    read_clips,
    read_words,
)
from numpy.typing import NDArray

from ovoad_model.arrays import Float32Array
from ovoad_model.embedded import EmbeddedEncoder
from ovoad_model.probabilities import label_probabilities

NONSENSE = ("xyzzy", "blorp", "qwerty asdf", "frobnicating a grommet", "lorem ipsum")
FLOOR_FACTORS = np.arange(0.4, 2.0, 0.05)


@dataclass(frozen=True)
class Scored:
    """Similarities of all frames N to labels and background concepts, by label."""

    clips: Clips
    words: Words
    encoder: EmbeddedEncoder
    labels: dict[str, Float32Array]
    background: Float32Array

    def wins(self, label: str, *, floor: float) -> NDArray[np.bool_]:
        """Tell in which frames a label, alone, beats background: [N]."""
        t = self.encoder.temperature
        concepts = np.exp(self.background / t).mean(axis=1)
        won: NDArray[np.bool_] = self.labels[label] / t > np.log(np.exp(floor / t) + concepts)
        return won


def main() -> int:
    """Print all checks for both scorers."""
    clips = read_clips(clip_folder((__doc__ or "").splitlines()[0]))
    words, encoder = read_words(clips.own), EmbeddedEncoder.load()
    frames = np.concatenate([encoder.encode_frames([f]) for fs in clips.frames for f in fs])
    for name, windows in (("frame", frames), ("average", averaged(frames, clips, order=None))):
        print(f"\n{name}")
        scored = score(windows, clips, words, encoder)
        single_labels(scored)
        floors(scored)
        calibration(scored)
    return 0


def score(windows: Float32Array, clips: Clips, words: Words, encoder: EmbeddedEncoder) -> Scored:
    """Compare all windows with all words."""
    labels = [*words.all, *NONSENSE]
    text = encoder.encode_text([encoder.templates[0].format(label) for label in labels])
    columns = dict(zip(labels, (windows @ text.T).T, strict=True))
    background = windows @ encoder.encode_text(encoder.background).T
    return Scored(clips, words, encoder, columns, background)


def single_labels(scored: Scored) -> None:
    """Print, clip by clip, how often right and wrong single labels win."""
    floor = scored.encoder.background_floor
    print("clip | own label wins | other wordings win | background beats wrong labels | nonsense")
    rows = []
    for clip, name in enumerate(scored.clips.names):
        own, wordings, wrong = (rates(scored, clip, words, floor) for words in asked(scored, clip))
        odd = rates(scored, clip, NONSENSE, floor)
        row = [float(np.mean(r)) if len(r) else np.nan for r in (own, wordings)]
        row += [1 - float(np.mean(wrong)), 1 - float(np.mean(odd))]
        rows.append(row)
        print(f"{name} | " + " | ".join(f"{value:.2f}" for value in row))
        if scored.clips.labels[clip] is None:
            safe = float(np.mean(np.array(wrong) <= 0.1))
            print(f"  {name}: background wins >= 90 % of frames for {safe:.0%} of single labels")
    print("mean | " + " | ".join(f"{value:.2f}" for value in np.nanmean(rows, axis=0)))


def asked(scored: Scored, clip: int) -> tuple[list[str], list[str], list[str]]:
    """The clip's own label, its other wordings, and labels of what is plainly absent."""
    words, label = scored.words, scored.clips.labels[clip]
    unsure = words.absent_not_plain.get(scored.clips.names[clip], [])
    wrong = [each for each in words.fixed + words.others if each not in unsure]
    if label is None:
        return [], [], wrong
    number = scored.clips.own.index(label)
    return [label], [wording[number] for wording in words.wordings[1:]], wrong


def rates(scored: Scored, clip: int, labels: Sequence[str], floor: float) -> list[float]:
    """The share of a clip's frames in which each label, alone, beats background."""
    rows = slice(*scored.clips.starts[clip : clip + 2])
    return [float(scored.wins(label, floor=floor)[rows].mean()) for label in labels]


def floors(scored: Scored) -> None:
    """Print what the best floor for all other clips does on each clip left out."""
    right, wrong = [], []
    tried = FLOOR_FACTORS * scored.encoder.background_floor
    for clip in range(len(scored.clips.names)):
        own, wordings, absent = asked(scored, clip)
        right.append([np.mean(rates(scored, clip, own + wordings, f) or [np.nan]) for f in tried])
        wrong.append([1 - np.mean(rates(scored, clip, absent, f)) for f in tried])
    hits, refusals = np.array(right), np.array(wrong)
    chosen, kept = [], []
    for clip in range(len(hits)):
        others = np.arange(len(hits)) != clip
        gain = np.nanmean(hits[others], axis=0) + refusals[others].mean(axis=0)
        best = int(gain.argmax())
        chosen.append(FLOOR_FACTORS[best])
        kept.append(np.nanmean([hits[clip, best], refusals[clip, best]]))
    print(
        f"floor chosen without each clip: {min(chosen):.2f} to {max(chosen):.2f} times the shipped "
        f"one; balanced "
        f"accuracy on the clip left out: {np.mean(kept):.3f}"
    )


def calibration(scored: Scored) -> None:
    """Print how often the winner among 30 labels and background is right, by its probability."""
    sure, right = [], []
    for vocabulary in draw_sets(scored.words):
        likely, background = probabilities(scored, vocabulary)
        truth = scored.clips.truth
        best = np.where(background > likely.max(axis=1), -1, likely.argmax(axis=1))
        sure.append(np.maximum(background, likely.max(axis=1)))
        right.append(best == truth)
    confidence, correct = np.concatenate(sure), np.concatenate(right)
    print("winner's probability | share of frames | right")
    error = 0.0
    for low in np.arange(0, 1, 0.2):
        inside = (confidence > low) & (confidence <= low + 0.2)
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
            print(
                f"{low:.1f} to {low + 0.2:.1f} (mean {confidence[inside].mean():.2f}) | "
                f"{inside.mean():.2f} | {correct[inside].mean():.2f}"
            )
    print(f"expected calibration error {error:.3f}; right overall {correct.mean():.2f}")


def probabilities(
    scored: Scored, vocabulary: Sequence[str]
) -> tuple[Float32Array, NDArray[np.float64]]:
    """Probabilities of labels [N, 30] and of background [N], as they are served."""
    similarities = np.stack([scored.labels[label] for label in vocabulary], axis=1)
    pairs = [
        label_probabilities(
            row,
            concepts,
            temperature=scored.encoder.temperature,
            floor=scored.encoder.background_floor,
        )
        for row, concepts in zip(similarities, scored.background, strict=True)
    ]
    return np.stack([likely for likely, _ in pairs]), np.array([none for _, none in pairs])


if __name__ == "__main__":
    sys.exit(main())
