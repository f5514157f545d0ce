"""Checks of a server against wire contract v1: python -m ovoad_client.conformance URL."""
