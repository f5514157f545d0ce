"""A small made-up world of timed captions, in which training can be watched from end to end.

Classes are points of a joint space; a video is a row of actions with background between; what a
camera would add is noise of several kinds. Some classes come up in no training caption. Knows no
network: it makes features and captions in the form that training takes.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovoad_model.arrays import BoolArray, Float32Array, Frame, unit
from ovoad_model.errors import ModelError
from ovoad_model.training.captions import Caption
from ovoad_model.training.windows import Timeline, build_timeline
from ovoad_model.window import GRID_MS

Float64Array = NDArray[np.float64]


@dataclass(frozen=True)
class WorldSettings:
    """How large and how hard the world is; lengths in frames of 250 ms, strengths as norms.

    A frame's point in the joint space (D numbers) is the sum of
    - its class's point, of norm 1; nothing on background frames;
    - drift: a random walk that begins with the action and ends at norm `drift`;
    - scene: constant over a video, from scene_width directions that all videos share, as places,
      people and cameras do;
    - noise: new in every frame.
    A distractor frame (a cut-away, a passer-by) has a random point of norm `distractor` in place
    of class and drift. To the D numbers come F - D more of noise, which say nothing of the joint
    space, and the whole is turned by one rotation; the encoder's own projection undoes it exactly.
    So scorers without training lose nothing to the rotation; what they do not know is which
    directions are scenes, and how long actions last.
    """

    joint_width: int = 32
    feature_width: int = 64
    scene_width: int = 6
    seen_classes: int = 2000
    unseen_classes: int = 40
    wordings: int = 4
    wording_spread: float = 0.3
    noise: float = 1.5
    drift: float = 0.4
    scene: float = 2.0
    distractor: float = 2.0
    distractor_share: float = 0.2
    action_frames: tuple[int, int] = (6, 32)
    background_frames: tuple[int, int] = (4, 20)
    video_frames: int = 240
    training_videos: int = 300
    test_videos: int = 40
    seed: int = 0


@dataclass(frozen=True)
class Video:
    """Features [L, F], the class of each frame [L] (-1 for background), and the captions."""

    name: str
    features: Float32Array
    classes: NDArray[np.int64]
    captions: tuple[Caption, ...]


class World:
    """Classes, the rotation and the nuisances, all drawn from settings.seed; it is an Encoder."""

    name = "made-up world"
    input_size = 1
    temperature = 0.1
    languages = ("en",)
    templates = ("a photo of {}",)
    background = ("background",)
    background_floor = float("-inf")
    lanes = 1

    def __init__(self, settings: WorldSettings) -> None:
        self.settings = settings
        self.fingerprint = hashlib.sha256(repr(settings).encode()).hexdigest()
        self.feature_width = settings.feature_width
        self.embedding_width = settings.joint_width
        random = np.random.default_rng([settings.seed, 0])
        count = settings.seen_classes + settings.unseen_classes
        self._points = _unit(random.normal(size=(count, settings.joint_width)))
        self._scenes, _ = np.linalg.qr(
            random.normal(size=(settings.joint_width, settings.scene_width))
        )
        self._rotation, _ = np.linalg.qr(
            random.normal(size=(settings.feature_width, settings.feature_width))
        )

    @property
    def unseen(self) -> tuple[str, ...]:
        """The labels that come up in no training caption."""
        first = self.settings.seen_classes
        return tuple(label(first + i) for i in range(self.settings.unseen_classes))

    @property
    def image_projection(self) -> Float32Array:
        """The linear map [F, D] of features to the joint space."""
        return self._rotation[:, : self.settings.joint_width].astype(np.float32)

    def project(self, features: Float32Array) -> Float32Array:
        """Map features [.., F] into the joint space [.., D], unit norm."""
        return unit(features @ self.image_projection)

    def encode_text(self, texts: Sequence[str]) -> Float32Array:
        """Embed sentences [C, D]: a class's point, moved a little by how it is worded."""
        return _unit(np.stack([self._embed(text) for text in texts])).astype(np.float32)

    def encode_frames(self, frames: Sequence[Frame]) -> Float32Array:
        """Raise ModelError: this world has features and no pictures."""
        raise ModelError("found pictures, expected features: the made-up world has no camera")

    def warnings_for(self, text: str) -> str | None:
        """Find nothing to warn of."""
        return None

    def training_videos(self) -> list[Video]:
        """Make videos of the seen classes."""
        count = self.settings.training_videos
        classes = np.arange(self.settings.seen_classes)
        return [self._video(f"train_{i:04d}", classes, [1, i]) for i in range(count)]

    def test_videos(self) -> list[Video]:
        """Make videos of the unseen classes."""
        count = self.settings.test_videos
        classes = self.settings.seen_classes + np.arange(self.settings.unseen_classes)
        return [self._video(f"test_{i:04d}", classes, [2, i]) for i in range(count)]

    def _embed(self, text: str) -> Float64Array:
        digest = hashlib.sha256(f"{self.settings.seed} {text}".encode()).digest()
        wording = _unit(np.random.default_rng(list(digest)).normal(size=self.embedding_width))
        match = re.search(r"action (\d+)", text)
        if match is None:
            return wording
        moved: Float64Array = self._points[int(match[1])] + self.settings.wording_spread * wording
        return moved

    def _video(self, name: str, classes: NDArray[np.int64], key: list[int]) -> Video:
        settings = self.settings
        random = np.random.default_rng([settings.seed, *key])
        shown = np.full(settings.video_frames, -1, np.int64)
        points = np.zeros((settings.video_frames, settings.joint_width))
        captions = []
        start = int(random.integers(*settings.background_frames))
        while start + settings.action_frames[0] <= len(shown):
            chosen = int(random.choice(classes))
            stop = min(start + int(random.integers(*settings.action_frames)), len(shown))
            shown[start:stop] = chosen
            points[start:stop] = self._points[chosen] + self._walk(stop - start, random)
            text = f"{label(chosen)}, wording {random.integers(settings.wordings)}"
            captions.append(Caption(name, start * GRID_MS, stop * GRID_MS, text))
            start = stop + int(random.integers(*settings.background_frames))
        return Video(name, self._film(points, random), shown, tuple(captions))

    def _walk(self, length: int, random: np.random.Generator) -> Float64Array:
        """A random walk [length, D] whose last point has norm `drift` (root mean square)."""
        steps = random.normal(size=(length, self.settings.joint_width))
        scale = self.settings.drift / np.sqrt(length * self.settings.joint_width)
        walk: Float64Array = scale * np.cumsum(steps, axis=0)
        return walk

    def _film(self, points: Float64Array, random: np.random.Generator) -> Float32Array:
        """Add distractors, scene and noise to points [L, D]; turn them into features [L, F]."""
        settings = self.settings
        distracted = random.random(len(points)) < settings.distractor_share
        elsewhere = settings.distractor * _unit(random.normal(size=points.shape))
        points = np.where(distracted[:, None], elsewhere, points)
        scene = self._scenes @ _unit(random.normal(size=settings.scene_width))
        whole = random.normal(size=(len(points), settings.feature_width))
        whole *= settings.noise / np.sqrt(settings.joint_width)
        whole[:, : settings.joint_width] += points + settings.scene * scene
        features: Float32Array = (whole @ self._rotation.T).astype(np.float32)
        return features


def label(index: int) -> str:
    """Name a class."""
    return f"action {index:04d}"


def timelines_of(videos: Sequence[Video]) -> list[Timeline]:
    """Put each video's captions on the frame grid."""
    return [build_timeline(v.name, len(v.features), v.captions) for v in videos]


def truth_of(videos: Sequence[Video], labels: Sequence[str]) -> BoolArray:
    """Tell which labels the frames of all videos, end to end, show: [N, C]."""
    classes = np.concatenate([video.classes for video in videos])
    numbers = np.array([int(name.removeprefix("action ")) for name in labels])
    shown: BoolArray = classes[:, None] == numbers
    return shown


def _unit(vectors: Float64Array) -> Float64Array:
    scaled: Float64Array = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled
