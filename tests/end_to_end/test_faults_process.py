"""Clients that vanish, hang, never read or drip, and a disk that is full, at a real server.

Whatever they do, a neighbour is served, memory is bounded and nothing of them stays.
"""

import contextlib
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection

from ovoad_client import protocol

from .real_server import (
    HANDSHAKE,
    WAIT_S,
    RealServer,
    faults,
    hear,
    photo,
    say,
    start_server,
    stop_server,
    websocket_frame,
)

pytestmark = pytest.mark.slow
SEND_TIMEOUT_S = 1.0
IDLE_S = 3.0
RESUME_S = 0.5
MOST_GROWTH_MIB = 64.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """Return a server with short patience."""
    server = start_server(
        tmp_path_factory.mktemp("home"),
        send_timeout_s=SEND_TIMEOUT_S,
        idle_timeout_s=IDLE_S,
        resume_s=RESUME_S,
        create_timeout_s=IDLE_S,
        promised_fps=0,
        max_sessions=16,
    )
    yield server
    stop_server(server)


@pytest.fixture
def undisturbed(server: RealServer) -> Iterator[RealServer]:
    """Return the server; it serves afterwards as before and nothing is left of the test."""
    with server.session() as client:
        ask(client, 0)
    before_mib = server.memory_mib()
    yield server
    with server.session() as client:
        ask(client, 0)
    until(lambda: server.metric("ovoad_slots_used") == 0)
    until(lambda: connections(server) == 0)
    assert server.memory_mib() - before_mib < MOST_GROWTH_MIB
    assert faults(server) == []


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event tells of."""
    give_up_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.05)


def connections(server: RealServer) -> int:
    """Count open connections to the server's port, but for that of the question itself."""
    _, port = server.host_and_port
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    open_states = {"01", "08"}  # ESTABLISHED, CLOSE_WAIT
    return sum(
        fields[1].endswith(f":{port:04X}") and fields[3] in open_states and fields[9] != "0"
        for fields in map(str.split, rows)
    )


def ask(client: ClientConnection, seq: int) -> float:
    """Have a frame predicted; returns the seconds that it took."""
    began_s = time.monotonic()
    client.send(protocol.pack_frame(seq, seq * 250, photo()))
    prediction = hear(client)
    assert isinstance(prediction, protocol.Prediction), prediction
    assert prediction.seq == seq
    return time.monotonic() - began_s


def reset(raw: socket.socket) -> None:
    """Break a connection with RST."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


@pytest.mark.parametrize("policy", ["realtime", "lossless"])
def test_client_killed_in_the_middle_of_a_frame(
    undisturbed: RealServer, policy: protocol.Policy
) -> None:
    frame = websocket_frame(protocol.pack_frame(5, 1250, photo(640)), opcode=2)
    for cut in (1, 5, 13, 40, len(frame) // 2, len(frame) - 1):
        with undisturbed.raw_session() as raw:
            for seq in range(5):
                whole = protocol.pack_frame(seq, seq * 250, photo())
                raw.sendall(websocket_frame(whole, opcode=2))
            raw.sendall(frame[:cut])
            reset(raw)


def test_half_open_connection_is_ended_by_silence(undisturbed: RealServer) -> None:
    """A client whose machine is gone: it sends nothing, acknowledges little, closes nothing."""
    ended = undisturbed.metric('ovoad_sessions_ended_total{reason="idle"}')
    with undisturbed.raw_session() as raw, undisturbed.session() as neighbour:
        raw.sendall(websocket_frame(protocol.pack_frame(0, 0, photo()), opcode=2)[:40])
        for seq in range(8):
            assert ask(neighbour, seq) < 3
            time.sleep(IDLE_S / 6)
        idle = 'ovoad_sessions_ended_total{reason="idle"}'
        until(lambda: undisturbed.metric(idle) == ended + 1)


@pytest.mark.parametrize("what", ["frames", "pings", "words", "websocket pings"])
def test_reader_that_never_reads(undisturbed: RealServer, what: str) -> None:
    labels = [f"an action that has quite a long name, number {number}" for number in range(500)]
    update = protocol.VocabularyUpdate(vocabulary=protocol.Vocabulary(labels=labels)).to_json()
    image = photo()
    stop = threading.Event()
    with undisturbed.raw_session(*labels) as raw, undisturbed.session() as neighbour:
        raw.settimeout(0.5)

        def flood() -> None:
            seq = 0
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    seq += 1
                    match what:
                        case "frames":
                            frame = protocol.pack_frame(seq, seq * 250, image)
                            data = websocket_frame(frame, opcode=2)
                        case "pings":
                            ping = protocol.Ping(nonce="n" * 100).to_json().encode()
                            data = websocket_frame(ping, opcode=1) * 100
                        case "words":
                            data = websocket_frame(update.encode(), opcode=1)
                        case _:
                            data = websocket_frame(b"p" * 125, opcode=9) * 100
                    raw.sendall(data)

        flooding = threading.Thread(target=flood)
        flooding.start()
        try:
            worst_mib, give_up_s = 0.0, time.monotonic() + 4
            began_mib = undisturbed.memory_mib()
            seq = 0
            while time.monotonic() < give_up_s and flooding.is_alive():
                assert ask(neighbour, seq) < 5, "a neighbour is served meanwhile"
                seq += 1
                worst_mib = max(worst_mib, undisturbed.memory_mib() - began_mib)
            if what == "websocket pings":
                assert not flooding.is_alive(), "pongs cannot make it wait, so it is cut off"
        finally:
            stop.set()
            flooding.join()
        assert worst_mib < MOST_GROWTH_MIB


def drip(raw: socket.socket, data: bytes, stop: threading.Event) -> None:
    """Write 10 bytes a second until the server has enough of it."""
    with contextlib.suppress(OSError):
        for at in range(0, len(data), 10):
            raw.sendall(data[at : at + 10])
            if stop.wait(1.0):
                return


def test_ten_bytes_a_second(undisturbed: RealServer) -> None:
    """In the headers of the handshake, before session.create, inside a frame; and silence."""
    handshake = HANDSHAKE.format(undisturbed.address).replace("\r\n\r\n", "\r\nX: " + "x" * 9999)
    create = websocket_frame(b'{"type": "session.create", "vocabulary"' + b" " * 9999, opcode=1)
    frame = websocket_frame(protocol.pack_frame(0, 0, photo(640)), opcode=2)
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        dripping = []
        for opened, data in [
            (undisturbed.raw(), handshake.encode()),
            (undisturbed.raw(), b""),
            (undisturbed.raw_websocket(), create),
            (undisturbed.raw_session(), frame),
        ]:
            raw = stack.enter_context(opened)
            dripping.append((raw, threading.Thread(target=drip, args=(raw, data, stop))))
            dripping[-1][1].start()
        neighbour = stack.enter_context(undisturbed.session())
        try:
            seq = 0
            give_up_s = time.monotonic() + WAIT_S
            while connections(undisturbed) > 1:  # the neighbour
                assert time.monotonic() < give_up_s, "they are ended in time"
                assert ask(neighbour, seq) < 3, "a neighbour is served meanwhile"
                seq += 1
                time.sleep(0.2)
        finally:
            stop.set()
            for _, thread in dripping:
                thread.join()


# ---- the disk ------------------------------------------------------------------------------------


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system without a free byte."""
    folder = tmp_path / "full"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("found no right to mount a tmpfs, expected root with CAP_SYS_ADMIN")
    try:
        with contextlib.suppress(OSError), (folder / "filler").open("wb") as filler:
            while True:
                filler.write(b"x" * 4096)
                filler.flush()
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def no_folder(tmp_path: Path) -> Path:
    """Return a path below a file, where not even root can make a folder."""
    (tmp_path / "file").write_text("not a folder")
    return tmp_path / "file" / "cache"


@pytest.mark.parametrize("where", ["full_disk", "no_folder"])
def test_server_without_room_for_its_cache_answers_all_the_same(
    where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    cache: Path = request.getfixturevalue(where)
    server = start_server(tmp_path, cache=cache)
    try:
        with server.session("riding a bicycle", "a person cooking") as client:
            ask(client, 0)
            vocabulary = protocol.Vocabulary(labels=[f"action {number}" for number in range(300)])
            say(client, protocol.VocabularyUpdate(vocabulary=vocabulary))
            updated = hear(client)
            assert isinstance(updated, protocol.VocabularyUpdated), updated
            ask(client, 1)
        assert server.get("/readyz").status_code == 200
        assert faults(server) == []
    finally:
        stop_server(server)
