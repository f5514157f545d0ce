"""The flags of `ovoad bench`."""

import pytest

from ovoad_client.bench.arguments import parse
from ovoad_client.bench.command import main
from ovoad_client.errors import UsageError


def loads(*flags: str) -> list[tuple[int, float, str]]:
    """Return the rows that the flags ask for."""
    return [(load.sessions, load.fps, load.policy) for load in parse(list(flags)).loads]


def test_by_default_lossless_sessions_go_as_fast_as_answers_come() -> None:
    assert loads() == [(1, 0.0, "lossless"), (8, 0.0, "lossless"), (32, 0.0, "lossless")]
    assert loads("--fps", "4", "--sessions", "2") == [(2, 4.0, "realtime")]


def test_every_combination_is_a_row_but_realtime_without_a_pace() -> None:
    flags = ("--sessions", "1", "2", "--fps", "0", "4", "--policy", "lossless", "realtime")
    assert loads(*flags) == [
        (1, 0.0, "lossless"),
        (2, 0.0, "lossless"),
        (1, 4.0, "lossless"),
        (2, 4.0, "lossless"),
        (1, 4.0, "realtime"),
        (2, 4.0, "realtime"),
    ]


def test_a_capacity_is_searched_from_the_first_number_at_four_frames_a_second() -> None:
    assert loads("--find-capacity") == [(1, 4.0, "realtime")]
    assert loads("--find-capacity", "--sessions", "6", "9") == [(6, 4.0, "realtime")]
    assert parse(["--find-capacity", "--max-sessions", "99"]).sessions == 99


def test_combinations_that_cannot_work_are_refused() -> None:
    with pytest.raises(UsageError, match="found --fps 0 with --find-capacity, expected more than"):
        parse(["--find-capacity", "--fps", "0"])
    with pytest.raises(UsageError, match="found --fps 0 with --policy realtime alone"):
        parse(["--policy", "realtime"])
    with pytest.raises(UsageError, match="found --encoder or --runtime with --url"):
        parse(["--url", "localhost:1", "--encoder", "embedded"])


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--sessions", "0"], "found '0', expected 1 to 10000 sessions"),
        (["--sessions", "many"], "found 'many', expected 1 to 10000 sessions"),
        (["--fps", "-1"], "found '-1', expected frames/s, or 0 for as fast as answers come"),
        (["--fps", "nan"], "found 'nan', expected frames/s"),
        (["--seconds", "0"], "found '0', expected a number above 0"),
        (["--warmup", "soon"], "found 'soon', expected seconds, 0 or more"),
        (["--batches", "1", "0"], "found '0', expected a whole number from 1 on"),
        (["--inflight", "0"], "found '0', expected a whole number from 1 on"),
    ],
)
def test_bad_values_are_named(
    flags: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        parse(flags)
    assert leaving.value.code == 2
    assert text in capsys.readouterr().err


def test_wrong_usage_ends_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--policy", "realtime"]) == 2
    assert capsys.readouterr().err.startswith("ovoad bench: found --fps 0 with --policy realtime")
    assert main(["--plot", "bench.docx"]) == 2
