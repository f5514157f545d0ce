"""What keeps events from going outward at all; told at the server's start."""


class OutwardError(Exception):
    """Events cannot go outward as the settings want it."""


class MissingMqttError(OutwardError):
    """MQTT is asked for and its library is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "OVOAD_MQTT_URL is set and paho-mqtt is not installed, expected the extra: "
            "pip install 'ovoad[mqtt]'"
        )
