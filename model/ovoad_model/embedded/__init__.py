"""The encoder that ships with the package: EfficientNet-Lite2 and MiniLM, joined untrained."""

from ovoad_model.embedded.encoder import EmbeddedEncoder

__all__ = ["EmbeddedEncoder"]
