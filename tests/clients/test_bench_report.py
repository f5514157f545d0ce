"""The report: tables, JSON and picture."""

import json
import math
from collections import Counter
from pathlib import Path

import cv2
import pytest

from ovoad_client.bench.answers import Tally
from ovoad_client.bench.plot import draw_report, group_rows
from ovoad_client.bench.result import Baseline, Capacity, Report
from ovoad_client.bench.statistics import Percentiles
from ovoad_client.bench.table import load_table, markdown, report_lines
from ovoad_client.plot import PlotError

from .bench_rows import make_row

BARE = Baseline(
    encode_score_fps={1: 50.0, 8: 60.0},
    decode_encode_score_fps={1: 45.0, 8: 55.0},
    bare_ms={"decode": 1.0, "encode": 6.0, "score": 0.5, "total": 7.5},
    reencode_fps={8: 6.0},
)


def test_a_markdown_table_is_aligned() -> None:
    assert markdown(["name", "n"], [["a", "1"], ["longer", "123456"]]) == [
        "| name   |      n |",
        "| ------ | -----: |",
        "| a      |      1 |",
        "| longer | 123456 |",
    ]


def test_the_load_table_tells_rate_latency_and_drops() -> None:
    heads, _, first = load_table([make_row(8, dropped={"rate": 1, "busy": 2})])
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert "server CPU ms/frame" not in heads
    assert cells == ["8", "4", "realtime", "32.0", "10.0", "20.0", "30.0", "busy 2, rate 1",
                     "none", "2%"]  # fmt: skip


def test_sessions_that_found_no_room_are_told() -> None:
    assert "| 3 of 8 " in load_table([make_row(8, opened=3, refused={"capacity": 5})])[2]


def test_efficiency_and_added_latency_come_from_the_baselines_of_the_run() -> None:
    quick = Baseline({8: 50.0}, {8: 40.0}, {**BARE.bare_ms, "total": 8.5}, {})
    row = make_row(8, fps=0.0, policy="lossless", frames_per_s=49.5, bare_fps=(60.0, 50.0))
    took = {"decode": 1.0, "encode": 6.0, "score": 0.5, "end to end": 10.0}
    stages = {stage: Percentiles(ms, ms, ms) for stage, ms in took.items()}
    around = ((7.5, 8.5), (2.0, 2.0), (9.0, 9.0))
    turns = [make_row(bare_ms=bare_ms, stages_ms=stages) for bare_ms in around]
    report = Report("t", rows=[row], baselines=[BARE, quick], one_at_a_time=turns)
    assert (BARE.best_batch, BARE.best_fps) == (8, 60.0)
    assert report.added_ms == pytest.approx(10.0 - 8.0), "of the turn in the middle"
    assert report.beside_ms == pytest.approx(10.0 - 7.5)
    text = "\n".join(report_lines(report))
    assert "|   60.0 / 50.0 |       0.90 |" in text
    assert "frames/s, bare 7.5 and 8.5 ms" in text
    assert "added latency: 2.0 ms over the bare compute before and after, " in text
    assert "re-encoding the window, 8 frames" in text
    assert text.endswith("440 frames sent, each answered exactly once")


def test_a_busy_generator_is_told() -> None:
    text = "\n".join(report_lines(Report("t", rows=[make_row(generator_cpu=0.9)])))
    assert "the generator took 90% of one core at most" in text
    assert "the generator was busy itself" in text


def test_json_has_null_for_what_was_not_measured() -> None:
    nothing = Percentiles(math.nan, math.nan, math.nan)
    row = make_row(stages_ms={"end to end": nothing}, tally=Tally(broken=Counter({"x": 1})))
    found = json.loads(Report("t", rows=[row], baselines=[BARE]).to_json())
    assert found["rows"][0]["stages_ms"]["end to end"] == {"p50": None, "p95": None, "p99": None}
    assert found["every_frame_answered_once"] is False
    assert found["added_ms"] is None
    assert found["baselines"][0]["encode_score_fps"] == {"1": 50.0, "8": 60.0}
    assert "cores" in found["machine"]


def test_the_picture_has_a_curve_for_each_pace_and_policy(tmp_path: Path) -> None:
    rows = [make_row(8), make_row(1), make_row(1, fps=0.0, policy="lossless")]
    groups = group_rows(rows)
    assert list(groups) == ["realtime, 4 frames/s each", "lossless, as fast as answers come"]
    assert [row.sessions for row in groups["realtime, 4 frames/s each"]] == [1, 8]
    capacity = Capacity(8, 4.0, "realtime", 250.0, "because")
    report = Report("t", rows=rows, baselines=[BARE], capacities=[capacity])
    draw_report(report, tmp_path / "deep" / "bench.png")
    assert cv2.imread(str(tmp_path / "deep" / "bench.png")) is not None
    with pytest.raises(PlotError, match="found no load, expected at least one"):
        draw_report(Report("t"), tmp_path / "none.png")
