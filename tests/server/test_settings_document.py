"""docs/settings.md names every setting with its default, and no other."""

import re
from pathlib import Path

import pytest

from ovoad_server.settings import Settings

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"
ROW = re.compile(r"^\| `OVOAD_(\w+)` \| (.+?) \| (.+) \|$", re.MULTILINE)


def test_every_field_has_its_row_and_no_other_is_named() -> None:
    rows = [name.lower() for name, _, _ in ROW.findall(DOCUMENT.read_text(encoding="utf-8"))]
    assert rows == list(Settings.model_fields)


def test_no_variable_is_named_that_does_not_exist() -> None:
    named = set(re.findall(r"OVOAD_(\w+)", DOCUMENT.read_text(encoding="utf-8")))
    assert {name.lower() for name in named} == set(Settings.model_fields)


def test_defaults_are_the_true_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    settings = Settings()
    for name, default, _ in ROW.findall(DOCUMENT.read_text(encoding="utf-8")):
        value = getattr(settings, name.lower())
        text = "none" if value in (None, ()) else str(value).replace(str(Path.home()), "~")
        assert default == text, name
