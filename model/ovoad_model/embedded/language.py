"""Tell words that an English text side cannot read. Knows no network and no tokenizer."""

import unicodedata


def english_warning(text: str, *, encoder: str = "embedded") -> str | None:
    """Return a warning for a text that is mostly not in Latin letters, or None."""
    letters = [character for character in text if character.isalpha()]
    latin = sum(_is_latin(letter) for letter in letters)
    if letters and 2 * latin >= len(letters):
        return None
    if not letters:
        return f"label {text!r} has no letters: encoder {encoder} cannot tell what it means"
    return f"label {text!r} is not in a language that encoder {encoder} speaks (en)"


def _is_latin(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith("LATIN")
