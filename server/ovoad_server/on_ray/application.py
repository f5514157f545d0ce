"""The application that Ray Serve runs: `ovoad_server.on_ray.application:build`.

Two deployments. The ingress replicas hold the sessions and listen themselves (docs/scaling.md says
why not behind Serve's proxy); the encoder replicas work for all of them.
"""

from typing import Final

from ray import serve

from ovoad_server.on_ray.encoder import EncoderReplica
from ovoad_server.on_ray.ingress import IngressReplica
from ovoad_server.on_ray.scale import Scale
from ovoad_server.settings import Settings

HEALTH_EVERY_S: Final = 10.0
HEALTH_TIMEOUT_S: Final = 30.0
MOST_CALLS: Final = 1024  # at one replica at once; engines bound what they send far below
SPARE_S: Final = 10.0  # to end in, beyond what draining may take
QUIET_LOGS: Final = {"log_level": "WARNING", "enable_access_log": False}


def build(args: Scale) -> serve.Application:
    """Return the application; `args` are those of the Serve config file."""
    encoder = serve.deployment(
        name="encoder",
        max_ongoing_requests=MOST_CALLS,
        ray_actor_options=args.encoder_options,
        health_check_period_s=HEALTH_EVERY_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        logging_config=QUIET_LOGS,
        **args.encoder_replicas(),
    )(EncoderReplica).bind(cores=args.encoder_cores)
    ingress = serve.deployment(
        name="ingress",
        ray_actor_options=args.ingress_options,
        health_check_period_s=HEALTH_EVERY_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=Settings().drain_s + SPARE_S,
        logging_config=QUIET_LOGS,
        **args.ingress_replicas(),
    )(IngressReplica).bind(encoder, most_encoders=args.most_encoders or args.encoders)
    return ingress
