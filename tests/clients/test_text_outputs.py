"""Tests of CSV and SRT files: rows for every answer, events in order, strange labels."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from ovoad_client.notices import FramesLost
from ovoad_client.protocol import (
    Error,
    Event,
    FrameDropped,
    Prediction,
    RankedLabel,
    SessionCreated,
)
from ovoad_client.recording import RecordingError
from ovoad_client.spans import SpanKeeper
from ovoad_client.text_outputs import EventsCsv, PredictionsCsv, Subtitles, srt_time

MakePrediction = Callable[..., Prediction]


def start(label: str, told_ms: int, start_ms: int) -> Event:
    """Return an event's beginning."""
    return Event(
        kind="start", label=label, timestamp_ms=told_ms, probability=0.6, start_ms=start_ms
    )


def end(label: str, end_ms: int, start_ms: int) -> Event:
    """Return an event's end."""
    return Event(kind="end", label=label, timestamp_ms=end_ms, probability=0.2, start_ms=start_ms)


def test_each_frame_has_one_row_whatever_became_of_it(
    created: SessionCreated, predict: MakePrediction, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "out.csv"
    output = PredictionsCsv(path, created)
    for seq in range(4):
        output.push_frame(seq, 40 * seq, b"")
    output.take(predict(0, 0, [0.5, 0.125]))
    output.take(FrameDropped(seq=1, timestamp_ms=40, reason="busy"))
    output.take(Error(code="bad_image", message="no", fatal=False, transient=False, seq=2))
    output.take(FramesLost((3,)))
    output.close()
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["timestamp_ms", "seq", "answer", "background", "waving", "jumping"],
            ["0", "0", "prediction", "0.375", "0.5", "0.125"],
            ["40", "1", "dropped busy", "", "", ""],
            ["80", "2", "error bad_image", "", "", ""],
            ["120", "3", "lost", "", "", ""],
        ]


def test_ranked_labels_keep_their_columns(
    created: SessionCreated, predict: MakePrediction, tmp_path: Path
) -> None:
    output = PredictionsCsv(tmp_path / "out.csv", created)
    top = [RankedLabel(label="jumping", probability=0.25, similarity=0.1)]
    changes = {"probabilities": None, "similarities": None, "top": top, "background": 0.5}
    output.take(predict(0, 0, []).model_copy(update=changes))
    output.close()
    assert (tmp_path / "out.csv").read_text().splitlines()[1] == ",0,prediction,0.5,,0.25"


def test_labels_do_not_become_formulas_or_columns(created: SessionCreated, tmp_path: Path) -> None:
    labels = ["=1+1", 'say "a, b"']
    output = PredictionsCsv(tmp_path / "out.csv", created.model_copy(update={"labels": labels}))
    output.close()
    with (tmp_path / "out.csv").open(newline="") as file:
        assert next(csv.reader(file))[4:] == ["'=1+1", 'say "a, b"']


def test_events_are_rows_with_their_peaks(
    created: SessionCreated, predict: MakePrediction, tmp_path: Path
) -> None:
    output = EventsCsv(tmp_path / "out.events.csv", created)
    output.take(predict(0, 1000, [0.9, 0.0]))  # the peak, before the event is told
    output.take(predict(1, 1500, [0.6, 0.0]))
    output.take(start("waving", 1500, 1000))
    output.take(end("waving", 2500, 1000))
    assert (tmp_path / "out.events.csv").read_bytes() == (
        b"label,start_ms,end_ms,probability\r\nwaving,1000,2500,0.9\r\n"
    )
    output.close()


def test_subtitles_are_in_the_order_of_starts(
    created: SessionCreated, predict: MakePrediction, tmp_path: Path
) -> None:
    output = Subtitles(tmp_path / "out.srt", created)
    output.take(start("waving", 1500, 1000))
    output.take(start("jumping", 2500, 2000))
    output.take(end("jumping", 3000, 2000))  # over before the older one
    assert (tmp_path / "out.srt").read_text() == ""
    output.take(end("waving", 4000, 1000))
    output.take(start("a -->\nb", 5000, 4500))
    output.take(predict(9, 5500, [0.1, 0.1]))
    output.close()  # ends what is under way at the last prediction
    assert (tmp_path / "out.srt").read_text() == (
        "1\n00:00:01,000 --> 00:00:04,000\nwaving\n\n"
        "2\n00:00:02,000 --> 00:00:03,000\njumping\n\n"
        "3\n00:00:04,500 --> 00:00:05,500\na → b\n\n"
    )


def test_a_fresh_session_ends_what_was_under_way(
    created: SessionCreated, predict: MakePrediction
) -> None:
    spans = SpanKeeper(created)
    spans.take(start("waving", 1500, 1000))
    spans.take(predict(1, 1800, [0.8, 0.0]))
    (span,) = spans.take(created)
    assert (span.start_ms, span.end_ms, span.probability) == (1000, 1800, 0.8)
    assert spans.finish() == []


def test_an_event_that_never_ends_holds_back_few_others(created: SessionCreated) -> None:
    spans = SpanKeeper(created)
    spans.take(start("waving", 0, 0))
    told = 0
    for number in range(100):
        spans.take(start("jumping", 100 * number, 100 * number))
        told += len(spans.take(end("jumping", 100 * number + 50, 100 * number)))
    assert told == 100 - 64


def test_times_of_subtitles() -> None:
    assert srt_time(0) == "00:00:00,000"
    assert srt_time(3_723_004) == "01:02:03,004"


def test_a_place_that_cannot_be_written_is_told(created: SessionCreated, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"cannot write '.*': is a directory"):
        Subtitles(tmp_path, created)
