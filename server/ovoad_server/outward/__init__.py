"""Events outward: starts and ends of actions to a webhook and to MQTT, by a queue on disk."""
