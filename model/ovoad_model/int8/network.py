"""Make an int8 network of a float32 one, and find one that was made: files of OpenVINO.

    CACHE/encoders/FINGERPRINT/openvino-int8/image.xml, image.bin, agreement.json, manifest.json

NNCF quantises after training: a scale a channel for weights, one for each activation from what
the calibration pictures give; SmoothQuant where there is attention. Knows no encoder.
"""

import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ovoad_model.arrays import Float32Array, Frame
from ovoad_model.embedded.runtime import Network, load_network
from ovoad_model.errors import MissingRuntimeError
from ovoad_model.int8.agreement import Agreement, cosines, read_agreement, write_agreement
from ovoad_model.int8.errors import UncalibratedError
from ovoad_model.kept import is_whole, make_folder

LOGGER: Final = logging.getLogger(__name__)
FOLDER: Final = "openvino-int8"
FILE: Final = "image.xml"
DIGITS: Final = 24  # of a fingerprint, in names of folders
LEAST_MEAN: Final = 0.98
"""An int8 network whose mean cosine is below this is not served."""


def int8_folder(cache: Path, fingerprint: str) -> Path:
    """Where an encoder's int8 network lies."""
    return cache / "encoders" / fingerprint[:DIGITS] / FOLDER


@dataclass(frozen=True)
class Source:
    """What an int8 network is made from: float32 ONNX, and what its encoder does around it.

    folder: where the int8 network goes. prepare: frames to the network's input, uint8 [B, H, W, 3].
    embed: the network's output to embeddings [B, D].
    """

    encoder: str
    plain: Path
    folder: Path
    prepare: Callable[[Sequence[Frame]], NDArray[np.uint8]]
    embed: Callable[[Float32Array], Float32Array]


def calibrate(source: Source, frames: Iterable[Frame], *, pictures: str) -> Agreement:
    """Make the int8 network on half of the frames, judge it on the other half, keep both.

    Frames are taken one by one: what is kept of each is the network's input.
    """
    batches = [source.prepare([frame]) for frame in frames]
    fitted, judged = batches[::2], batches[1::2]
    made: list[Agreement] = []

    def make(folder: Path) -> None:
        quantise(source.plain, folder / FILE, fitted)
        exact = load_network(source.plain, runtime="openvino", threads=0)
        rough = load_network(folder / FILE, runtime="openvino", threads=0)
        like = np.concatenate(
            [cosines(source.embed(exact(each)), source.embed(rough(each))) for each in judged]
        )
        mean, least = float(like.mean()), float(like.min())
        made.append(Agreement(pictures, len(fitted), len(judged), mean, least))
        write_agreement(folder, made[-1])

    make_folder(source.folder, make)
    return made[-1]


def quantise(plain: Path, target: Path, batches: Sequence[NDArray[np.uint8]]) -> None:
    """Write the int8 network of a float32 ONNX file, calibrated on batches [1, H, W, 3]."""
    for package in ("openvino", "nncf"):
        if find_spec(package) is None:
            raise MissingRuntimeError(package)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that it brings, about themselves
        openvino, nncf = import_module("openvino"), import_module("nncf")
        logging.getLogger("nncf").setLevel(logging.ERROR)  # it tells each step
        model: Any = openvino.Core().read_model(str(plain))
        attention = sum(node.get_type_name() == "Softmax" for node in model.get_ops()) > 1
        quantised = nncf.quantize(
            model,
            nncf.Dataset(list(batches)),
            subset_size=len(batches),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if attention else None,
        )
    openvino.save_model(quantised, str(target), compress_to_fp16=False)


def find_int8(folder: Path, *, encoder: str) -> Path:
    """Return the network's file and say in the log how far it agrees.

    Raises UncalibratedError where there is none, it is damaged, or it agrees too little.
    """
    expected = f"one made by: ovoad encoders {encoder} --calibrate FOLDER --clips FOLDER"
    if not folder.is_dir():
        raise UncalibratedError(encoder, "no network that was calibrated", expected)
    if not is_whole(folder, FILE):
        raise UncalibratedError(encoder, f"a damaged network in {folder}", expected)
    agreement = read_agreement(folder)
    if agreement.mean < LEAST_MEAN:
        raise UncalibratedError(encoder, str(agreement), f"a mean cosine from {LEAST_MEAN}")
    LOGGER.warning("runtime openvino-int8 of %s: %s", encoder, agreement)
    return folder / FILE


def load_int8(folder: Path, *, encoder: str) -> Network:
    """Load the network that find_int8 finds."""
    return load_network(find_int8(folder, encoder=encoder), runtime="openvino", threads=0)
