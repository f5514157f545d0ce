"""Tests of the state that is shown while a session runs, and of its lines and table."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from ovoad_client.board import Board, History, describe_window
from ovoad_client.lines import LineView, board_line, describe_message
from ovoad_client.notices import FramesLost, Notice, Reconnected, Reconnecting
from ovoad_client.protocol import (
    Error,
    Event,
    FrameDropped,
    GoAway,
    Prediction,
    RankedLabel,
    SessionCreated,
    VocabularyUpdated,
    WindowState,
)
from ovoad_client.table import TableView, render

MakePrediction = Callable[..., Prediction]


@pytest.fixture
def board(created: SessionCreated) -> Board:
    return Board(created)


def test_newest_prediction_is_shown(board: Board, predict: MakePrediction) -> None:
    board.update(predict(0, 0, [0.1, 0.2]), latency_ms=10.0)
    board.update(predict(1, 250, [0.6, 0.1]), latency_ms=30.0)
    assert board.frames_per_s() is None  # both came at once
    assert board.probabilities == {"waving": 0.6, "jumping": 0.1}
    assert board.background == pytest.approx(0.3)
    assert board.latency_p50_ms() == 20.0


def test_a_gap_in_time_is_a_blank_in_the_sparkline(predict: MakePrediction) -> None:
    history = History()
    history.push(0, 0.0)
    history.push(100, 0.99)  # the same quarter of a second: replaces
    history.push(750, 0.5)
    assert history.sparkline(750, width=5) == " █  ▅"


def test_new_words_replace_the_old_ones(board: Board, predict: MakePrediction) -> None:
    board.update(predict(0, 0, [0.1, 0.2]))
    board.update(VocabularyUpdated(vocabulary_version=2, labels=["sitting"], from_seq=2))
    board.update(predict(1, 40, [0.3, 0.3]))  # still scored with the old words
    assert board.probabilities == {}
    board.update(predict(2, 80, [0.7], vocabulary_version=2))
    assert board.probabilities == {"sitting": 0.7}


def test_ranked_labels_are_understood(board: Board, predict: MakePrediction) -> None:
    top = [RankedLabel(label="jumping", probability=0.7, similarity=0.2)]
    prediction = predict(0, 0, [0.7, 0.1], similarities=None, top=top)
    board.update(prediction.model_copy(update={"probabilities": None}))
    assert board.probabilities == {"jumping": 0.7}


def test_events_mark_their_label_while_they_last(board: Board) -> None:
    board.update(Event(kind="start", label="waving", timestamp_ms=100, probability=0.7))
    assert board.active == {"waving": 100}
    board.update(Event(kind="end", label="waving", timestamp_ms=900, probability=0.1, start_ms=100))
    assert board.active == {}
    assert len(board.events) == 2


def test_only_the_likeliest_labels_are_ranked_when_there_is_little_room(
    created: SessionCreated, predict: MakePrediction
) -> None:
    labels = [f"action {number}" for number in range(1000)]
    board = Board(created.model_copy(update={"labels": labels}))
    board.update(predict(0, 0, [0.9 if number == 567 else 0.0001 for number in range(1000)]))
    assert board.ranked(5)[0] == "action 567"
    assert board.ranked(1000) == labels


def test_window_is_described_in_words() -> None:
    assert describe_window(None) == "no frame yet"
    state = WindowState(frames=1, span_ms=0, gaps=0, warming_up=True)
    assert describe_window(state) == "1 frame over 0.0 s, warming up"
    state = WindowState(frames=20, span_ms=7750, gaps=12, warming_up=False)
    assert describe_window(state) == "20 frames over 7.8 s, 12 gaps"


def test_a_line_holds_labels_background_drops_and_window(
    board: Board, predict: MakePrediction
) -> None:
    board.update(predict(0, 1500, [0.25, 0.5]), latency_ms=12.0)
    board.update(FrameDropped(seq=1, timestamp_ms=1540, reason="busy"))
    line = board_line(board, duration_ms=10_000)
    assert line == (
        "1.5/10.0 s | jumping 0.50 · waving 0.25 · (none of these) 0.25 | – frames/s | 12 ms"
        " | drops: busy 1 | window: 3 frames over 0.5 s, 1 gap, warming up"
    )


def test_line_view_prints_once_a_second_and_news_at_once(
    board: Board, predict: MakePrediction
) -> None:
    out = io.StringIO()
    with LineView(out=out) as view:
        view.refresh(board)  # nothing to show yet
        board.update(predict(0, 0, [0.25, 0.5]))
        view.refresh(board)
        view.refresh(board)
        view.tell(Event(kind="start", label="waving", timestamp_ms=1240, probability=0.7))
        view.tell(Error(code="bad_image", message="found x", fatal=False, transient=False, seq=4))
        view.tell(GoAway(reason="restart", time_left_ms=5000))
    lines = out.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[1] == "event    1.24 s  start  waving (0.70)"
    assert lines[2] == "error bad_image (frame 4): found x"
    assert lines[3] == "the server leaves in 5.0 s: restart"


def test_table_shows_every_part(board: Board, predict: MakePrediction) -> None:
    board.update(predict(0, 1500, [0.25, 0.5]), latency_ms=12.0)
    board.update(FrameDropped(seq=1, timestamp_ms=1540, reason="busy"))
    board.update(Event(kind="start", label="jumping", timestamp_ms=1500, probability=0.5))
    console = Console(file=io.StringIO(), width=110, height=40, force_terminal=True)
    with TableView(duration_ms=10_000, console=console) as view:
        view.refresh(board)
        view.say("a [bold]note[/bold]")
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for part in ("● jumping", "waving", "(none of these)", "0.50", "busy 1", "1 gap, warming up"):
        assert part in text
    for part in ("1.5/10.0 s", "latency p50 12 ms", "start  jumping", "a [bold]note[/bold]"):
        assert part in text


def test_labels_are_shown_as_they_are_not_as_markup(
    created: SessionCreated, predict: MakePrediction
) -> None:
    board = Board(created.model_copy(update={"labels": ["[red]waving[/red]", "[/]"]}))
    board.update(predict(0, 0, [0.5, 0.1]))
    console = Console(file=io.StringIO(), width=110)
    console.print(render(board))
    assert isinstance(console.file, io.StringIO)
    assert "[red]waving[/red]" in console.file.getvalue()


def test_table_hides_labels_for_which_there_is_no_room(
    created: SessionCreated, predict: MakePrediction
) -> None:
    board = Board(created.model_copy(update={"labels": [f"a{n}" for n in range(30)]}))
    board.update(predict(0, 0, [0.01] * 30))
    console = Console(file=io.StringIO(), width=110)
    console.print(render(board, most_labels=4))
    assert isinstance(console.file, io.StringIO)
    assert "26 more labels, less likely now" in console.file.getvalue()


@pytest.mark.parametrize(
    ("notice", "text"),
    [
        (
            Reconnecting("connection to host broke", 1, 0.26),
            "connection broke, reconnecting in 0.3 s (connection to host broke)",
        ),
        (
            Reconnecting("the server is full", 3, 1.04),
            "no connection yet, attempt 3 in 1.0 s (the server is full)",
        ),
        (Reconnected(True, ()), "resumed, 0 frames sent again"),
        (Reconnected(True, (7,)), "resumed, 1 frame sent again"),
        (Reconnected(False, ()), "fresh session, the window warms up again"),
        (
            Reconnected(False, (7, 8)),
            "fresh session, the window warms up again; 2 frames sent again",
        ),
        (FramesLost((3, 7, 8, 9, 12)), "5 frames lost: 3, 7-9, 12"),
    ],
)
def test_breaks_are_told_as_lines(notice: Notice, text: str) -> None:
    assert describe_message(notice) == text


def test_break_and_lost_frames_are_in_the_table(board: Board) -> None:
    def shown() -> str:
        console = Console(file=io.StringIO(), width=100)
        with console.capture() as capture:
            console.print(render(board))
        return capture.get()

    assert "lost" not in shown()
    board.update(Reconnecting("broke", 2, 0.5))
    board.update(FramesLost((3, 4)))
    assert "no connection, reconnecting (attempt 2)" in shown()
    assert "lost: 2" in shown()
    assert "lost: 2" in board_line(board)
    board.update(Reconnected(True, ()))
    assert "reconnecting" not in shown()


def test_resumed_session_goes_on_and_a_fresh_one_begins_anew(
    board: Board, predict: MakePrediction, created: SessionCreated
) -> None:
    board.update(predict(0, 0, [0.1, 0.2]))
    board.update(Event(kind="start", label="waving", timestamp_ms=0, probability=0.7, start_ms=0))
    board.update(created.model_copy(update={"resumed": True, "next_seq": 1}))
    assert board.probabilities == {"waving": 0.1, "jumping": 0.2}
    assert "waving" in board.active
    board.update(created)
    assert board.probabilities == {}
    assert board.active == {}
    assert board.window is None
    board.update(predict(1, 40, [0.3, 0.3]))
    assert board.probabilities == {"waving": 0.3, "jumping": 0.3}
