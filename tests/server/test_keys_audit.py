"""The audit log: one line for each session and clip, with facts and without content."""

import logging
import re
from pathlib import Path

import pytest

from .clip_parts import send_clip, write_video
from .harness import Serve, is_still_served, until
from .key_parts import FIRST, as_key, bearer, clips_are_over, follow_closely, key, keys_file
from .resume_parts import PARK_S, broken_off

LINE = re.compile(
    r"kind=(stream|clip) key=(\S+) session_id=(\S+) address=(\S+) encoder=(\S+) scorer=(\S+) "
    r"policy=(\S+) start=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) duration_s=(\d+\.\d{3}) "
    r"received=(\d+) predicted=(\d+) dropped_busy=(\d+) dropped_rate=(\d+) dropped_stale=(\d+) "
    r'errors=(\d+) reason=(\S+|"[^"]+")'
)


@pytest.fixture
def audit(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "ovoad_server.audit")
    return caplog


def texts(audit: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines, in order."""
    return [each.getMessage() for each in audit.records if each.name == "ovoad_server.audit"]


def entries(audit: pytest.LogCaptureFixture) -> list[tuple[str, ...]]:
    """Return the fields of each line, in order."""
    found = []
    for text in texts(audit):
        match = LINE.fullmatch(text)
        assert match is not None, text
        found.append(match.groups())
    return found


async def test_session_has_one_line_at_its_end(
    serve: Serve, tmp_path: Path, audit: pytest.LogCaptureFixture
) -> None:
    path = keys_file(tmp_path, key("door", FIRST))
    async with serve(keys_file=path) as server:
        async with server.connect(**as_key(FIRST)) as client:
            created = await client.create(["a secret plan", "red"], scorer="frame")
            await is_still_served(client, 0)
            await client.send("nonsense")
            await client.receive()
            assert entries(audit) == []
            await client.close()
        await server.is_empty()
    (entry,) = entries(audit)
    assert entry[:7] == (
        *("stream", "door", created.session_id, "127.0.0.1"),
        *("colours", "frame", "lossless"),
    )
    assert entry[9:] == ("1", "1", "0", "0", "0", "0", '"closed by client"')
    text = "".join(texts(audit))
    for content in ("secret plan", FIRST, created.resume_token):
        assert content not in text


async def test_each_way_to_end_has_its_reason_once(
    serve: Serve,
    tmp_path: Path,
    audit: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    follow_closely(monkeypatch)
    path = keys_file(tmp_path, key("door", FIRST), key("yard", "second-key"))
    async with serve(keys_file=path, resume_s=PARK_S) as server:
        async with server.connect(**as_key(FIRST)) as client:
            created = await client.create()
            await broken_off(server, client)
        async with server.connect(**as_key(FIRST)) as client:
            await client.create(resume={"token": created.resume_token})
            assert entries(audit) == [], "a session that is resumed has not ended"
            keys_file(tmp_path, key("yard", "second-key"))
            await client.rest()
        await until(lambda: len(entries(audit)) == 1)
        async with server.connect(**as_key("second-key")) as client:
            await client.create()
    assert [(entry[1], entry[-1]) for entry in entries(audit)] == [
        ("door", "key_revoked"),
        ("yard", "restart"),
    ]


async def test_clip_has_its_line_and_its_file_s_name_is_not_in_it(
    serve: Serve, tmp_path: Path, audit: pytest.LogCaptureFixture
) -> None:
    content = write_video(tmp_path / "a.mp4", ["red"] * 4).read_bytes()
    path = keys_file(tmp_path, key("door", FIRST))
    async with serve(keys_file=path, clip_spool=tmp_path / "spool") as server:
        await send_clip(server, content, headers=bearer(FIRST))
        await clips_are_over(server)
    (entry,) = entries(audit)
    assert (entry[0], entry[1], entry[6]) == ("clip", "door", "lossless")
    assert entry[9:11] == ("4", "4")
    assert "clip.mp4" not in "".join(texts(audit))


async def test_session_without_a_key_is_logged_too(
    serve: Serve, audit: pytest.LogCaptureFixture
) -> None:
    async with serve() as server:
        async with server.session() as client:
            await client.close()
        await server.is_empty()
    assert [entry[1] for entry in entries(audit)] == ["-"]
