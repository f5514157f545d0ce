"""The queue on disk: order, bounds, what outlives the process, what is damaged."""

import json
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovoad_server.outward import store as store_module
from ovoad_server.outward.errors import OutwardError
from ovoad_server.outward.store import FILE, MOST_SENSORS, Bounds, Store

from .outward_parts import ROOM, noted

BOTH = ("webhook", "mqtt")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path, BOTH, ROOM)
    yield store
    store.close()


def drain(store: Store, sink: str) -> list[int]:
    """Take and acknowledge all events of a sink; return their numbers."""
    numbers = []
    while (event := store.next(sink)) is not None:
        numbers.append(json.loads(event.body)["data"]["timestamp_ms"])
        store.acknowledge(sink, event.sequence)
    return numbers


def rows(folder: Path) -> int:
    database = sqlite3.connect(folder / FILE)
    (count,) = database.execute("SELECT count(*) FROM events").fetchone()
    database.close()
    return int(count)


def test_each_sink_takes_all_events_in_order_at_its_own_pace(store: Store, tmp_path: Path) -> None:
    store.add([noted(1), noted(2)])
    store.add([noted(3, kind="end")])
    assert drain(store, "webhook") == [1, 2, 3]
    assert (store.waiting("webhook"), store.waiting("mqtt")) == (0, 3)
    assert rows(tmp_path) == 3, "mqtt has not taken them"
    assert drain(store, "mqtt") == [1, 2, 3]
    assert rows(tmp_path) == 0


def test_event_is_the_same_until_it_is_acknowledged(store: Store) -> None:
    before_ms = time.time_ns() // 1_000_000 - 60_000
    store.add([noted(1), noted(2)])
    first = store.next("mqtt")
    assert first is not None
    assert store.next("mqtt") == first
    message = json.loads(first.body)
    assert message["id"] == first.id
    assert (message["type"], message["sequence"]) == ("action.start", first.sequence)
    assert before_ms < first.sequence < before_ms + 120_000, "a new queue begins at the clock"
    assert message["data"] == {
        "session_id": "one",
        "label": "a person cooking",
        "timestamp_ms": 1,
        "start_ms": 0,
        "probability": 0.75,
        "active_sessions": 1,
        "cause": "seen",
    }
    assert message["timestamp"].endswith("Z")


def test_sessions_in_which_a_label_goes_on_are_counted(store: Store) -> None:
    for kind, session in (("start", "a"), ("start", "b"), ("end", "a"), ("end", "b")):
        store.add([noted(1, kind=kind, session=session)])
    active = []
    while (event := store.next("mqtt")) is not None:
        active.append(json.loads(event.body)["data"]["active_sessions"])
        store.acknowledge("mqtt", event.sequence)
    assert active == [1, 2, 1, 0]


def test_queue_outlives_the_process_and_sequence_goes_on(tmp_path: Path) -> None:
    store = Store(tmp_path, BOTH, ROOM)
    store.add([noted(number) for number in range(5)])
    assert drain(store, "webhook") == [0, 1, 2, 3, 4]
    first = store.next("mqtt")
    assert first is not None
    store.acknowledge("mqtt", first.sequence)
    store.close()
    again = Store(tmp_path, BOTH, ROOM)
    assert (again.waiting("webhook"), again.waiting("mqtt")) == (0, 4)
    again.add([noted(5)])
    assert drain(again, "webhook") == [5]
    assert drain(again, "mqtt") == [1, 2, 3, 4, 5]
    again.close()
    empty = Store(tmp_path, BOTH, ROOM)
    empty.add([noted(6)])
    event = empty.next("mqtt")
    assert event is not None
    assert event.sequence == first.sequence + 6, "a number is never used twice"
    empty.close()


def test_oldest_are_dropped_beyond_the_count_and_counted_for_whom_they_are_lost(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path, BOTH, Bounds(count=10, bytes=2**20))
    assert store.add([noted(number) for number in range(8)]) == {"webhook": 0, "mqtt": 0}
    assert drain(store, "webhook") == list(range(8))
    assert store.add([noted(number) for number in range(8, 15)]) == {"webhook": 0, "mqtt": 5}
    assert store.waiting("mqtt") == 10
    assert drain(store, "mqtt") == list(range(5, 15))
    assert drain(store, "webhook") == list(range(8, 15))
    store.close()


def test_oldest_are_dropped_beyond_the_bytes(tmp_path: Path) -> None:
    store = Store(tmp_path, ["mqtt"], Bounds(count=1000, bytes=4096))
    lost = sum(store.add([noted(number)])["mqtt"] for number in range(50))
    kept = drain(store, "mqtt")
    assert kept == list(range(lost, 50))
    assert 5 < len(kept) < 15
    assert store.add([noted(99)]) == {"mqtt": 0}, "room is given back"
    assert drain(store, "mqtt") == [99]
    store.close()


def test_event_larger_than_the_queue_is_dropped_itself(tmp_path: Path) -> None:
    store = Store(tmp_path, ["mqtt"], Bounds(count=10, bytes=100))
    assert store.add([noted(1)]) == {"mqtt": 1}
    assert store.next("mqtt") is None
    store.close()


def test_bytes_are_known_after_a_restart(tmp_path: Path) -> None:
    bounds = Bounds(count=1000, bytes=4096)
    store = Store(tmp_path, ["mqtt"], bounds)
    store.add([noted(number) for number in range(5)])
    store.close()
    again = Store(tmp_path, ["mqtt"], bounds)
    for number in range(5, 50):
        again.add([noted(number)])
    assert 5 < again.waiting("mqtt") < 15
    again.close()


def test_new_sink_begins_with_what_comes_and_an_old_one_holds_nothing_up(tmp_path: Path) -> None:
    store = Store(tmp_path, ["webhook"], ROOM)
    store.add([noted(1)])
    store.close()
    changed = Store(tmp_path, ["mqtt"], ROOM)
    changed.add([noted(2)])
    assert drain(changed, "mqtt") == [2]
    assert rows(tmp_path) == 0
    changed.close()


def test_what_went_on_when_the_server_died_ends(tmp_path: Path) -> None:
    store = Store(tmp_path, ["mqtt"], ROOM)
    store.add([noted(1), noted(2, label="b"), noted(3, label="b", kind="end")])
    store.close()
    again = Store(tmp_path, ["mqtt"], ROOM)
    assert again.end_all() == 1
    assert again.end_all() == 0
    assert again.active_labels("mqtt") is None
    assert again.waiting("mqtt") == 4
    for _ in range(3):
        event = again.next("mqtt")
        assert event is not None
        again.acknowledge("mqtt", event.sequence)
    last = again.next("mqtt")
    assert last is not None
    message = json.loads(last.body)
    assert message["type"] == "action.end"
    assert message["data"]["label"] == "a person cooking"
    assert (message["data"]["cause"], message["data"]["probability"]) == ("restart", None)
    again.close()


def test_labels_are_remembered_up_to_a_bound_and_forgotten_in_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add([noted(1, label="first")], ["second"])
    store.add([], [f"label {number}" for number in range(MOST_SENSORS)])
    assert len(store.sensors()) == MOST_SENSORS
    assert set(store.sensors()[:2]) == {"first", "second"}
    assert store.stale_sensors() == []
    monkeypatch.setattr(store_module, "SENSOR_KEPT_S", -1.0)
    assert "second" in store.stale_sensors()
    assert "first" not in store.stale_sensors(), "it goes on"
    store.forget_sensor("second")
    assert "second" not in store.sensors()


def test_second_server_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(OutwardError) as caught:
        Store(tmp_path, BOTH, ROOM)
    assert str(caught.value) == (
        f"found {tmp_path} in use by another server, expected OVOAD_EVENTS_FOLDER to be its own"
    )


def test_damaged_queue_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_bytes(b"no database at all" * 1000)
    store = Store(tmp_path, BOTH, ROOM)
    store.add([noted(1)])
    assert drain(store, "mqtt") == [1]
    store.close()
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1
    assert "the queue of events is damaged" in caplog.text


def test_sequence_never_goes_back_behind_a_damaged_queue(tmp_path: Path) -> None:
    def told_by(store: Store) -> list[int]:
        store.add([noted(1), noted(2)])
        assert store.waiting("webhook") == 2, "the numbers before a queue's first wait for nobody"
        sequences = []
        while (event := store.next("webhook")) is not None:
            sequences.append(event.sequence)
            store.acknowledge("webhook", event.sequence)
        store.close()
        return sequences

    before = told_by(Store(tmp_path, BOTH, ROOM))
    time.sleep(0.01)  # more milliseconds than events
    (tmp_path / FILE).write_bytes(b"no database at all" * 1000)
    after = told_by(Store(tmp_path, BOTH, ROOM))
    assert after[0] > before[-1], "a receiver ignores what is not above the last"


def test_queue_that_never_had_an_event_waits_for_nothing_when_it_is_opened_again(
    tmp_path: Path,
) -> None:
    for _ in range(2):
        store = Store(tmp_path, BOTH, ROOM)
        assert (store.waiting("mqtt"), store.next("mqtt")) == (0, None)
        store.close()


def test_queue_that_cannot_be_read_leaves_file_and_folder_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path, BOTH, ROOM).close()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_place_sinks", full_disk)
        for _ in range(2):  # the second finds the folder free
            with pytest.raises(sqlite3.OperationalError, match="disk is full"):
                Store(tmp_path, BOTH, ROOM)
    store = Store(tmp_path, BOTH, ROOM)
    store.add([noted(1)])
    store.close()


def full_disk(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def test_queue_of_another_version_is_refused(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / FILE)
    database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(OutwardError, match=r"of version 7, expected version 1"):
        Store(tmp_path, BOTH, ROOM)


def test_folder_is_nobody_elses(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "events", BOTH, ROOM)
    store.add([noted(1)])
    for path in (tmp_path / "deep" / "events").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    store.close()


def test_failed_write_changes_nothing(store: Store) -> None:
    store.add([noted(1)])
    bad = noted(2**70)  # SQLite has no such number
    with pytest.raises((sqlite3.Error, OverflowError)):
        store.add([noted(2), bad])
    assert drain(store, "mqtt") == [1]
    assert store.add([noted(3)]) == {"webhook": 0, "mqtt": 0}
    assert drain(store, "webhook") == [1, 3]
