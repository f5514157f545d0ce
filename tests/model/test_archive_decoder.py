"""An archive's decoder: the library's frames, file after file, whatever a file does to it."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="archives need the scale extra")


from ovoad_model.archive.decoder import Decoder, TimeLimits
from ovoad_model.archive.decoder_link import ENDED, HEADER, OPENED, Header, pack_json
from ovoad_model.archive.errors import BadVideoError
from ovoad_model.video import read_grid_frames

from .archive_parts import draw_clip, write_bad


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(TimeLimits())
    yield decoder
    decoder.close()


def test_decoder_gives_the_librarys_frames_file_after_file(
    decoder: Decoder, tmp_path: Path
) -> None:
    for seed in (1, 2):
        path = draw_clip(tmp_path / f"{seed}.mp4", seed=seed, frames=30)
        header, frames = decoder.frames(path, fps=4.0)
        assert header == Header(160, 120, 2400)
        for (found_ms, found), (expected_ms, expected) in zip(
            frames, read_grid_frames(path), strict=True
        ):
            assert found_ms == expected_ms
            assert np.array_equal(found, expected)


def test_decoder_goes_on_after_bad_files(decoder: Decoder, tmp_path: Path) -> None:
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"ffconcat version 1.0\nfile {draw_clip(tmp_path / 'a.mp4')}\n")
    for path in (*write_bad(tmp_path), playlist):
        with pytest.raises(BadVideoError, match="is not a video that FFmpeg can read") as caught:
            decoder.frames(path, fps=4.0)
        assert caught.value.code == "not_a_video"
    assert len(list(decoder.frames(tmp_path / "a.mp4", fps=4.0)[1])) == 9


PROGRAM = """
import os, sys, time
pipe = int(sys.argv[1])
for line in sys.stdin:
    {act}
"""


@pytest.mark.parametrize(
    ("act", "code", "message"),
    [
        ("os.kill(os.getpid(), 11)", "decoder_died", "the decoder ended with status -11 over this"),
        ("time.sleep(60)", "too_slow", "found no frame for 0.5 s, expected a video that decodes"),
    ],
)
def test_decoder_that_dies_or_hangs_is_told_and_replaced(
    act: str, code: str, message: str, tmp_path: Path
) -> None:
    program = (sys.executable, "-c", PROGRAM.format(act=act))
    decoder = Decoder(TimeLimits(stall_s=0.5), program=program)
    for _ in range(2):
        with pytest.raises(BadVideoError, match=message) as caught:
            decoder.frames(tmp_path / "any.mp4", fps=4.0)
        assert caught.value.code == code
    decoder.close()


def test_video_has_a_time_limit_in_all(tmp_path: Path) -> None:
    opened = pack_json(OPENED, Header(1, 1, None))
    frame = HEADER.pack(b"F", 3, 0, 1, 1) + b"rgb"
    each = f"(os.write(pipe, {frame!r}), time.sleep(0.1))"
    act = f"os.write(pipe, {opened!r}); [{each} for _ in range(99)]"
    program = (sys.executable, "-c", PROGRAM.format(act=act))
    decoder = Decoder(TimeLimits(stall_s=5.0, video_s=1.0), program=program)
    _, frames = decoder.frames(tmp_path / "any.mp4", fps=4.0)
    with pytest.raises(BadVideoError, match=r"found no end in 1 s, expected"):
        list(frames)
    decoder.close()


def test_decoder_that_was_killed_between_files_is_replaced(tmp_path: Path) -> None:
    ended = HEADER.pack(ENDED, 0, 0, 0, 0)
    opened = pack_json(OPENED, Header(1, 1, None))
    act = f"os.write(pipe, {opened + ended!r}); os._exit(0)"
    decoder = Decoder(TimeLimits(), program=(sys.executable, "-c", PROGRAM.format(act=act)))
    for _ in range(3):
        _, frames = decoder.frames(tmp_path / "any.mp4", fps=4.0)
        assert list(frames) == []
        time.sleep(0.1)
    decoder.close()
