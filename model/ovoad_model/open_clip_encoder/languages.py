"""Which languages a model's text side was taught, by its name. Knows no torch."""

from typing import Final

ENGLISH: Final = ("en",)
MANY: Final = ("mul",)
"""BCP-47 for several languages; docs/encoders.md says which."""

MULTILINGUAL: Final = (
    ("siglip2", "109 languages of WebLI, one tenth of the captions not English"),
    ("i18n", "109 languages of WebLI"),
    ("xlm-roberta", "the 100 languages of XLM-R, captions of LAION-5B"),
    ("mt5", "the 101 languages of mC4"),
    ("nllb", "the 201 languages of Flores-200"),
    ("worldwide", "the web's captions in over 300 languages"),
)
"""What is in a multilingual model's name, and what its authors say that it was taught."""


def taught(model: str) -> str | None:
    """Say what languages a multilingual model was taught; None for one of English."""
    lowered = model.lower()
    return next((languages for part, languages in MULTILINGUAL if part in lowered), None)


def languages_of(model: str) -> tuple[str, ...]:
    """Return BCP-47 codes: English, or `mul`."""
    return ENGLISH if taught(model) is None else MANY
