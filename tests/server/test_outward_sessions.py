"""What sessions tell: events with their session, pairs however a session ends, never a wait."""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from ovoad_client import protocol
from ovoad_server.engine.events import ActionEvent
from ovoad_server.outward import recorder as recorder_module
from ovoad_server.outward.counts import Counts
from ovoad_server.outward.recorder import MOST_ANNOUNCED, Recorder
from ovoad_server.outward.store import Store
from ovoad_server.outward.webhook import Webhook

from .harness import Client, Serve, Server, picture, until
from .outward_parts import ROOM, Receiver, eventually, outward_to
from .resume_parts import broken_off

EVENTS = {"enter": 0.5, "exit": 0.3, "min_duration_ms": 0}
START = ActionEvent("start", "red", 1000, 0.9, 500)


class Notes:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.labels: list[tuple[str, ...]] = []
        self.events: list[tuple[str, ActionEvent]] = []

    def take_labels(self, labels: Sequence[str]) -> None:
        self.labels.append(tuple(labels))

    def take_event(self, session_id: str, event: ActionEvent) -> None:
        self.events.append((session_id, event))

    @property
    def kinds(self) -> list[tuple[str, str]]:
        return [(event.kind, event.label) for _, event in self.events]


@contextlib.asynccontextmanager
async def noted(serve: Serve, **settings: object) -> AsyncIterator[tuple[Server, Notes]]:
    async with serve(**settings) as server:
        server.hub.watcher = notes = Notes()
        yield server, notes


async def show(client: Client, seq: int, colour: str) -> None:
    """Send a frame and wait for its prediction; events are left to be read."""
    await client.frame(seq, picture(colour))
    while not isinstance(await client.receive(), protocol.Prediction):
        pass


async def test_events_are_told_with_their_session(serve: Serve) -> None:
    async with noted(serve) as (server, notes), server.connect() as client:
        created = await client.create(["red", "blue"], events=EVENTS, scorer="frame")
        await show(client, 0, "red")
        await show(client, 1, "blue")
        await until(lambda: len(notes.events) == 3)
        assert notes.kinds == [("start", "red"), ("end", "red"), ("start", "blue")]
        assert {session_id for session_id, _ in notes.events} == {created.session_id}
        assert notes.events[1][1].timestamp_ms == 250
        await client.send(protocol.SessionClose())
        await client.rest()
    assert notes.kinds[3:] == [("end", "blue")]
    assert notes.labels == [("red", "blue")]


async def test_new_words_are_told(serve: Serve) -> None:
    async with noted(serve) as (server, notes), server.session(["red"]) as client:
        update = protocol.VocabularyUpdate(vocabulary=protocol.Vocabulary(labels=["green"]))
        await client.send(update)
        await client.expect(protocol.VocabularyUpdated)
    assert notes.labels == [("red",), ("green",)]


async def test_session_that_is_lost_ends_its_actions(serve: Serve) -> None:
    async with noted(serve) as (server, notes), server.connect() as client:
        await client.create(["red"], events=EVENTS)
        await show(client, 0, "red")
        client.break_off()
        await server.is_empty()
        assert notes.kinds == [("start", "red"), ("end", "red")]


async def test_parked_session_goes_on_until_it_is_given_up(serve: Serve) -> None:
    async with noted(serve, resume_s=0.3) as (server, notes), server.connect() as client:
        await client.create(["red"], events=EVENTS)
        await show(client, 0, "red")
        await broken_off(server, client)
        assert notes.kinds == [("start", "red")]
        await server.is_empty()
        assert notes.kinds == [("start", "red"), ("end", "red")]


async def test_events_of_a_live_session_arrive_at_a_webhook(serve: Serve, tmp_path: Path) -> None:
    receiver = Receiver()
    with receiver.up():
        sink = ("webhook", lambda store, wake: Webhook(receiver.url, None))
        with outward_to(tmp_path, sink) as outward:
            async with serve() as server, server.connect() as client:
                server.hub.watcher = outward
                created = await client.create(["red"], events=EVENTS)
                await show(client, 0, "red")
                await until(lambda: len(receiver.taken) == 1)
    start, end = (request.message for request in receiver.taken)
    assert (start["type"], end["type"]) == ("action.start", "action.end")
    assert start["data"]["session_id"] == created.session_id
    assert (start["data"]["active_sessions"], end["data"]["active_sessions"]) == (1, 0)


class SlowStore(Store):
    """A queue on a disk that takes nothing until it is told to."""

    broken = True

    def add(self, *given: object, **more: object) -> dict[str, int]:
        if self.broken:
            raise sqlite3.OperationalError("database or disk is full")
        return super().add(*given, **more)  # type: ignore[arg-type]


def test_disk_that_is_full_holds_nobody_up_and_what_finds_no_room_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(recorder_module, "DISK_AGAIN_S", 0.01)
    monkeypatch.setattr(recorder_module, "MOST_IN_MEMORY", 10)
    monkeypatch.setattr(recorder_module, "MOST_AT_ONCE", 1)
    store, counts = SlowStore(tmp_path, ["mqtt"], ROOM), Counts()
    recorder = Recorder(store, ["mqtt"], counts, lambda: None)
    began_s = time.monotonic()
    for _ in range(30):
        recorder.take_event("one", START)
    assert time.monotonic() - began_s < 1.0
    assert 19 <= counts.dropped["mqtt", "disk"] <= 20
    eventually(lambda: "cannot be written to disk (database or disk is full)" in caplog.text)
    store.broken = False
    recorder.close(5.0)
    assert counts.queued + counts.dropped["mqtt", "disk"] == 30
    assert store.waiting("mqtt") == counts.queued
    assert "events are written to disk again" in caplog.text
    store.close()


def test_event_that_no_row_can_hold_is_left_out_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, counts = Store(tmp_path, ["mqtt"], ROOM), Counts()
    recorder = Recorder(store, ["mqtt"], counts, lambda: None)
    for timestamp_ms in (1, 2**70, 3):
        recorder.take_event("one", ActionEvent("start", "red", timestamp_ms, 0.9, timestamp_ms))
    recorder.close(5.0)
    assert (counts.queued, counts.dropped["mqtt", "disk"]) == (2, 1)
    assert "an event cannot be written down" in caplog.text
    store.close()


def test_large_vocabulary_makes_no_sensors_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path, ["mqtt"], ROOM)
    recorder = Recorder(store, ["mqtt"], Counts(), lambda: None)
    recorder.take_labels([f"label {number}" for number in range(MOST_ANNOUNCED + 1)])
    recorder.take_labels(["few"])
    recorder.close(5.0)
    assert store.sensors() == ["few"]
    store.close()


async def test_telling_costs_the_event_loop_microseconds(tmp_path: Path) -> None:
    store = Store(tmp_path, ["mqtt"], ROOM)
    recorder = Recorder(store, ["mqtt"], Counts(), lambda: None)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for _ in range(2000):
        recorder.take_event("one", START)
    assert loop.time() - began_s < 2.0, "a commit for each would take longer"
    await asyncio.to_thread(recorder.close, 10.0)
    store.close()
