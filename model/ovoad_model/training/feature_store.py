"""A folder of frame features: VIDEO.npy [L, F], row i at i x 250 ms. Knows no captions."""

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovoad_model.arrays import Float32Array
from ovoad_model.errors import ModelError
from ovoad_model.training.files import write_atomically
from ovoad_model.window import FPS

DESCRIPTION_NAME = "features.json"


class FeatureError(ModelError):
    """A feature file or folder that is not as expected; `path` names it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


@dataclass(frozen=True)
class FeatureDescription:
    """Which encoder made a folder's features; kept beside them as features.json."""

    encoder: str
    fingerprint: str
    feature_width: int
    fps: float = FPS

    def write(self, folder: Path) -> None:
        """Write features.json into the folder."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        write_atomically(folder / DESCRIPTION_NAME, lambda stream: stream.write(text.encode()))

    @classmethod
    def read(cls, folder: Path) -> "FeatureDescription | None":
        """Read the folder's features.json; None where there is none."""
        path = folder / DESCRIPTION_NAME
        try:
            members = json.loads(path.read_text())
            return cls(
                encoder=str(members["encoder"]),
                fingerprint=str(members["fingerprint"]),
                feature_width=int(members["feature_width"]),
                fps=float(members["fps"]),
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise FeatureError(path, f"found no description of features ({error})") from error


class FeatureStore:
    """Read features of F columns from a folder, one file a video, mapped and not loaded."""

    def __init__(self, folder: Path, feature_width: int) -> None:
        if not folder.is_dir():
            raise FeatureError(folder, "found no such folder, expected features")
        self.folder = folder
        self.feature_width = feature_width
        # Mapped files hold a descriptor each, so that only the last few hundred stay open.
        self._open = lru_cache(maxsize=512)(self._map)

    def path(self, video: str) -> Path:
        """Name the file of a video's features."""
        return self.folder / f"{video}.npy"

    def length(self, video: str) -> int:
        """Count a video's frames, L."""
        return int(self._open(video).shape[0])

    def rows(self, video: str, start: int, stop: int) -> Float32Array:
        """Read the features [stop - start, F] of frames start to stop - 1."""
        return np.asarray(self._open(video)[start:stop], dtype=np.float32)

    def check(self, video: str) -> None:
        """Read a video's features through; raise FeatureError at the first thing wrong."""
        features = self._open(video)
        for start in range(0, len(features), 4096):
            bad = ~np.isfinite(features[start : start + 4096]).all(axis=1)
            if bad.any():
                frame = start + int(np.argmax(bad))
                raise FeatureError(
                    self.path(video), f"found NaN or infinity in frame {frame}, expected numbers"
                )

    def _map(self, video: str) -> NDArray[np.floating]:
        path = self.path(video)
        features = map_features(path)
        if features.shape[1] != self.feature_width:
            raise FeatureError(
                path, f"found features {features.shape[1]} wide, expected {self.feature_width}"
            )
        return features


def map_features(path: Path) -> NDArray[np.floating]:
    """Map a feature file [L, F] of at least one frame, any float type, without reading it."""
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise FeatureError(path, "found no such file, expected features") from error
    except (OSError, ValueError, EOFError) as error:
        raise FeatureError(path, f"found no .npy array ({error})") from error
    if not isinstance(features, np.ndarray) or not np.issubdtype(features.dtype, np.floating):
        raise FeatureError(path, "found no array of floats, expected features [L, F]")
    if features.ndim != 2 or 0 in features.shape:
        raise FeatureError(path, f"found shape {features.shape}, expected [L, F], L and F above 0")
    return features
