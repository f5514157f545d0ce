"""Joins queue, recorder and couriers as the settings want it, and ends them in order."""

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ovoad_server.engine.events import ActionEvent
from ovoad_server.outward.addresses import secret_bytes
from ovoad_server.outward.counts import Counts, OutwardCollector
from ovoad_server.outward.courier import BackOff, Courier, Sink
from ovoad_server.outward.errors import OutwardError
from ovoad_server.outward.home_assistant import Device
from ovoad_server.outward.mqtt import Access, MqttSink
from ovoad_server.outward.recorder import Recorder
from ovoad_server.outward.store import Bounds, Store
from ovoad_server.outward.webhook import Webhook
from ovoad_server.settings import Settings

log = logging.getLogger(__name__)

LAST_WRITE_S: Final = 2.0
LAST_DELIVERY_S: Final = 2.0

MakeSink = Callable[[Store, threading.Event], Sink]


class Outward:
    """Hears of labels and events on the event loop; everything else happens in threads."""

    def __init__(
        self, store: Store, sinks: Sequence[tuple[str, MakeSink]], *, back_off: BackOff
    ) -> None:
        """Take the queue and what makes each sink of it; ends what went on before."""
        self._store = store
        counts = Counts()
        ended = store.end_all()
        counts.queued += ended
        wakes = {name: threading.Event() for name, _ in sinks}
        made = [make(store, wakes[name]) for name, make in sinks]
        self._couriers = [
            Courier(sink, store, counts, wake=wakes[sink.name], back_off=back_off) for sink in made
        ]
        self._recorder = Recorder(store, [name for name, _ in sinks], counts, self._wake)
        self.collector = OutwardCollector(
            counts,
            {
                sink.name: courier.backlog
                for sink, courier in zip(made, self._couriers, strict=True)
            },
        )
        for sink in made:
            waiting = store.waiting(sink.name)
            log.info("events go to the %s %s; %d wait", sink.name, sink.place, waiting)

    def take_labels(self, labels: Sequence[str]) -> None:
        """Hear of a session's words; returns at once."""
        self._recorder.take_labels(labels)

    def take_event(self, session_id: str, event: ActionEvent) -> None:
        """Hear that an action began or ended; returns at once."""
        self._recorder.take_event(session_id, event)

    def close(self) -> None:
        """Write what was heard, deliver what can be delivered soon; the rest stays on disk."""
        self._recorder.close(LAST_WRITE_S)
        for courier in self._couriers:
            courier.finish()
        for courier in self._couriers:
            courier.join(LAST_DELIVERY_S)
        self._store.close()

    def _wake(self) -> None:
        for courier in self._couriers:
            courier.wake()


@contextlib.contextmanager
def open_outward(settings: Settings) -> Iterator[Outward | None]:
    """Send events outward while the block runs; None where the settings name no place for them.

    Raises OutwardError and OSError.
    """
    sinks = _sinks(settings)
    if not sinks:
        yield None
        return
    try:
        outward = _open(settings, sinks)
    except sqlite3.Error as error:
        raise OutwardError(
            f"cannot open the queue of events in {settings.events_folder}: {error}"
        ) from error
    try:
        yield outward
    finally:
        outward.close()


def _open(settings: Settings, sinks: Sequence[tuple[str, MakeSink]]) -> Outward:
    bounds = Bounds(settings.events_max_count, settings.events_max_bytes)
    store = Store(settings.events_folder, [name for name, _ in sinks], bounds)
    try:
        return Outward(store, sinks, back_off=BackOff())
    except BaseException:
        store.close()
        raise


def _sinks(settings: Settings) -> list[tuple[str, MakeSink]]:
    sinks: list[tuple[str, MakeSink]] = []
    if settings.webhook_url is not None:
        url, secret = settings.webhook_url.get_secret_value(), settings.webhook_secret
        key = None if secret is None else secret_bytes(secret.get_secret_value())
        sinks.append((Webhook.name, lambda store, wake: Webhook(url, key)))
    if settings.mqtt_url is not None:
        password = settings.mqtt_password
        access = Access(
            settings.mqtt_url,
            settings.mqtt_username,
            None if password is None else password.get_secret_value(),
        )
        device = Device(settings.mqtt_device, settings.mqtt_discovery, settings.encoder)
        sinks.append(
            (MqttSink.name, lambda store, wake: MqttSink(access, device, store, wake=wake))
        )
    return sinks
