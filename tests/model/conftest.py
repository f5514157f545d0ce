"""Shared by the model's tests: the folder of real clips, and what OpenVINO leaves behind."""

import ctypes
import os
from collections.abc import Iterator
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


class _SignalStack(ctypes.Structure):
    """stack_t of sigaltstack(2)."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


_LIBC = ctypes.CDLL(None)
_FIRST_STACK = _SignalStack()
_LIBC.sigaltstack(None, ctypes.byref(_FIRST_STACK))


@pytest.fixture(autouse=True)
def signal_stack() -> Iterator[None]:
    """Give the main thread the stack back on which it handled signals at first.

    OpenVINO's CPU plugin takes its place and frees its own when it goes: the next signal that
    Python handles would then end all tests with a segmentation fault.
    """
    _LIBC.sigaltstack(ctypes.byref(_FIRST_STACK), None)
    yield
    _LIBC.sigaltstack(ctypes.byref(_FIRST_STACK), None)
