"""What an archive is asked for and what it says: arguments, settings, events, progress."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="archives need the scale extra")


from ovoad_model.archive.arguments import build_parser, check_address, settings_from
from ovoad_model.archive.command import main
from ovoad_model.archive.errors import ArchiveError
from ovoad_model.archive.events import Action, EventRule, find_actions
from ovoad_model.archive.progress import Counts, progress_line, summary
from ovoad_model.archive.settings import ArchiveSettings, describe

SETTINGS = ArchiveSettings(labels=("a red circle", "a person cooking"), runtime="onnxruntime")


def test_actions_have_hysteresis_and_end_at_gaps() -> None:
    times = [0, 250, 500, 750, 1000, 4000, 4250, 4500, 4750, 5000]
    first = [0.2, 0.6, 0.9, 0.4, 0.2, 0.6, 0.4, 0.4, 0.8, 0.5]
    second = [0.7, 0.1, 0.1, 0.1, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1]
    probabilities = np.array([first, second], np.float32).T
    actions = find_actions(times, probabilities, ("a", "b"), EventRule())
    assert actions == [
        Action("a", 250, 1000, float(np.float32(0.9))),
        Action("a", 4000, 5000, float(np.float32(0.8))),
    ]


def test_description_resolves_defaults_and_knows_weights_by_content(tmp_path: Path) -> None:
    detector = SETTINGS.build_detector(tmp_path, frames=False)
    text = describe(SETTINGS, detector).text
    assert describe(replace(SETTINGS, fps=4.0), detector).text == text
    assert '"scorer": "average"' in text
    assert "a person" in text, "the default templates"
    digests = set()
    for content in ("one", "two"):
        (tmp_path / "model.safetensors").write_text(content)
        digests.add(describe(replace(SETTINGS, weights=tmp_path), detector).digest)
    assert len(digests | {describe(SETTINGS, detector).digest}) == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--labels", "a", "a"], r"found labels \['a', 'a'\], expected each once"),
        (["--labels", " "], r"found labels \[' '\], expected each once and none empty"),
        (["--labels", "a", "--templates", "photo"], r"found template 'photo', expected one with"),
    ],
)
def test_words_that_cannot_be_are_refused(flags: list[str], message: str) -> None:
    arguments = build_parser().parse_args(["videos", "--out", "out", *flags])
    with pytest.raises(ArchiveError, match=message):
        settings_from(arguments)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--events", "0.5"], "expected ENTER,EXIT,MIN_MS"),
        (["--events", "0.3,0.5,1"], "expected 0 <= EXIT <= ENTER < 1"),
        (["--fps", "0"], "expected 0.1 to 60"),
        (["--workers", "0"], "expected 1 or more"),
        (["--time-limit", "-1"], "expected 0 or more"),
    ],
)
def test_arguments_out_of_bounds_are_refused(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["videos", "--out", "out", "--labels", "a", *flags])
    assert message in capsys.readouterr().err


def test_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ovoad_model.archive.command.find_spec", lambda name: None)
    assert main(["videos", "--labels", "a", "--out", "out"]) == 1
    assert "pip install 'ovoad[scale]'" in capsys.readouterr().err


def test_ray_clients_address_is_refused() -> None:
    check_address("auto")
    with pytest.raises(ArchiveError, match="expected auto or HOST:PORT"):
        check_address("ray://head:10001")


def test_progress_tells_videos_frames_bad_and_time_left() -> None:
    counts = Counts(videos=8, bytes=800, before=2, done=2, done_bytes=200, frames=50, bad=1)
    assert progress_line(counts, 10.0) == "4/10 videos, 1 bad, 5.0 frames/s, 0:30 left"
    bad = {f"{index}.mp4": ("not_a_video", "words") for index in range(22)}
    lines = summary(counts, bad, 3700.0)
    assert lines[0] == "2 videos scored (50 frames) in 1:01:40, 2 finished before, 22 bad in all"
    assert lines[1] == "  bad: 0.mp4: not_a_video: words"
    assert lines[-1] == "  and 2 more: status = 'bad' in the results"
