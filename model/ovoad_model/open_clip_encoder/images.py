"""The image side of an open_clip encoder: one tower in the runtime that was asked for, or the best.

The runtime is made at the first frame, so that whoever embeds words alone waits for nothing.
"""

import logging
from pathlib import Path
from threading import Lock
from typing import Final

import torch
from torch import Tensor

from ovoad_model.arrays import Float32Array
from ovoad_model.open_clip_encoder.runtimes import (
    Network,
    Workshop,
    check_runtime,
    load_runtime,
)
from ovoad_model.open_clip_encoder.trial import find_fastest

LOGGER: Final = logging.getLogger(__name__)


class ImageSide:
    """Runs batches uint8 [B, S, S, 3]; safe to use from several threads."""

    def __init__(self, shop: Workshop, runtime: str) -> None:
        """Refuse a runtime that cannot run here; make it later."""
        if runtime != "auto":
            check_runtime(runtime, shop.device)
        self.name = runtime
        self.device = shop.device
        self.exports = shop.exports
        self._shop: Workshop | None = shop  # until the network is made
        self._network: Network | None = None
        self._lock = Lock()

    def __call__(self, batch: Tensor) -> Float32Array:
        """Give features [B, F] of a batch on the device."""
        network = self._network or self.load()
        return network(batch)

    def export(self) -> Path:
        """Return the tower's float32 export, made now where it is not there; before `load`."""
        with self._lock:
            assert self._shop is not None
            return self._shop.exports.plain(self._shop.tower)

    def load(self) -> Network:
        """Make the network, once; auto measures first, unless this machine has done so before."""
        with self._lock:
            if self._network is None:
                assert self._shop is not None
                if self.name == "auto":
                    self.name, self._network = find_fastest(self._shop)
                    LOGGER.info("runtime auto: %s", self.name)
                else:
                    self._network = load_runtime(self.name, self._shop)
                self._shop = None
            return self._network


def device_of(name: str | None) -> torch.device:
    """torch's device of this name; by default a GPU where there is one."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
