"""How many replicas there are, and of what size. Knows no Ray."""

import math
from typing import Annotated, Any, Final

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

METRICS_EVERY_S: Final = 2.0
LOOK_BACK_S: Final = 10.0


class Scale(BaseSettings):
    """Replicas, from the `args` of a Serve config file or from OVOAD_RAY_* in the environment.

    Where the most is above the least, Ray Serve scales between them: ingress replicas by the
    sessions that are open, encoder replicas by the calls that are under way or wait.
    """

    model_config = SettingsConfigDict(
        env_prefix="OVOAD_RAY_", env_ignore_empty=True, frozen=True, extra="forbid"
    )

    ingress: Annotated[int, Field(ge=1)] = Field(default=1, description="least ingress replicas")
    most_ingress: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="most ingress replicas; as many as the least by default"
    )
    sessions: Annotated[float, Field(gt=0)] = Field(
        default=32.0, description="open sessions that an ingress replica should have"
    )
    ingress_cpus: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="cores of an ingress replica, as Ray counts them"
    )
    ingress_resource: str | None = Field(
        default=None, description="resource of Ray's that an ingress replica takes one of"
    )
    encoders: Annotated[int, Field(ge=1)] = Field(default=1, description="least encoder replicas")
    most_encoders: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="most encoder replicas; as many as the least by default"
    )
    calls: Annotated[float, Field(gt=0)] = Field(
        default=2.0, description="calls under way or waiting that an encoder replica should have"
    )
    encoder_cpus: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="cores of an encoder replica, which it starts threads for"
    )
    encoder_gpus: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="GPUs of an encoder replica"
    )
    upscale_delay_s: Annotated[float, Field(ge=0)] = Field(
        default=10.0, description="seconds of more load before replicas are added"
    )
    downscale_delay_s: Annotated[float, Field(ge=0)] = Field(
        default=300.0, description="seconds of less load before replicas are taken away"
    )

    @model_validator(mode="after")
    def _the_most_is_not_below_the_least(self) -> "Scale":
        for least, most, what in (
            (self.ingress, self.most_ingress, "ingress"),
            (self.encoders, self.most_encoders, "encoder"),
        ):
            if most is not None and most < least:
                raise ValueError(
                    f"found at most {most} {what} replicas, expected no fewer than {least}"
                )
        return self

    @property
    def cpus_at_most(self) -> float:
        """Cores that all replicas take when there are the most of them."""
        return (self.most_ingress or self.ingress) * self.ingress_cpus + (
            self.most_encoders or self.encoders
        ) * self.encoder_cpus

    @property
    def encoder_cores(self) -> int | None:
        """Cores that an encoder replica takes for granted; None on a GPU: all that it sees."""
        return None if self.encoder_gpus else max(1, math.ceil(self.encoder_cpus))

    @property
    def ingress_options(self) -> dict[str, Any]:
        """What an ingress replica's process takes of its machine."""
        name = self.ingress_resource
        return {"num_cpus": self.ingress_cpus, "resources": {} if name is None else {name: 1}}

    @property
    def encoder_options(self) -> dict[str, Any]:
        """What an encoder replica's process takes of its machine."""
        return {"num_cpus": self.encoder_cpus, "num_gpus": self.encoder_gpus}

    def ingress_replicas(self) -> dict[str, Any]:
        """Return the options of the ingress deployment that say how many there are."""
        policy = {"policy_function": "ovoad_server.on_ray.scale:by_sessions"}
        return self._replicas(self.ingress, self.most_ingress, self.sessions, policy=policy)

    def encoder_replicas(self) -> dict[str, Any]:
        """Return the options of the encoder deployment that say how many there are."""
        return self._replicas(self.encoders, self.most_encoders, self.calls)

    def _replicas(
        self, least: int, most: int | None, target: float, **more: object
    ) -> dict[str, Any]:
        if most is None or most == least:
            return {"num_replicas": least}
        return {
            "autoscaling_config": {
                "min_replicas": least,
                "max_replicas": most,
                "target_ongoing_requests": target,
                "metrics_interval_s": METRICS_EVERY_S,
                "look_back_period_s": LOOK_BACK_S,
                "upscale_delay_s": self.upscale_delay_s,
                "downscale_delay_s": self.downscale_delay_s,
                **more,
            }
        }


def by_sessions(context: Any) -> tuple[float, dict[str, Any]]:
    """Return how many ingress replicas the open sessions want; Ray Serve asks regularly.

    `target_ongoing_requests` is the number of sessions that a replica should have. Without news
    from any replica it stays as it is.
    """
    counts = (context.aggregated_metrics or {}).get("sessions") or {}
    if not counts:
        return float(context.target_num_replicas), {}
    return math.ceil(sum(counts.values()) / context.config.target_ongoing_requests), {}
