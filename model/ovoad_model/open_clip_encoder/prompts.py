"""Sentences put around labels, and for "nothing of that kind", as CLIP models read captions."""

from typing import Final

TEMPLATES: Final = (
    "a photo of action {}",
    "a photo of a person {}",
    "a video of a person {}",
    "a person {}",
)
"""The default: the paper's prompt and three plain captions."""

PAPER: Final = ("a photo of action {}",)

KINETICS: Final = tuple(
    f"a {kind} of {who}{{}}."
    for kind in ("photo", "video", "example", "demonstration")
    for who in (
        *("", "a person ", "a person using ", "a person doing ", "a person during "),
        *("a person performing ", "a person practicing "),
    )
)
"""The 28 prompts that CLIP's authors ensembled for the Kinetics actions (Radford et al. 2021)."""

TEMPLATE_SETS: Final = {"default": TEMPLATES, "paper": PAPER, "kinetics": KINETICS}

BACKGROUND: Final = (
    "a photo of nothing in particular",
    "a photo of an empty room",
    "a photo of an empty street",
    "a photo of an empty stage",
    "a photo of a landscape",
    "a photo of a building",
    "a photo of the sky",
    "a photo of trees and grass",
    "a photo of water",
    "a photo of a wall",
    "a photo of an object",
    "a photo of a vehicle",
    "a photo of furniture",
    "a photo of an animal",
    "a photo of a person standing still",
    "a screen with text",
    "a dark picture",
    "a blurred picture",
)
