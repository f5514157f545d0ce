"""MQTT against a real broker: events, sensors as Home Assistant finds them, availability, order."""

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("paho.mqtt.client", reason="the extra mqtt is missing")

from ovoad_server.outward import store as store_module
from ovoad_server.outward.courier import Delivered, NotNow
from ovoad_server.outward.home_assistant import Device, topic_name
from ovoad_server.outward.mqtt import Access, MqttSink
from ovoad_server.outward.outward import MakeSink, Outward
from ovoad_server.outward.store import Store

from .outward_parts import (
    QUICK,
    Broker,
    Listener,
    eventually,
    find_broker,
    free_port,
    noted,
    outward_to,
    sample,
)

DEVICE = Device("Hall camera", "homeassistant", "embedded")
COOKING = "a person cooking"
NODE = topic_name("Hall camera")


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    find_broker()
    folder = tmp_path / "broker"
    folder.mkdir()
    return Broker(folder, free_port())


@pytest.fixture
def listener(broker: Broker) -> Iterator[Listener]:
    with broker.up():
        listener = Listener(broker.port)
        yield listener
        listener.close()


def to(broker: Broker, **options: float) -> tuple[str, MakeSink]:
    """Return what makes the sink of a broker."""
    access = Access(f"mqtt://127.0.0.1:{broker.port}")
    return "mqtt", lambda store, wake: MqttSink(access, DEVICE, store, wake=wake, **options)


def tell(outward: Outward, number: int, **fields: str) -> None:
    """Queue an event as a session does."""
    outward._recorder._take(noted(number, **fields))


def numbers(listener: Listener) -> list[int]:
    """Return what `noted` was given, in the order in which it was heard."""
    heard = listener.on(DEVICE.event_topic)
    return [json.loads(payload)["data"]["timestamp_ms"] for payload in heard]


def state(listener: Listener, label: str = COOKING) -> bytes | None:
    return listener.last(DEVICE.state_topic(label))


def test_event_switches_the_sensor_of_its_label(
    broker: Broker, listener: Listener, tmp_path: Path
) -> None:
    with outward_to(tmp_path / "events", to(broker)) as outward:
        tell(outward, 1)
        eventually(lambda: state(listener) == b"ON")
        tell(outward, 2, kind="end")
        eventually(lambda: state(listener) == b"OFF")
        eventually(lambda: sample(outward, "ovoad_outward_delivered_total", to="mqtt") == 2)
    assert numbers(listener) == [1, 2]
    attributes = json.loads(listener.last(DEVICE.attributes_topic(COOKING)) or b"")
    assert (attributes["session_id"], attributes["probability"]) == ("one", 0.75)


def test_home_assistant_finds_device_and_sensor(
    broker: Broker, listener: Listener, tmp_path: Path
) -> None:
    with outward_to(tmp_path / "events", to(broker)) as outward:
        outward.take_labels([COOKING, "a dog"])
        eventually(lambda: state(listener, "a dog") == b"OFF")
        late = Listener(broker.port)  # as Home Assistant that starts later
        eventually(lambda: len(late.kept) == 5)
        late.close()
    topic = f"homeassistant/binary_sensor/ovoad_{NODE}/{topic_name(COOKING)}/config"
    config = json.loads(late.kept[topic])
    assert config["name"] == COOKING
    assert config["unique_id"] == f"ovoad_{NODE}_{topic_name(COOKING)}"
    assert config["device"] == {
        "identifiers": [f"ovoad_{NODE}"],
        "name": "Hall camera",
        "manufacturer": "ovoad",
        "model": "embedded",
    }
    assert late.kept[config["state_topic"]] == b"OFF"
    assert late.kept[config["availability_topic"]] == b"online"
    assert (config["payload_on"], config["payload_off"]) == ("ON", "OFF")
    assert listener.last(DEVICE.availability_topic) == b"offline", "it said goodbye"


def test_sensor_is_on_while_any_session_sees_the_action(
    broker: Broker, listener: Listener, tmp_path: Path
) -> None:
    with outward_to(tmp_path / "events", to(broker)) as outward:
        for number, (kind, session) in enumerate(
            [("start", "a"), ("start", "b"), ("end", "a"), ("end", "b")]
        ):
            tell(outward, number, kind=kind, session=session)
        eventually(lambda: len(listener.on(DEVICE.state_topic(COOKING))) >= 4)
    assert listener.on(DEVICE.state_topic(COOKING))[:4] == [b"ON", b"ON", b"ON", b"OFF"]


def test_server_that_dies_is_told_by_its_last_will(
    broker: Broker, listener: Listener, tmp_path: Path
) -> None:
    store = Store(tmp_path / "events", ["mqtt"], store_bounds())
    wake = threading.Event()
    name, make = to(broker)
    sink = make(store, wake)
    assert isinstance(sink, MqttSink)
    sink.rest()
    eventually(lambda: listener.last(DEVICE.availability_topic) == b"online")
    client = sink._client
    assert client is not None
    connection = client.socket()
    assert isinstance(connection, socket.socket)
    connection.shutdown(socket.SHUT_RDWR)  # as the system does for a process that is killed
    eventually(lambda: listener.last(DEVICE.availability_topic) == b"offline")
    eventually(wake.is_set)
    sink.rest()
    eventually(lambda: listener.last(DEVICE.availability_topic) == b"online")
    sink.close()
    store.close()
    assert name == "mqtt"


@pytest.mark.parametrize("ends", ["at_shutdown", "without_answer"])
def test_connection_that_is_given_up_is_told_by_the_last_will(
    ends: str, broker: Broker, listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "events", ["mqtt"], store_bounds())
    sink = to(broker)[1](store, threading.Event())
    assert isinstance(sink, MqttSink)
    assert sink.rest() == Delivered()
    eventually(lambda: listener.last(DEVICE.availability_topic) == b"online")
    if ends == "at_shutdown":
        sink.abort()
        sink.close()
    else:
        monkeypatch.setattr(sink, "_timeout_s", 0.0)
        store.add([noted(1)])
        event = store.next("mqtt")
        assert event is not None
        assert isinstance(sink.send(event), NotNow)
    eventually(lambda: listener.last(DEVICE.availability_topic) == b"offline")
    assert sink._client is None
    store.close()


def test_goodbye_is_said_once(broker: Broker, listener: Listener, tmp_path: Path) -> None:
    store = Store(tmp_path / "events", ["mqtt"], store_bounds())
    sink = to(broker)[1](store, threading.Event())
    sink.rest()
    sink.close()
    store.close()
    eventually(lambda: listener.last(DEVICE.availability_topic) == b"offline")
    time.sleep(0.2)  # in which a last will would come
    assert listener.on(DEVICE.availability_topic) == [b"online", b"offline"]


def store_bounds() -> store_module.Bounds:
    return store_module.Bounds(100, 2**20)


def test_broker_down_loses_nothing_keeps_order_and_forgets_no_sensor(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with outward_to(tmp_path / "events", to(broker)) as outward:
        with broker.up():
            first = Listener(broker.port)
            tell(outward, 0)
            eventually(lambda: numbers(first) == [0])
            eventually(lambda: sample(outward, "ovoad_outward_waiting", to="mqtt") == 0)
            first.close()
        for number in range(1, 40):
            tell(outward, number, kind="end" if number % 2 else "start")
        eventually(lambda: sample(outward, "ovoad_outward_retried_total", to="mqtt") >= 3)
        assert sample(outward, "ovoad_outward_waiting", to="mqtt") == 39
        with broker.up():  # it has forgotten all that it kept
            second = Listener(broker.port)
            eventually(lambda: sample(outward, "ovoad_outward_waiting", to="mqtt") == 0)
            third = Listener(broker.port)
            eventually(lambda: DEVICE.discovery_topic(COOKING) in third.kept)
            assert third.kept[DEVICE.state_topic(COOKING)] == b"OFF"
            assert third.kept[DEVICE.availability_topic] == b"online"
            heard = list(dict.fromkeys(numbers(second)))
            assert heard == sorted(heard)
            assert heard[-1] == 39
            second.close()
            third.close()
    assert sample(outward, "ovoad_outward_delivered_total", to="mqtt") == 40
    assert "events do not arrive at the mqtt mqtt://127.0.0.1" in caplog.text
    assert "events arrive at the mqtt again" in caplog.text


def test_sensors_are_right_after_events_were_dropped(broker: Broker, tmp_path: Path) -> None:
    bounds = store_module.Bounds(3, 2**20)
    with outward_to(tmp_path / "events", to(broker), bounds=bounds) as outward:
        with broker.up():
            tell(outward, 0, label="a dog")
            eventually(lambda: sample(outward, "ovoad_outward_delivered_total", to="mqtt") == 1)
        tell(outward, 1, label="a dog", kind="end")
        for number in range(2, 8):
            tell(outward, number)
        eventually(lambda: sample(outward, "ovoad_outward_waiting", to="mqtt") == 3)
        with broker.up():
            listener = Listener(broker.port)
            eventually(lambda: state(listener, "a dog") == b"OFF")
            eventually(lambda: state(listener) == b"ON")
            listener.close()


def test_labels_that_nobody_uses_any_more_vanish(
    broker: Broker, listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with outward_to(tmp_path / "events", to(broker)) as outward:
        outward.take_labels(["a dog"])
        eventually(lambda: state(listener, "a dog") == b"OFF")
        monkeypatch.setattr(store_module, "SENSOR_KEPT_S", -1.0)
        outward._wake()
        eventually(lambda: listener.last(DEVICE.discovery_topic("a dog")) == b"")
        eventually(lambda: state(listener, "a dog") == b"")


def test_broker_that_wants_another_password_is_told_and_tried_again(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker.lines = ("allow_anonymous false",)
    access = Access(f"mqtt://127.0.0.1:{broker.port}", "ovoad", "correct-horse")
    sink: tuple[str, MakeSink] = (
        "mqtt",
        lambda store, wake: MqttSink(access, DEVICE, store, wake=wake),
    )
    with broker.up(), outward_to(tmp_path / "events", sink) as outward:
        tell(outward, 1)
        eventually(lambda: sample(outward, "ovoad_outward_retried_total", to="mqtt") >= 2)
        assert sample(outward, "ovoad_outward_waiting", to="mqtt") == 1
    assert "the broker says: Not authorized" in caplog.text
    assert "correct-horse" not in caplog.text


def test_closing_does_not_wait_for_a_broker_that_is_down(broker: Broker, tmp_path: Path) -> None:
    began_s = time.monotonic()
    with outward_to(tmp_path / "events", to(broker), back_off=QUICK) as outward:
        tell(outward, 1)
        eventually(lambda: sample(outward, "ovoad_outward_retried_total", to="mqtt") >= 1)
    assert time.monotonic() - began_s < 3.0


def test_names_in_topics_differ_as_texts_do() -> None:
    texts = ["a dog", "a_dog", "A dog", "a+dog", "a/dog/#", "ein Hund", "狗", "犬", "", "x" * 300]
    names = [topic_name(text) for text in texts]
    assert len(set(names)) == len(texts)
    assert names[1] == "a_dog"
    for name in names[:-2]:
        assert name.replace("_", "").isalnum()
        assert name.isascii()
        assert len(name) <= 80
