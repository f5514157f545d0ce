"""The bare model's measurement."""

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from ovoad_model.arrays import Float32Array, Frame
from ovoad_model.baseline import BareLoop, calls_per_s, decode, main, measure, read_jpegs
from ovoad_model.build import build_detector
from ovoad_model.detector import Detector
from ovoad_model.vocabulary import Vocabulary


class CountingDetector(Detector):
    """A real one that notes how many frames each call encodes."""

    batches: list[int]

    def encode(self, frames: list[Frame]) -> Float32Array:  # type: ignore[override]
        self.batches.append(len(frames))
        return super().encode(frames)


@pytest.fixture(scope="module")
def words_and_detector() -> tuple[Vocabulary, CountingDetector]:
    """Return the embedded encoder's detector and some words."""
    built = build_detector(scorer="average")
    detector = CountingDetector.__new__(CountingDetector)
    detector.__dict__.update(built.__dict__)
    detector.batches = []
    return detector.vocabulary(["waving", "jumping"]), detector


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of three small JPEGs."""
    generator = np.random.default_rng(0)
    for number in range(3):
        image = generator.integers(0, 256, (48, 64, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{number:03}.jpg"), image)
    return tmp_path


def test_a_rate_is_calls_over_time() -> None:
    fast, slow = calls_per_s([lambda: time.sleep(0.001), lambda: time.sleep(0.01)], 0.1)
    assert 0 < slow < 100
    assert slow < fast < 1000


def test_frames_are_decoded_as_rgb(folder: Path) -> None:
    jpeg = read_jpegs(folder)[0]
    expected = cv2.imread(str(folder / "000.jpg"))
    assert expected is not None
    np.testing.assert_array_equal(decode(jpeg), expected[:, :, ::-1])


def test_each_way_encodes_as_many_frames_as_it_says(
    words_and_detector: tuple[Vocabulary, CountingDetector], folder: Path
) -> None:
    words, detector = words_and_detector
    loop = BareLoop(detector, words, read_jpegs(folder))
    loop.fill_windows(2)
    detector.batches.clear()
    loop.encode_and_score(2)
    loop.decode_encode_and_score(2)
    loop.encode_window_again(8)
    stages = loop.time_stages_ms()
    assert detector.batches == [2, 2, 8, 1]
    assert stages["total"] == pytest.approx(
        stages["decode"] + stages["encode"] + stages["score"], abs=0.01
    )


def test_all_questions_are_answered(
    words_and_detector: tuple[Vocabulary, CountingDetector], folder: Path
) -> None:
    words, detector = words_and_detector
    loop = BareLoop(detector, words, read_jpegs(folder))
    bare, decoded, stages, again = measure(loop, batches=(1, 2), windows=(4,), seconds=0.03)
    assert bare.keys() == decoded.keys() == {1, 2}
    assert again.keys() == {4}
    assert set(stages) == {"decode", "encode", "score", "total"}
    assert min(*bare.values(), *decoded.values(), *again.values(), *stages.values()) > 0


def test_the_command_prints_json_or_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--frames", str(folder), "--batches", "1", "--windows", "--seconds", "0.03"]
    assert main([*flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["encoder"], found["scorer"], found["reencode_fps"]) == ("embedded", "average", {})
    assert list(found["encode_score_fps"]) == ["1"]
    assert main(flags) == 0
    printed = capsys.readouterr().out
    assert "batch 1: " in printed
    assert "one frame, median ms: decode " in printed


def test_what_cannot_be_measured_is_told(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["--frames", str(empty)]) == 1
    assert f"found no *.jpg in '{empty}', expected at least one" in capsys.readouterr().err
    (folder / "003.jpg").write_bytes(b"no picture")
    assert main(["--frames", str(folder)]) == 1
    assert "that is no JPEG" in capsys.readouterr().err
    (folder / "003.jpg").unlink()
    assert main(["--frames", str(folder), "--encoder", "none such"]) == 1
    assert capsys.readouterr().err.startswith("ovoad_model.baseline: ")
    with pytest.raises(SystemExit):
        main(["--frames", str(folder), "--batches", "0"])
