"""The model as one object, with the encoder that ships: streams, words, awkward vocabularies."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from ovoad_model.arrays import Frame
from ovoad_model.build import build_detector, build_encoder
from ovoad_model.detector import Detector, Scores
from ovoad_model.errors import (
    MissingWeightsError,
    UnknownEncoderError,
    UnknownRuntimeError,
    UnknownScorerError,
)
from ovoad_model.video import read_grid_frames
from ovoad_model.vocabulary import Vocabulary
from ovoad_model.window import Window

SCORERS = ("frame", "average", "cluster")


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build_detector()


def features_of(detector: Detector, path: Path) -> list[tuple[int, np.ndarray]]:
    pairs = list(read_grid_frames(path))
    features = detector.encode([frame for _, frame in pairs])
    return [(time, feature) for (time, _), feature in zip(pairs, features, strict=True)]


def stream(
    detector: Detector, features: list[tuple[int, np.ndarray]], words: Vocabulary
) -> list[Scores]:
    """Score frame by frame, as a live stream is."""
    window, scores = detector.open_window(), []
    for timestamp_ms, feature in features:
        window.push(timestamp_ms, feature)
        scores += detector.score([window.view()], [words])
    return scores


@pytest.mark.parametrize("scorer", SCORERS)
def test_frame_by_frame_equals_the_whole_clip_at_once(
    detector: Detector, clips: Path, scorer: str
) -> None:
    words = detector.vocabulary(["playing drums", "cooking"], scorer=scorer)
    features = features_of(detector, clips / "drums.mp4")
    window, views = detector.open_window(), []
    for timestamp_ms, feature in features:
        window.push(timestamp_ms, feature)
        views.append(window.view())
    whole = detector.score(views, [words] * len(views))
    for live, offline in zip(stream(detector, features, words), whole, strict=True):
        np.testing.assert_allclose(live.probabilities, offline.probabilities, atol=1e-5)
        np.testing.assert_allclose(live.similarities, offline.similarities, atol=1e-5)
        assert live.background == pytest.approx(offline.background, abs=1e-5)


@pytest.mark.parametrize("scorer", SCORERS)
def test_later_frames_leave_earlier_predictions_identical(
    detector: Detector, clips: Path, scorer: str
) -> None:
    words = detector.vocabulary(["playing drums"], scorer=scorer)
    features = features_of(detector, clips / "drums.mp4")
    cut = len(features) // 2
    noise = np.random.default_rng(0)
    changed = features[:cut] + [
        (time, noise.normal(size=feature.shape).astype(np.float32))
        for time, feature in features[cut:]
    ]
    before = stream(detector, features, words)[:cut]
    after = stream(detector, changed, words)[:cut]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
        assert one.background == other.background


def write_show(path: Path, shown: list[Frame], fps: int) -> None:
    """Write 3 s of a slide show that changes midway between grid times, at some frame rate."""
    height, width = shown[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (width, height))
    for step in range(3 * fps + 1):
        slide = (round(1000 * step / fps) + 125) // 250
        writer.write(shown[slide % len(shown)][:, :, ::-1])
    writer.release()


def read_show(path: Path, fps: int) -> list[tuple[int, Frame]]:
    capture = cv2.VideoCapture(str(path))
    frames: list[tuple[int, Frame]] = []
    while (read := capture.read())[0]:
        frames.append((round(1000 * len(frames) / fps), np.asarray(read[1][:, :, ::-1], np.uint8)))
    return frames


def test_versions_of_a_clip_at_any_frame_rate_agree_on_the_grid(
    detector: Detector, clips: Path, tmp_path: Path
) -> None:
    """Three real videos of the same slides at 5, 25 and 60 fps, decoded and encoded in full."""
    shown: list[Frame] = []
    for name in ("drums.mp4", "guitar.mp4"):
        for _, frame in itertools.islice(read_grid_frames(clips / name), 7):
            shown.append(np.asarray(cv2.resize(frame, (160, 120)), np.uint8))
    found: dict[str, list[list[np.ndarray]]] = {scorer: [] for scorer in SCORERS}
    for fps in (5, 25, 60):
        write_show(tmp_path / f"{fps}.avi", shown, fps)
        frames = read_show(tmp_path / f"{fps}.avi", fps)
        assert len(frames) == 3 * fps + 1
        features = list(detector.encode([frame for _, frame in frames]))
        pairs = [(time, feature) for (time, _), feature in zip(frames, features, strict=True)]
        for scorer, answers in found.items():
            words = detector.vocabulary(["playing drums", "playing guitar"], scorer=scorer)
            scores = stream(detector, pairs, words)
            answers.append(
                [s.probabilities for (t, _), s in zip(pairs, scores, strict=True) if t % 1000 == 0]
            )
    for slow, middle, fast in found.values():
        assert len(slow) == 4
        np.testing.assert_allclose(slow, middle, atol=1e-5)
        np.testing.assert_allclose(slow, fast, atol=1e-5)


def shares(scores: list[Scores]) -> tuple[float, float]:
    """How often the (best) label beats background, and how often background beats all labels."""
    label = np.mean([score.probabilities.max() > score.background for score in scores])
    none = np.mean([score.probabilities.max() < score.background for score in scores])
    return float(label), float(none)


@pytest.mark.parametrize(
    "label", ["playing drums", "riding a bicycle", "cooking", "doing yoga", "a person swimming"]
)
def test_one_action_does_not_win_where_nobody_acts(
    detector: Detector, clips: Path, label: str
) -> None:
    words = detector.vocabulary([label])
    features = features_of(detector, clips / "telescope_mirror.mp4")
    assert shares(stream(detector, features, words))[1] >= 0.9


def test_one_action_wins_where_it_is_done(detector: Detector, clips: Path) -> None:
    words = detector.vocabulary(["playing drums"])
    features = features_of(detector, clips / "drums.mp4")
    assert shares(stream(detector, features, words))[0] > 0.5


def test_two_synonyms_share(detector: Detector, clips: Path) -> None:
    features = features_of(detector, clips / "drums.mp4")
    alone = stream(detector, features, detector.vocabulary(["playing drums"]))
    both = stream(detector, features, detector.vocabulary(["playing drums", "playing the drums"]))
    assert np.mean([s.probabilities.sum() for s in both]) >= np.mean(
        [s.probabilities.sum() for s in alone]
    )
    assert np.mean([s.probabilities.min() for s in both]) > 0.2


def test_a_nonsense_word_does_not_win(detector: Detector, clips: Path) -> None:
    features = features_of(detector, clips / "telescope_mirror.mp4")
    assert shares(stream(detector, features, detector.vocabulary(["xyzzy"])))[1] >= 0.9


def test_a_thousand_labels_sum_to_one(detector: Detector) -> None:
    labels = [f"playing with {number} balls" for number in range(1000)]
    words = detector.vocabulary(labels)
    window = detector.open_window()
    window.push(0, detector.encode([np.full((40, 60, 3), 128, np.uint8)])[0])
    (score,) = detector.score([window.view()], [words])
    assert score.probabilities.shape == (1000,)
    assert score.probabilities.sum() + score.background == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("label", ["骑自行车", "ركوب الدراجة", "езда на велосипеде"])
def test_a_language_that_the_encoder_does_not_speak_is_told(detector: Detector, label: str) -> None:
    (warning,) = detector.vocabulary([label, "riding a bicycle"]).warnings
    assert label in warning
    assert "en" in warning


def test_sessions_of_different_scorers_share_a_batch(detector: Detector) -> None:
    random = np.random.default_rng(1)
    frames = [random.integers(0, 255, (32, 32, 3), np.uint8) for _ in range(6)]
    windows: list[Window] = []
    for feature in detector.encode(frames):
        window = detector.open_window()
        window.push(0, feature)
        windows.append(window)
    words = [detector.vocabulary(["cooking", "dancing"], scorer=SCORERS[i % 3]) for i in range(6)]
    together = detector.score([window.view() for window in windows], words)
    for window, vocabulary, score in zip(windows, words, together, strict=True):
        (alone,) = detector.score([window.view()], [vocabulary])
        np.testing.assert_allclose(score.probabilities, alone.probabilities, atol=1e-5)


def test_texts_are_embedded_once_and_kept_on_disk(tmp_path: Path) -> None:
    first = build_detector(cache=tmp_path)
    first.vocabulary(["waving", "bowing"])
    first.vocabulary(["waving", "clapping"])
    again = build_detector(cache=tmp_path)
    again.vocabulary(["waving", "bowing", "clapping"])
    assert first.text_cache is not None
    assert again.text_cache is not None
    assert again.text_cache.misses == 0
    assert again.text_cache.hits > 0


def test_unknown_names_are_told_with_what_is_known(detector: Detector) -> None:
    with pytest.raises(UnknownEncoderError, match=r"found encoder .embeded., .*nearest: embedded"):
        build_encoder("embeded")
    with pytest.raises(UnknownRuntimeError, match="found runtime 'abacus', expected one of auto"):
        build_encoder("embedded", runtime="abacus")
    with pytest.raises(UnknownScorerError, match="found scorer 'ovoad', expected one of average"):
        detector.vocabulary(["waving"], scorer="ovoad")


def test_an_untrained_network_is_never_served() -> None:
    with pytest.raises(MissingWeightsError, match="found no weights for scorer ovoad"):
        build_detector(scorer="ovoad")


@pytest.mark.parametrize("scorer", SCORERS)
def test_the_scorer_asked_for_is_the_default(scorer: str) -> None:
    assert build_detector(scorer=scorer).scorer_names[0] == scorer  # type: ignore[arg-type]
