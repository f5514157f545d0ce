"""Make joint.npz from affordances.tsv: phrases, their embeddings, the centre and the basis."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovoad_model.arrays import Float32Array
from ovoad_model.embedded.joint_space import JointSpace
from ovoad_model.embedded.runtime import load_network
from ovoad_model.embedded.sentences import SentenceEncoder, load_tokenizer
from ovoad_model.embedded.shipped import ASSETS

AFFORDANCES = ASSETS.parent / "affordances.tsv"
TEMPLATE = "a video of a person {}"
PHRASE_SHARPNESS = 20.0
CLASS_SHARPNESS = 10.0
RANK = 384


def convert_joint_space(out: Path) -> str:
    """Write joint.npz; return what it holds."""
    space = make_joint_space(read_affordances(), load_sentences(out))
    np.savez(
        out / "joint.npz",
        phrases=space.phrases.astype(np.float16),
        places=space.places.astype(np.int16),
        first_place=space.first_place.astype(np.int16),
        centre=space.centre,
        basis=space.basis.astype(np.float16),
        cohort_mean=space.cohort_mean,
        cohort_root=space.cohort_root.astype(np.float16),
        phrase_sharpness=space.phrase_sharpness,
        class_sharpness=space.class_sharpness,
    )
    size = (out / "joint.npz").stat().st_size / 1e6
    return f"joint.npz: {size:.1f} MB; {len(space.phrases)} phrases, rank {space.basis.shape[1]}"


def make_joint_space(
    affordances: Sequence[Sequence[str]], sentences: SentenceEncoder
) -> JointSpace:
    """Join the two sides by K classes' phrases."""
    wording = sorted({phrase for phrases in affordances for phrase in phrases})
    number = {phrase: at for at, phrase in enumerate(wording)}
    counts = [len(phrases) for phrases in affordances]
    classes = len(affordances)
    space = JointSpace(
        phrases=sentences.embed(wording).astype(np.float16).astype(np.float32),
        places=np.array([number[phrase] for phrases in affordances for phrase in phrases]),
        first_place=np.cumsum([0, *counts[:-1]]),
        centre=np.zeros(classes, np.float32),
        basis=np.eye(classes, dtype=np.float32),
        cohort_mean=np.zeros(classes, np.float32),
        cohort_root=np.eye(classes, dtype=np.float32),
        phrase_sharpness=PHRASE_SHARPNESS,
        class_sharpness=CLASS_SHARPNESS,
    )
    prompts = sentences.embed([TEMPLATE.format(phrase) for phrase in wording])
    roots = np.sqrt(space.distributions(prompts))
    centre = roots.mean(axis=0)
    space = replace(space, centre=centre, basis=principal_basis(roots - centre, RANK))
    cohort = space.sentence_coordinates(space.phrases)  # without the prompt: any activity's name
    covariance = np.cov(cohort.T.astype(np.float64), bias=True)
    return replace(space, cohort_mean=cohort.mean(axis=0), cohort_root=symmetric_root(covariance))


def symmetric_root(covariance: NDArray[np.float64]) -> Float32Array:
    """Return the symmetric square root of a covariance matrix."""
    values, vectors = np.linalg.eigh(covariance)
    root: Float32Array = ((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T).astype(np.float32)
    return root


def principal_basis(rows: Float32Array, rank: int) -> Float32Array:
    """Return the first right singular vectors of rows [N, K] as columns [K, rank]."""
    _, _, right = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
    basis: NDArray[np.float32] = right[:rank].T.astype(np.float32)
    return basis


def read_affordances(path: Path = AFFORDANCES) -> list[list[str]]:
    """Read one list of phrases per class from lines "number, tab, phrases joined by ;"."""
    phrases: dict[int, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            number, text = line.split("\t")
            phrases[int(number)] = [phrase.strip() for phrase in text.split(";")]
    return [phrases[number] for number in range(len(phrases))]


def load_sentences(out: Path) -> SentenceEncoder:
    """Load the text side that was just written."""
    network = load_network(out / "text.onnx", runtime="onnxruntime", threads=0)
    return SentenceEncoder(load_tokenizer(str(out / "tokenizer.json")), network)
