"""Verb–object phrases of captions, and what is said where the parser is absent."""

import sys

import pytest

from ovoad_model.training import phrases as phrases_module
from ovoad_model.training.phrases import (
    PHRASE_TEMPLATES,
    PhrasesUnavailableError,
    in_templates,
    load_phrases,
)


def test_phrases_are_verbs_with_their_objects() -> None:
    pytest.importorskip("spacy", reason='needs pip install "ovoad[phrases]"')
    found = load_phrases()(
        [
            "A man is playing the guitar on a stage.",
            "He is seen mixing ingredients in a bowl and pouring the batter into a pan.",
            "A woman picks up the coffee cup and drinks it.",
            "People are jumping on a bed.",
            "",
        ]
    )
    assert found == [
        ["play guitar"],
        ["mix ingredients", "pour batter"],
        ["pick up coffee cup"],
        [],
        [],
    ]


def test_a_phrase_is_put_into_every_template() -> None:
    made = in_templates("play guitar")
    assert len(made) == len(PHRASE_TEMPLATES)
    assert all("play guitar" in sentence for sentence in made)


def test_without_the_library_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(PhrasesUnavailableError, match=r'pip install "ovoad\[phrases\]"') as caught:
        load_phrases()
    assert "found no spaCy" in str(caught.value)


def test_without_the_pipeline_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("spacy", reason='needs pip install "ovoad[phrases]"')
    monkeypatch.setattr(phrases_module, "PIPELINES", ("no_such_pipeline",))
    with pytest.raises(PhrasesUnavailableError, match="found no English pipeline for spaCy"):
        load_phrases()
