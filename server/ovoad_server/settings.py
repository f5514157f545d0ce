"""Every setting of the server, from flags or OVOAD_* in the environment. Knows no parts."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, HttpUrl, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ovoad_server.auth import LOOPBACK
from ovoad_server.keys.secret import check_key, read_secret
from ovoad_server.logs import LogFormat
from ovoad_server.outward.addresses import check_mqtt_url, check_webhook_url, secret_bytes


def default_cache() -> Path:
    """Return the folder for caches: $XDG_CACHE_HOME/ovoad or ~/.cache/ovoad."""
    import os

    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ovoad"


def default_events_folder() -> Path:
    """Return the folder of events that wait: $XDG_STATE_HOME/ovoad or ~/.local/state/ovoad."""
    import os

    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "ovoad"


class Settings(BaseSettings):
    """Defaults with their units; a field `max_fps` is set by OVOAD_MAX_FPS."""

    model_config = SettingsConfigDict(
        env_prefix="OVOAD_",
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )

    host: str = Field(default="127.0.0.1", description="address to bind")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8000, description="0 takes a free one"
    )
    api_key: SecretStr | None = Field(default=None, description="clients send it as a bearer token")
    api_key_file: Path | None = Field(
        default=None, description="file that holds the key, in place of OVOAD_API_KEY"
    )
    keys_file: Path | None = Field(
        default=None, description="file of keys with names and limits (ovoad keys)"
    )
    allow_anonymous: bool = Field(default=False, description="bind beyond loopback without a key")
    allowed_origins: tuple[str, ...] = Field(
        default=(), description="origins of pages beside our own"
    )

    encoder: str = Field(default="embedded", description="name of the encoder")
    scorer: Literal["frame", "average", "cluster", "ovoad"] | None = Field(
        default=None, description="default scorer: ovoad where weights are given, else average"
    )
    weights: Path | None = Field(default=None, description="trained weights of scorer ovoad")
    runtime: str = Field(default="auto", description="what runs the encoder")
    cache: Path = Field(default_factory=default_cache, description="folder for caches")

    max_sessions: Annotated[int, Field(ge=1)] = 64
    max_frame_bytes: Annotated[int, Field(ge=1024)] = Field(default=4 * 2**20, description="bytes")
    max_pixels: Annotated[int, Field(ge=1)] = Field(
        default=4096 * 4096, description="width x height"
    )
    max_labels: Annotated[int, Field(ge=1)] = 1000
    max_inflight: Annotated[int, Field(ge=1)] = Field(default=16, description="frames, lossless")
    max_fps: Annotated[float, Field(gt=0)] = Field(
        default=60.0, description="frames/s of a session"
    )
    create_timeout_s: Annotated[float, Field(gt=0)] = Field(default=10.0, description="seconds")
    idle_timeout_s: Annotated[float, Field(gt=0)] = Field(default=60.0, description="seconds")
    send_timeout_s: Annotated[float, Field(gt=0)] = Field(default=20.0, description="seconds")
    resume_s: Annotated[float, Field(ge=0)] = Field(
        default=30.0, description="seconds that a session outlives its broken connection; 0: none"
    )
    drain_s: Annotated[float, Field(gt=0)] = Field(
        default=8.0, description="seconds from SIGTERM to the end; sessions go on for half of them"
    )
    worker_timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=20.0, description="seconds for one batch, beyond which the worker counts as hung"
    )
    promised_fps: Annotated[float, Field(ge=0)] = Field(
        default=4.0,
        description="frames/s that each session can count on: one that would break this for the "
        "others is refused; 0: no promise",
    )
    latency_budget_ms: Annotated[float, Field(gt=0)] = Field(
        default=500.0,
        description="milliseconds that a frame may take under load; bounds the batches",
    )
    log_format: LogFormat = Field(default="text", description="text or json, one object a line")
    traces: HttpUrl | None = Field(
        default=None, description="address of an OpenTelemetry collector (OTLP over HTTP)"
    )
    traces_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.01, description="share of the batches that are traced, 0 to 1"
    )
    max_session_s: Annotated[float, Field(gt=0)] = Field(default=24 * 3600.0, description="seconds")
    max_batch: Annotated[int, Field(ge=1)] = Field(default=16, description="frames")
    decode_threads: Annotated[int, Field(ge=1)] = 2

    max_clips: Annotated[int, Field(ge=1)] = Field(
        default=8, description="clips at once, those being uploaded too"
    )
    max_clip_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=2 * 2**30, description="bytes of a clip's file"
    )
    max_clip_s: Annotated[float, Field(gt=0)] = Field(
        default=6 * 3600.0, description="seconds of video"
    )
    max_clip_frames: Annotated[int, Field(ge=1)] = Field(
        default=1_000_000, description="frames in a clip's file, scored or not"
    )
    clip_spool: Path | None = Field(
        default=None, description="folder for clips in use: clips/ in that for caches"
    )
    clip_spool_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=8 * 2**30, description="bytes of all clips in use, and their answers"
    )

    webhook_url: SecretStr | None = Field(
        default=None, description="address that gets a POST for each event"
    )
    webhook_secret: SecretStr | None = Field(
        default=None, description="signs them: whsec_ and base64 of 24 to 64 random bytes"
    )
    mqtt_url: str | None = Field(
        default=None, description="broker that events go to: mqtt://host:1883, mqtts://host:8883"
    )
    mqtt_username: str | None = Field(default=None, description="user name at the broker")
    mqtt_password: SecretStr | None = Field(default=None, description="password at the broker")
    mqtt_device: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        default="ovoad", description="name of this server as a device; each server its own"
    )
    mqtt_discovery: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]+$")] = Field(
        default="homeassistant", description="Home Assistant's discovery prefix"
    )
    events_folder: Path = Field(
        default_factory=default_events_folder, description="folder of the queue of events"
    )
    events_max_count: Annotated[int, Field(ge=1)] = Field(
        default=100_000, description="events in the queue; beyond it the oldest are dropped"
    )
    events_max_bytes: Annotated[int, Field(ge=64 * 1024)] = Field(
        default=64 * 2**20, description="bytes of the queue; beyond it the oldest are dropped"
    )

    @field_validator("webhook_url")
    @classmethod
    def _the_webhook_can_be_reached(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            check_webhook_url(url.get_secret_value())
        return url

    @field_validator("webhook_secret")
    @classmethod
    def _the_secret_can_sign(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None:
            secret_bytes(secret.get_secret_value())
        return secret

    @field_validator("mqtt_url")
    @classmethod
    def _the_broker_can_be_reached(cls, url: str | None) -> str | None:
        if url is not None:
            check_mqtt_url(url)
        return url

    @model_validator(mode="before")
    @classmethod
    def _the_key_may_come_from_a_file(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("api_key_file") is None:
            return given
        if given.get("api_key") is not None:
            raise ValueError("found OVOAD_API_KEY and OVOAD_API_KEY_FILE, expected one of them")
        return {**given, "api_key": read_secret(Path(given["api_key_file"]))}

    @field_validator("api_key")
    @classmethod
    def _a_header_can_carry_the_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None:
            check_key(key.get_secret_value())
        return key

    @model_validator(mode="after")
    def _a_password_has_its_user(self) -> "Settings":
        if self.mqtt_password is not None and self.mqtt_username is None:
            raise ValueError(
                "found OVOAD_MQTT_PASSWORD alone, expected OVOAD_MQTT_USERNAME beside it"
            )
        return self

    @model_validator(mode="after")
    def _a_public_server_has_a_key(self) -> "Settings":
        guarded = self.api_key is not None or self.keys_file is not None
        if self.host not in LOOPBACK and not guarded and not self.allow_anonymous:
            raise ValueError(
                f"found host {self.host} without an API key, expected OVOAD_API_KEY or "
                "OVOAD_KEYS_FILE to be set (or OVOAD_ALLOW_ANONYMOUS=true to let anyone in)"
            )
        return self
