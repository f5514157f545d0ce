"""MQTT: each event to a topic, each label a sensor that Home Assistant finds by itself.

The one file that knows paho-mqtt, which is an extra. MQTT 3.1.1, QoS 1: a message counts as sent
when the broker has acknowledged it.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ovoad_server.outward.courier import Delivered, NotNow, Outcome
from ovoad_server.outward.errors import MissingMqttError
from ovoad_server.outward.home_assistant import OFF, OFFLINE, ON, ONLINE, Device
from ovoad_server.outward.message import ActionMessage
from ovoad_server.outward.reason import reason
from ovoad_server.outward.store import QueuedEvent, Store

if TYPE_CHECKING:
    from paho.mqtt.client import Client

TIMEOUT_S: Final = 10.0  # to connect, and for the broker's acknowledgement
KEEPALIVE_S: Final = 30
GOODBYE_TIMEOUT_S: Final = 1.0
PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True)
class Publication:
    """One message to the broker."""

    topic: str
    payload: str | bytes
    retain: bool


@dataclass(frozen=True)
class Access:
    """Where the broker is and who we are to it; `url` is mqtt:// or mqtts://, checked."""

    url: str
    username: str | None = None
    password: str | None = None


class NotConnectedError(Exception):
    """The broker is not there, does not let us in, or does not answer; says which."""


class MqttSink:
    """Publishes events, and keeps sensors and availability at the broker as they should be.

    A connection that fails is thrown away with all that its client remembers: what the broker did
    not acknowledge is in the queue. It is cut without goodbye, so that the broker tells the last
    will; `close` alone says goodbye, once the broker has the word that we are gone.
    """

    name = "mqtt"

    def __init__(
        self,
        access: Access,
        device: Device,
        store: Store,
        *,
        wake: threading.Event,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Take the parts; `wake` is set when the connection is lost. Raises MissingMqttError."""
        try:
            import paho.mqtt.client  # noqa: F401
        except ImportError as error:
            raise MissingMqttError from error
        parts = urlsplit(access.url)
        assert parts.hostname is not None, "settings check the address"
        self.place = access.url
        self._host = parts.hostname
        self._port = parts.port or PORTS[parts.scheme]
        self._encrypted = parts.scheme == "mqtts"
        self._access = access
        self._device = device
        self._store = store
        self._wake = wake
        self._timeout_s = timeout_s
        self._client: Client | None = None
        self._answered = threading.Event()  # the broker has said whether it lets us in
        self._lost = threading.Event()
        self._welcome = ""
        self._announced: set[str] = set()  # labels, over this connection
        self._states: dict[str, bool] = {}  # as published over this connection

    def send(self, event: QueuedEvent) -> Outcome:
        """Publish an event, and the state of its label's sensor."""
        message = ActionMessage.model_validate_json(event.body)
        label, active = message.data.label, message.data.active_sessions > 0
        try:
            self._connect()
            self._announce([label])
            publications = [Publication(self._device.event_topic, event.body, retain=False)]
            if label in self._announced:
                attributes = message.data.model_dump_json()
                publications += [
                    Publication(self._device.attributes_topic(label), attributes, retain=True),
                    self._state(label, active=active),
                ]
            self._publish(publications)
        except NotConnectedError as error:
            self._drop()
            return NotNow(str(error))
        self._states[label] = active
        return Delivered()

    def rest(self) -> Outcome:
        """Be connected, and put right what differs: new labels, old ones, states after drops."""
        try:
            self._connect()
            self._announce(self._store.sensors())
            self._withdraw(self._store.stale_sensors())
            active = self._store.active_labels(self.name)
            if active is None:  # events have come meanwhile, and go first
                return Delivered()
            wrong = [
                label for label in self._announced if self._states.get(label) != (label in active)
            ]
            self._publish([self._state(label, active=label in active) for label in wrong])
            self._states.update((label, label in active) for label in wrong)
        except NotConnectedError as error:
            self._drop()
            return NotNow(str(error))
        return Delivered()

    def abort(self) -> None:
        """Let a wait for the broker end."""
        self._lost.set()
        self._answered.set()

    def close(self) -> None:
        """Tell the broker that the server is gone, and leave."""
        if self._client is not None and not self._lost.is_set():
            with contextlib.suppress(NotConnectedError):
                offline = Publication(self._device.availability_topic, OFFLINE, retain=True)
                self._publish([offline], timeout_s=GOODBYE_TIMEOUT_S)
                self._client.disconnect()
                self._client.loop_stop()  # ends once that is sent
        self._drop()

    # ---- sensors --------------------------------------------------------------------------------

    def _announce(self, labels: Sequence[str]) -> None:
        """Describe sensors that this connection has not described yet."""
        new = [label for label in labels if label not in self._announced]
        if not new:
            return
        known = set(self._store.sensors())
        new = [label for label in new if label in known]
        device = self._device
        self._publish(
            [
                Publication(device.discovery_topic(label), device.discovery(label), retain=True)
                for label in new
            ]
        )
        self._announced.update(new)

    def _withdraw(self, labels: Sequence[str]) -> None:
        """Take sensors away: an empty retained message deletes what the broker keeps."""
        device = self._device
        for label in labels:
            topics = (
                device.discovery_topic(label),
                device.state_topic(label),
                device.attributes_topic(label),
            )
            self._publish([Publication(topic, b"", retain=True) for topic in topics])
            self._store.forget_sensor(label)
            self._announced.discard(label)
            self._states.pop(label, None)

    def _state(self, label: str, *, active: bool) -> Publication:
        return Publication(self._device.state_topic(label), ON if active else OFF, retain=True)

    # ---- the connection -------------------------------------------------------------------------

    def _connect(self) -> None:
        """Connect unless that holds; raises NotConnectedError."""
        if self._client is not None and not self._lost.is_set():
            return
        self._drop()
        self._client = client = self._make_client()
        try:
            client.connect(self._host, self._port, keepalive=KEEPALIVE_S)
        except (OSError, ValueError) as error:
            raise NotConnectedError(reason(error)) from error
        client.loop_start()
        if not self._answered.wait(self._timeout_s):
            raise NotConnectedError("the broker does not answer")
        if self._welcome != "Success":
            raise NotConnectedError(f"the broker says: {self._welcome or 'connection lost'}")
        self._publish([Publication(self._device.availability_topic, ONLINE, retain=True)])

    def _make_client(self) -> "Client":
        """Make a client; its fixed name makes the broker end what is left of an old connection."""
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"ovoad-{self._device.node}",
            reconnect_on_failure=False,
        )
        client.connect_timeout = self._timeout_s
        client.will_set(self._device.availability_topic, OFFLINE, qos=1, retain=True)
        if self._access.username is not None:
            client.username_pw_set(self._access.username, self._access.password)
        if self._encrypted:
            client.tls_set_context(ssl.create_default_context())
        self._answered, self._lost = answered, lost = threading.Event(), threading.Event()
        self._welcome = ""
        self._announced, self._states = set(), {}

        def on_connect(client: "Client", data: Any, flags: Any, code: Any, facts: Any) -> None:
            self._welcome = str(code)
            answered.set()

        def on_disconnect(client: "Client", data: Any, flags: Any, code: Any, facts: Any) -> None:
            lost.set()
            answered.set()
            self._wake.set()

        client.on_connect = on_connect
        client.on_disconnect = on_disconnect
        return client

    def _publish(
        self, publications: Sequence[Publication], *, timeout_s: float | None = None
    ) -> None:
        """Publish in order and wait until the broker has all; raises NotConnectedError."""
        assert self._client is not None
        deadline_s = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        under_way = [
            self._client.publish(each.topic, each.payload, qos=1, retain=each.retain)
            for each in publications
        ]
        for info in under_way:
            while not self._lost.is_set():
                with contextlib.suppress(ValueError, RuntimeError):  # lost: seen above
                    info.wait_for_publish(min(0.2, max(0.0, deadline_s - time.monotonic())))
                    if info.is_published():
                        break
                if time.monotonic() >= deadline_s:
                    raise NotConnectedError("the broker does not acknowledge")
            else:
                raise NotConnectedError("the connection was lost")

    def _drop(self) -> None:
        """Cut the connection, and forget what was under way over it."""
        client, self._client = self._client, None
        if client is None:
            return
        client.on_disconnect = None
        connection = client.socket()
        if isinstance(connection, socket.socket):
            with contextlib.suppress(OSError):  # it is cut already
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        client.loop_stop()
