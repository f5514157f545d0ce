"""Shared by the model's tests: the folder of real clips, where it exists."""

import os
from pathlib import Path

import pytest

_DEFAULT_CLIPS = Path(__file__).parents[2].parent / "shared" / "clips"


@pytest.fixture(scope="session")
def clips() -> Path:
    """Return the folder of real labelled clips; skips where there is none."""
    folder = Path(os.environ.get("OVOAD_TEST_CLIPS", _DEFAULT_CLIPS))
    if not (folder / "labels.json").is_file():
        pytest.skip(f"no real clips at {folder}; set OVOAD_TEST_CLIPS")
    return folder
