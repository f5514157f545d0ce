"""POST /v1/clips: what is answered to every kind of file and request."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from ovoad_client import protocol
from ovoad_server.clips.schema import ClipAnswer, ClipClosed, ClipOpened
from ovoad_server.clips.upload import MOST_REQUEST_BYTES

from .clip_parts import (
    NDJSON,
    WORDS,
    error_of,
    likeliest,
    lines,
    parts_of,
    send_clip,
    times,
    turn_by_90_degrees,
    write_avi,
    write_sound,
    write_video,
)
from .harness import WAIT_S, ColourEncoder, Serve, Server, until

RED_THEN_BLUE = ["red"] * 8 + ["blue"] * 8
MANIFEST = (
    b'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    b"<BaseURL>file:///etc/passwd</BaseURL></AdaptationSet></Period></MPD>"
)
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n" * 20


@pytest.fixture
async def server(serve: Serve, tmp_path: Path) -> AsyncIterator[Server]:
    async with serve(clip_spool=tmp_path / "spool") as server:
        yield server
        await leaves_nothing(server, tmp_path / "spool")


async def leaves_nothing(server: Server, folder: Path) -> None:
    """Check that no session, no byte on disk and no file is left."""
    await server.is_empty()
    await until(lambda: server.metric("ovoad_clips_active") == 0)
    assert server.metric("ovoad_clip_spool_bytes") == 0
    assert list(folder.iterdir() if folder.exists() else []) == []


# ---- the answer --------------------------------------------------------------------------------


async def test_answer_has_every_sampled_frame_and_all_events(
    server: Server, tmp_path: Path
) -> None:
    path = write_video(tmp_path / "a.mp4", RED_THEN_BLUE, step_ms=125)
    words = {**WORDS, "scorer": "frame", "events": {"enter": 0.4, "exit": 0.3}}
    answer = await send_clip(server, path.read_bytes(), words=words)
    assert times(answer) == [0, 250, 500, 750, 1000, 1250, 1500, 1750]
    whole = ClipAnswer.model_validate_json(answer.content)
    clip = whole.opened.clip
    assert (clip.name, clip.width, clip.height, clip.frame_count) == ("clip.mp4", 32, 24, 16)
    assert (clip.bytes, clip.duration_ms) == (path.stat().st_size, 2000)
    assert (whole.opened.labels, whole.opened.fps) == (["red", "blue"], 4.0)
    assert whole.opened.model.scorer == "frame"
    first, *_, last = answer.json()["predictions"]
    assert (likeliest(first), likeliest(last)) == ("red", "blue")
    assert [(each.kind, each.label) for each in whole.events] == [
        ("start", "red"),
        ("end", "red"),
        ("start", "blue"),
        ("end", "blue"),
    ]
    assert whole.errors == []
    assert whole.closed == ClipClosed(frames=8, predicted=8, errors=0, complete=True)


async def test_lines_hold_the_same_and_parse_as_wire_messages(
    server: Server, tmp_path: Path
) -> None:
    content = write_video(tmp_path / "a.mp4", RED_THEN_BLUE).read_bytes()
    words = {**WORDS, "events": {"enter": 0.3, "exit": 0.2}}
    whole = (await send_clip(server, content, words=words)).json()
    first, *middle, last = lines(await send_clip(server, content, words=words, headers=NDJSON))
    ClipOpened.model_validate(first)
    ClipClosed.model_validate(last)
    messages = [protocol.parse_server_message(json.dumps(each)) for each in middle]
    by_kind: dict[str, list[protocol.Message]] = {
        "predictions": [m for m in messages if isinstance(m, protocol.Prediction)],
        "events": [m for m in messages if isinstance(m, protocol.Event)],
    }
    assert len(messages) == sum(len(each) for each in by_kind.values())
    for name, found in by_kind.items():
        expected = [without_timing(each) for each in whole[name]]
        assert [without_timing(json.loads(each.to_json())) for each in found] == expected
    assert by_kind["events"] != []


def without_timing(message: dict[str, Any]) -> dict[str, Any]:
    """Leave out what differs from run to run."""
    return {name: value for name, value in message.items() if name not in ("timing_ms", "backlog")}


async def test_first_lines_come_while_the_rest_is_not_scored_yet(
    server: Server, encoder: ColourEncoder, tmp_path: Path
) -> None:
    content = write_video(tmp_path / "a.mp4", RED_THEN_BLUE).read_bytes()
    encoder.hold.clear()
    async with (
        httpx.AsyncClient(timeout=WAIT_S, trust_env=False) as http,
        http.stream(
            "POST", f"{server.url}/v1/clips", files=parts_of(content), headers=NDJSON
        ) as answer,
    ):
        received = answer.aiter_lines()
        assert json.loads(await anext(received))["type"] == "clip.opened"
        encoder.hold.set()
        rest = [json.loads(line) async for line in received]
    assert [each["seq"] for each in rest if each["type"] == "prediction"] == list(range(16))


async def test_other_rates_and_the_best_labels_alone_can_be_asked_for(
    server: Server, tmp_path: Path
) -> None:
    content = write_video(tmp_path / "a.mp4", ["red"] * 16).read_bytes()
    answer = await send_clip(server, content, words={**WORDS, "fps": 1.0, "top_k": 1})
    assert times(answer) == [0, 1000, 2000, 3000, 3750]
    assert [each["label"] for each in answer.json()["predictions"][0]["top"]] == ["red"]


async def test_warnings_about_words_are_passed_on(server: Server, tmp_path: Path) -> None:
    content = write_video(tmp_path / "a.mp4", ["red"] * 4).read_bytes()
    words = {"vocabulary": {"labels": ["grün"]}}
    answer = await send_clip(server, content, words=words)
    assert answer.json()["opened"]["warnings"] == ["label 'grün' is not English"]


# ---- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "mpeg4"),
        ("a.mp4", "libx264"),
        ("a.mov", "mpeg4"),
        ("a.mkv", "ffv1"),
        ("a.avi", "mpeg4"),
        ("a.webm", "libvpx"),
        ("a.webm", "libvpx-vp9"),
        ("a.ts", "libx264"),
        ("a.flv", "libx264"),
        ("a.wmv", "wmv2"),
    ],
)
async def test_containers_and_codecs(server: Server, tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, ["red"] * 8, codec=codec)
    found = times(await send_clip(server, path.read_bytes()))
    assert found == pytest.approx([0, 250, 500, 750, 1000, 1250, 1500, 1750], abs=20)


async def test_uneven_frames_keep_their_own_times(server: Server, tmp_path: Path) -> None:
    at_ms = [0, 40, 260, 300, 510, 1400, 1490, 2000]
    path = write_video(tmp_path / "a.mkv", ["red"] * 8, times_ms=at_ms, step_ms=40)
    assert times(await send_clip(server, path.read_bytes())) == [0, 260, 510, 1490, 2000]


async def test_estimate_of_frames_makes_no_clip_incomplete(server: Server, tmp_path: Path) -> None:
    """Four frames in 20 s, where FFmpeg expects 500: the last one's time says that all is there."""
    at_ms = [0, 40, 80, 20_000]
    path = write_video(tmp_path / "a.mkv", ["red"] * 4, times_ms=at_ms, step_ms=40)
    closed = (await send_clip(server, path.read_bytes())).json()["closed"]
    assert (closed["complete"], closed["warnings"]) == (True, [])


async def test_rotated_video_is_turned_upright(server: Server, tmp_path: Path) -> None:
    path = turn_by_90_degrees(write_video(tmp_path / "a.mp4", ["red"] * 4))
    clip = (await send_clip(server, path.read_bytes())).json()["opened"]["clip"]
    assert (clip["width"], clip["height"]) == (24, 32)


async def test_video_in_4k_is_scored(server: Server, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", ["blue"] * 3, size=(3840, 2160))
    answer = await send_clip(server, path.read_bytes())
    assert [likeliest(each) for each in answer.json()["predictions"]] == ["blue"] * 3


async def test_file_cut_short_gives_the_frames_that_are_there(
    server: Server, tmp_path: Path
) -> None:
    content = write_avi(tmp_path / "a.avi", ["red"] * 40).read_bytes()
    answer = await send_clip(server, content[: len(content) // 2])
    closed = answer.json()["closed"]
    assert 4 < len(times(answer)) < 30
    assert closed["complete"] is False
    assert "of 40 frames: the rest cannot be read" in closed["warnings"][0]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "found an empty file, expected a video"),
        ("text", "found a file that starts b'these ar', expected a video"),
        ("playlist", "found a file that starts b'#EXTM3U\\n', expected a video"),
        ("picture", "found a file that starts b'\\x89PNG\\r\\n\\x1a\\n', expected a video"),
        ("manifest like MP4", "MP4 or QuickTime data without a video that decodes"),
        ("manifest like MPEG-TS", "MPEG transport stream data without a video that decodes"),
        ("playlist like MPEG-TS", "MPEG transport stream data without a video that decodes"),
        ("sound", "data without a video that decodes"),
        ("cut", "data without a video that decodes"),
        ("header", "data without a video that decodes"),
        ("no frames", "AVI data without a frame that decodes"),
    ],
)
async def test_what_is_no_video_is_told_so(
    server: Server, tmp_path: Path, kind: str, message: str
) -> None:
    video = write_video(tmp_path / "a.mp4", ["red"] * 8).read_bytes()
    avi = write_avi(tmp_path / "a.avi", ["red"] * 8).read_bytes()
    content = {
        "empty": b"",
        "text": b"these are words" * 100,
        "playlist": PLAYLIST,
        "manifest like MP4": b"<!--free-->" + MANIFEST,
        "manifest like MPEG-TS": (b"G" + b" " * 187) * 3 + MANIFEST,
        "playlist like MPEG-TS": (b"G" + b"\n" * 187) * 3 + PLAYLIST,
        "picture": cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes(),
        "sound": write_sound(tmp_path / "s.mp4").read_bytes(),
        "cut": video[: video.index(b"moov")],
        "header": video[:500],
        "no frames": avi.replace(b"00dc", b"99xx"),
    }[kind]
    answer = await send_clip(server, content)
    assert answer.status_code == 415, answer.text
    error = error_of(answer)
    assert error["code"] == "not_a_video"
    assert message in error["message"]


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ({"max_clip_bytes": 1024}, "clip_too_large", "expected at most 1024"),
        ({"max_clip_s": 2.0}, "clip_too_long", "found 10 s of video or more, expected at most 2 s"),
        ({"max_clip_frames": 30}, "clip_too_long", "found 31 frames or more, expected at most 30"),
        ({"max_pixels": 700}, "image_too_large", "video has 32x24 pixels, expected at most 700"),
    ],
)
@pytest.mark.parametrize("headers", [{}, NDJSON])
async def test_limits(
    serve: Serve,
    tmp_path: Path,
    settings: dict[str, object],
    headers: dict[str, str],
    code: str,
    message: str,
) -> None:
    content = write_video(tmp_path / "a.mp4", ["red"] * 40).read_bytes()
    async with serve(clip_spool=tmp_path / "spool", **settings) as server:
        answer = await send_clip(server, content, headers=headers)
        if headers and "max_clip_frames" in settings:  # counted, so told when it is met
            error = lines(answer)[-1]
            assert (answer.status_code, error["fatal"]) == (200, True)
        else:
            assert answer.status_code == 413
            error = error_of(answer)
        assert error["code"] == code
        assert message in error["message"]
        await leaves_nothing(server, tmp_path / "spool")


@pytest.mark.parametrize(
    "settings", [{"max_clip_s": 2.0}, {"max_clip_frames": 12}], ids=["seconds", "frames"]
)
@pytest.mark.parametrize("headers", [{}, NDJSON], ids=["object", "lines"])
async def test_limits_hold_where_the_header_lies(
    serve: Serve, tmp_path: Path, settings: dict[str, object], headers: dict[str, str]
) -> None:
    path = write_avi(tmp_path / "a.avi", ["red"] * 40)
    data = bytearray(path.read_bytes())
    for at in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):  # numbers of frames
        assert int.from_bytes(data[at : at + 4], "little") == 40
        data[at : at + 4] = (8).to_bytes(4, "little")
    async with serve(clip_spool=tmp_path / "spool", **settings) as server:
        answer = await send_clip(server, bytes(data), headers=headers)
        if headers and answer.status_code == 200:  # it had begun
            last = lines(answer)[-1]
            assert (last["type"], last["code"], last["fatal"]) == ("error", "clip_too_long", True)
        else:
            assert (answer.status_code, error_of(answer)["code"]) == (413, "clip_too_long")
        await leaves_nothing(server, tmp_path / "spool")


# ---- requests ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "code", "message"),
    [
        ({}, 422, "bad_vocabulary", "field vocabulary is missing"),
        ({**WORDS, "more": 1}, 422, "bad_request", "found unknown field more"),
        ({**WORDS, "fps": 0}, 422, "bad_request", "fps: found 0"),
        ({**WORDS, "fps": 61}, 422, "bad_request", "fps: found 61"),
        ({"vocabulary": {"labels": []}}, 422, "bad_vocabulary", "found no label"),
        ({"vocabulary": {"labels": ["a"] * 2}}, 422, "bad_vocabulary", "label 'a' twice"),
        ({"vocabulary": {"labels": list("abcde")}}, 422, "bad_vocabulary", "found 5 labels"),
        ({**WORDS, "scorer": "ovoad"}, 422, "unknown_scorer", "found scorer ovoad, expected one"),
        ({**WORDS, "scorer": "best"}, 422, "bad_request", "scorer: found 'best'"),
        ([], 422, "bad_request", "message: found []"),
    ],
)
async def test_bad_fields(
    serve: Serve, tmp_path: Path, words: object, status: int, code: str, message: str
) -> None:
    content = write_video(tmp_path / "a.mp4", ["red"] * 4).read_bytes()
    async with serve(clip_spool=tmp_path / "spool", max_labels=4) as server:
        answer = await send_clip(server, content, words=words)
        assert answer.status_code == status
        error = error_of(answer)
        assert error["code"] == code
        assert message in error["message"]
        await leaves_nothing(server, tmp_path / "spool")


def body(*parts: tuple[str, bytes], end: bytes = b"--b--\r\n") -> bytes:
    """Return a multipart body with boundary b."""
    head = '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n'
    return b"".join(head.format(name).encode() + data + b"\r\n" for name, data in parts) + end


GOOD = ("request", json.dumps(WORDS).encode())


@pytest.mark.parametrize(
    ("content", "kind", "status", "code", "message"),
    [
        (b"{}", "application/json", 415, "not_multipart", "found content type 'application/json'"),
        (b"", "multipart/form-data", 415, "not_multipart", "expected multipart/form-data with"),
        (b"nonsense", None, 400, "bad_request", "found a body that is not multipart"),
        (body(GOOD), None, 400, "bad_request", "part file is missing"),
        (body(GOOD, GOOD), None, 400, "bad_request", "found part request twice"),
        (body(("what", b"")), None, 400, "bad_request", "found part 'what', expected request"),
        (
            body(("request", b"{")),
            None,
            400,
            "bad_request",
            "found a part request that is not JSON",
        ),
        (body(GOOD, end=b""), None, 400, "bad_request", "found a body that breaks off"),
        (b"", None, 400, "bad_request", "found a body that breaks off"),
        (
            body(("request", b" " * 2**22 + b"1")),
            None,
            413,
            "request_too_large",
            "more than 4194304",
        ),
    ],
)
async def test_bad_bodies(
    server: Server, content: bytes, kind: str | None, status: int, code: str, message: str
) -> None:
    headers = {"Content-Type": kind or "multipart/form-data; boundary=b"}
    async with httpx.AsyncClient(timeout=WAIT_S, trust_env=False) as http:
        answer = await http.post(f"{server.url}/v1/clips", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    error = error_of(answer)
    assert error["code"] == code
    assert message in error["message"]


@pytest.mark.parametrize("where", ["before", "behind"])
async def test_body_without_a_length_is_bounded_as_a_whole(
    serve: Serve, tmp_path: Path, where: str
) -> None:
    """Whatever stands before or behind the form's parts counts too."""
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        if where == "behind":
            yield body(GOOD, ("file", b"\x00\x00\x00\x20ftypisom"))
        for _ in range(24):  # 6 MiB
            sent += 2**18
            yield b"\r\n" * 2**17

    async with serve(clip_spool=tmp_path / "spool", max_clip_bytes=1024) as server:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        async with httpx.AsyncClient(timeout=WAIT_S, trust_env=False) as http:
            answer = await http.post(f"{server.url}/v1/clips", content=pieces(), headers=headers)
        assert (answer.status_code, error_of(answer)["code"]) == (413, "clip_too_large")
        assert sent > MOST_REQUEST_BYTES
        await leaves_nothing(server, tmp_path / "spool")


async def test_video_may_come_before_the_request(server: Server, tmp_path: Path) -> None:
    content = write_video(tmp_path / "a.mp4", ["red"] * 4).read_bytes()
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with httpx.AsyncClient(timeout=WAIT_S, trust_env=False) as http:
        answer = await http.post(
            f"{server.url}/v1/clips", content=body(("file", content), GOOD), headers=headers
        )
    assert times(answer) == [0, 250, 500, 750]


async def test_key_is_asked_for_before_anything_is_read(serve: Serve, tmp_path: Path) -> None:
    content = write_video(tmp_path / "a.mp4", ["red"] * 4).read_bytes()
    async with serve(clip_spool=tmp_path / "spool", api_key="correct-horse") as server:
        answer = await send_clip(server, content)
        assert (answer.status_code, error_of(answer)["code"]) == (401, "unauthorised")
        key = {"Authorization": "Bearer correct-horse"}
        assert times(await send_clip(server, content, headers=key)) == [0, 250, 500, 750]


async def test_page_of_another_origin_is_refused(server: Server) -> None:
    answer = await send_clip(server, b"", headers={"Origin": "https://elsewhere.example"})
    assert (answer.status_code, error_of(answer)["code"]) == (403, "origin")


async def test_many_clips_at_once_give_what_each_gives_alone(
    server: Server, tmp_path: Path
) -> None:
    clips = {
        colour: write_video(tmp_path / f"{colour}.mp4", [colour] * 12).read_bytes()
        for colour in ("red", "blue")
    }
    answers = await asyncio.gather(
        *(send_clip(server, clips[colour]) for colour in ("red", "blue") * 3)
    )
    for answer, colour in zip(answers, ("red", "blue") * 3, strict=True):
        assert [likeliest(each) for each in answer.json()["predictions"]] == [colour] * 12
