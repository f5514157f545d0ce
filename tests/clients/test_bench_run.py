"""`ovoad bench --url` against a small server, in this process."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import pytest

from ovoad_client.bench import bare
from ovoad_client.bench.bare import BaselineError, measure_baseline, parse_baseline
from ovoad_client.bench.command import main
from ovoad_client.bench.frames import load_frames, write_frames
from ovoad_client.bench.own_server import bench_server
from ovoad_client.bench.resources import anonymous_kib, descendants, processor_s, resident_kib
from ovoad_client.errors import ServerStartError, SourceError

from .conftest import FakeServer, MakeVideo

SHORT = ("--seconds", "0.2", "--warmup", "0.05")


async def bench(video: Path, *flags: str) -> int:
    """Run the command in a thread, so that the server of the test can answer."""
    return await asyncio.to_thread(main, ["--video", str(video), *SHORT, *flags])


async def test_rows_json_and_picture(
    server: FakeServer,
    make_video: MakeVideo,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = ("--json", str(tmp_path / "a/b.json"), "--plot", str(tmp_path / "b.png"))
    status = await bench(make_video(), "--url", server.url, "--sessions", "1", "2", *files)
    printed = capsys.readouterr().out
    assert (status, printed.count("lossless: ")) == (0, 2)
    assert "10 JPEGs of" in printed
    assert "frames sent, each answered exactly once" in printed
    found = json.loads((tmp_path / "a/b.json").read_text())
    assert [row["sessions"] for row in found["rows"]] == [1, 2]
    assert found["rows"][0]["stages_ms"]["encode"]["p50"] == 9.0
    assert found["every_frame_answered_once"] is True
    assert cv2.imread(str(tmp_path / "b.png")) is not None


async def test_the_capacity_is_where_frames_are_dropped(
    server: FakeServer, make_video: MakeVideo, capsys: pytest.CaptureFixture[str]
) -> None:
    server.drop_every = 2
    flags = ("--find-capacity", "--fps", "40", "--sessions", "2")
    assert await bench(make_video(), "--url", server.url, *flags) == 0
    line = "capacity at 40 frames/s each, realtime, p99 within 250 ms: 0 sessions (1 sessions: "
    assert line in capsys.readouterr().out


async def test_frames_without_their_answer_make_the_status_1(
    server: FakeServer, make_video: MakeVideo, capsys: pytest.CaptureFixture[str]
) -> None:
    server.break_after = 2
    assert await bench(make_video(), "--url", server.url, "--sessions", "1") == 1
    assert "frames sent, but" in capsys.readouterr().out


async def test_an_unreachable_server_is_told_in_one_line(
    make_video: MakeVideo, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await bench(make_video(), "--url", "127.0.0.1:9") == 1
    error = capsys.readouterr().err
    assert error.startswith("ovoad bench: cannot reach ws://127.0.0.1:9/v1/stream: ")
    assert error.count("\n") == 1


async def test_a_key_is_needed_where_the_server_has_one(
    server: FakeServer, make_video: MakeVideo, capsys: pytest.CaptureFixture[str]
) -> None:
    server.api_key = "secret"
    assert await bench(make_video(), "--url", server.url, "--sessions", "1") == 1
    assert "no API key was given" in capsys.readouterr().err
    assert (
        await bench(make_video(), "--url", server.url, "--sessions", "1", "--api-key", "secret")
        == 0
    )


def test_a_video_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--video", "nowhere.mp4"]) == 1
    assert "cannot read video 'nowhere.mp4'" in capsys.readouterr().err


def test_frames_are_the_videos_first_ones(make_video: MakeVideo, tmp_path: Path) -> None:
    jpegs = load_frames(str(make_video(frames=10)), max_side=32, max_frames=4)
    write_frames(jpegs, tmp_path / "frames")
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == ["000.jpg", "001.jpg", "002.jpg", "003.jpg"]
    image = cv2.imread(str(tmp_path / "frames" / "000.jpg"))
    assert image is not None
    assert image.shape == (24, 32, 3)
    with pytest.raises(SourceError):
        load_frames(str(tmp_path), max_side=32)


# ---- the bare model's process --------------------------------------------------------------------

TEXT = json.dumps(
    {
        "encode_score_fps": {"1": 50, "8": 60},
        "decode_encode_score_fps": {"1": 45, "8": 55},
        "bare_ms": {"decode": 1, "encode": 6, "score": 0.5, "total": 7.5},
        "reencode_fps": {"8": 6},
    }
)


async def speak(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, flags: Sequence[str] = ()
) -> None:
    """Put a module of ours in the model's place."""
    (tmp_path / "pretended.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(bare, "MODULE", "pretended")


def test_the_bare_models_json_is_read() -> None:
    found = parse_baseline(TEXT)
    assert (found.best_batch, found.best_fps, found.reencode_fps) == (8, 60.0, {8: 6.0})
    for text in ("", "{}", "[1]", '{"encode_score_fps": 3}'):
        with pytest.raises(BaselineError, match="expected the JSON of ovoad_model"):
            parse_baseline(text)


async def test_the_bare_model_runs_as_a_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await speak(monkeypatch, tmp_path, f"print({TEXT!r})")
    found = await measure_baseline(tmp_path, (), stop=asyncio.Event())
    assert found is not None
    assert found.best_fps == 60.0


async def test_what_the_bare_model_says_before_it_fails_is_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await speak(monkeypatch, tmp_path, "raise SystemExit('found no encoder x')")
    with pytest.raises(BaselineError, match=r"pretended ended \(1\):\n  \| found no encoder x"):
        await measure_baseline(tmp_path, (), stop=asyncio.Event())


async def test_stop_ends_the_bare_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    await speak(monkeypatch, tmp_path, "import time; time.sleep(60)")
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.2, stop.set)
    async with asyncio.timeout(5):
        assert await measure_baseline(tmp_path, (), stop=stop) is None


# ---- processes -----------------------------------------------------------------------------------


async def test_memory_and_processor_time_of_a_process_tree_are_read() -> None:
    import os
    import sys

    code = "x = bytearray(50_000_000); sum(range(10**6)); print('up', flush=True); input()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    assert process.pid in descendants(os.getpid())
    assert resident_kib([process.pid]) > 48_000
    assert 48_000 < anonymous_kib([process.pid]) <= resident_kib([process.pid])
    assert processor_s([process.pid]) > 0
    await process.communicate(b"\n")
    assert resident_kib([process.pid]) == anonymous_kib([process.pid]) == 0
    assert process.pid not in descendants(os.getpid())


async def test_settings_of_the_own_server_do_not_outlive_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import os

    monkeypatch.setenv("OVOAD_MAX_SESSIONS", "3")
    monkeypatch.delenv("OVOAD_PROMISED_FPS", raising=False)
    with pytest.raises(ServerStartError):
        async with bench_server(["--encoder", "x"], sessions=5, say=lambda text: None):
            pytest.fail("an unknown encoder does not start")
    assert os.environ["OVOAD_MAX_SESSIONS"] == "3"
    assert "OVOAD_PROMISED_FPS" not in os.environ
