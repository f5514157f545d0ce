"""Topics and messages as Home Assistant's MQTT integration expects them. Sends nothing.

https://www.home-assistant.io/integrations/mqtt: one device, one binary sensor a label.
"""

import hashlib
import json
import re
from dataclasses import dataclass

ONLINE, OFFLINE = "online", "offline"
ON, OFF = "ON", "OFF"


def topic_name(text: str) -> str:
    """Return a name that any topic can carry, different for different texts.

    Lower-case letters, digits and underscores stay; where that loses something, eight digits of
    the text's SHA-256 tell it from others.
    """
    slug = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:64]
    if slug == text:
        return slug
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{slug}_{digest}" if slug else digest


@dataclass(frozen=True)
class Device:
    """The server as a device of its own; `prefix` is Home Assistant's discovery prefix."""

    name: str
    prefix: str
    encoder: str

    @property
    def node(self) -> str:
        """The device's part of topics and identifiers."""
        return topic_name(self.name)

    @property
    def availability_topic(self) -> str:
        """Retained: online or offline."""
        return f"ovoad/{self.node}/availability"

    @property
    def event_topic(self) -> str:
        """Every event as JSON, not retained."""
        return f"ovoad/{self.node}/event"

    def state_topic(self, label: str) -> str:
        """Retained: ON while the action goes on in any session, else OFF."""
        return f"ovoad/{self.node}/label/{topic_name(label)}/state"

    def attributes_topic(self, label: str) -> str:
        """Retained: the label's last event as JSON."""
        return f"ovoad/{self.node}/label/{topic_name(label)}/attributes"

    def discovery_topic(self, label: str) -> str:
        """Retained: what makes Home Assistant show a sensor."""
        return f"{self.prefix}/binary_sensor/ovoad_{self.node}/{topic_name(label)}/config"

    def discovery(self, label: str) -> str:
        """Return the message that describes a label's sensor."""
        return json.dumps(
            {
                "name": label,
                "unique_id": f"ovoad_{self.node}_{topic_name(label)}",
                "state_topic": self.state_topic(label),
                "payload_on": ON,
                "payload_off": OFF,
                "json_attributes_topic": self.attributes_topic(label),
                "availability_topic": self.availability_topic,
                "payload_available": ONLINE,
                "payload_not_available": OFFLINE,
                "qos": 1,
                "icon": "mdi:motion-sensor",
                "device": {
                    "identifiers": [f"ovoad_{self.node}"],
                    "name": self.name,
                    "manufacturer": "ovoad",
                    "model": self.encoder,
                },
                "origin": {"name": "ovoad"},
            }
        )
