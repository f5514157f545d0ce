"""Image towers as ONNX files in the cache folder, by fingerprint; damaged ones are made anew.

    CACHE/encoders/FINGERPRINT/plain/image.onnx, manifest.json     float32
    CACHE/encoders/FINGERPRINT/int8/…                               int8 matrices (int8.py)
    CACHE/encoders/FINGERPRINT/openvino-int8/…                      calibrated (ovoad_model/int8)

Knows no runtime.
"""

import errno
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from ovoad_model.int8.network import DIGITS, int8_folder
from ovoad_model.kept import Make, is_whole, make_folder
from ovoad_model.open_clip_encoder.errors import NoSpaceError
from ovoad_model.open_clip_encoder.int8 import measure_agreement, quantise
from ovoad_model.open_clip_encoder.tower import ImageTower

LOGGER: Final = logging.getLogger(__name__)
FILE: Final = "image.onnx"


@dataclass(frozen=True)
class Exports:
    """The exports of one tower: its fingerprint and input size, and the folder that keeps them."""

    folder: Path
    fingerprint: str
    size: tuple[int, int]

    def plain(self, tower: ImageTower) -> Path:
        """Return the float32 export, making it where it is not there whole."""
        return self._kept("plain", lambda folder: export(tower, self.size, folder / FILE))

    def int8(self, tower: ImageTower) -> Path:
        """Return the int8 export, made from the float32 one (int8.py)."""
        return self._kept("int8", lambda folder: self._quantise(tower, folder))

    def _quantise(self, tower: ImageTower, folder: Path) -> None:
        plain = self.plain(tower)
        quantise(plain, folder / FILE)
        measure_agreement(plain, folder / FILE, self.size)

    @property
    def own_folder(self) -> Path:
        """Where all that belongs to this fingerprint lies."""
        return self.folder / "encoders" / self.fingerprint[:DIGITS]

    @property
    def calibrated(self) -> Path:
        """The folder of the calibrated int8 network; whether it is there, int8/network.py tells."""
        return int8_folder(self.folder, self.fingerprint)

    def _kept(self, kind: str, make: Make) -> Path:
        folder = self.own_folder / kind
        if not is_whole(folder, FILE):
            if folder.exists():
                LOGGER.warning("export %s: found it damaged, making it anew", folder)
            LOGGER.info("exporting the image tower to %s, which takes up to a minute", folder)
            try:
                make_folder(folder, make)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise NoSpaceError(self.folder, "an exported image tower") from error
                raise
        return folder / FILE


def export(tower: ImageTower, size: tuple[int, int], path: Path) -> None:
    """Write a tower as ONNX: uint8 [B, H, W, 3] to float32 [B, F], any B."""
    example = torch.zeros((2, *size, 3), dtype=torch.uint8)
    if next(tower.parameters()).device.type != "cpu":
        tower = deepcopy(tower).cpu()
    with warnings.catch_warnings(), torch.inference_mode(), _quiet_exporter():
        warnings.simplefilter("ignore")  # the exporter's own, about its own code
        program: Any = torch.onnx.export(
            tower,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            input_names=["frames"],
            output_names=["features"],
            verbose=False,
        )
        program.save(str(path))


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter notes every node that it folds; only its warnings are kept."""
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
