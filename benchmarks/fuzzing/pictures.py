"""The pictures that are sent: sound ones, the corpus of defects, and mutated ones."""

import random
from dataclasses import dataclass

import cv2
import numpy as np
from tests.server.image_corpus import corpus
from tests.server.mutations import mutate

_SMALL = 10_000  # bytes; larger ones go out now and then
_COSTLY = 1_000_000  # pixels


@dataclass(frozen=True)
class Pictures:
    """Files by what they are for."""

    sound: tuple[bytes, ...]
    cheap: tuple[bytes, ...]
    costly: tuple[bytes, ...]

    def strange(self, choice: random.Random) -> bytes:
        """Return a picture of the corpus."""
        return choice.choice(self.costly if choice.random() < 0.004 else self.cheap)

    def mutated(self, choice: random.Random) -> bytes:
        """Return a sound or strange picture with random damage."""
        return mutate(choice.choice(self.sound + self.cheap), choice)


def make_pictures() -> Pictures:
    """Draw a few small pictures, and take the corpus."""
    sound = []
    for seed, suffix in enumerate((".jpg", ".jpg", ".png", ".webp", ".jpg")):
        coarse = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), dtype=np.uint8)
        pixels = cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC)
        sound.append(cv2.imencode(suffix, pixels)[1].tobytes())
    cheap: list[bytes] = []
    costly: list[bytes] = []
    for picture in corpus():
        pixels_in_all = picture.shape[0] * picture.shape[1] if picture.shape else 0
        small = len(picture.data) < _SMALL and pixels_in_all < _COSTLY
        (cheap if small else costly).append(picture.data)
    return Pictures(tuple(sound), tuple(cheap), tuple(costly))
