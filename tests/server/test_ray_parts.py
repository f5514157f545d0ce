"""What replicas need besides the model: kept words, cores, ports, numbers of replicas."""

import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from ovoad_server.listener import open_listener
from ovoad_server.on_ray.command import OnRayError, serve_on_ray
from ovoad_server.on_ray.cores import seeing_only
from ovoad_server.on_ray.listening import PortError, open_listeners, own_settings
from ovoad_server.on_ray.scale import Scale, by_sessions
from ovoad_server.on_ray.words import WordsCache
from ovoad_server.settings import Settings

# ---- words ---------------------------------------------------------------------------------------


def vocabulary(*labels: str) -> SimpleNamespace:
    return SimpleNamespace(labels=labels, warnings=(), scorer="average")


def test_words_used_last_stay_and_one_vocabulary_always_does() -> None:
    cache = WordsCache(100)
    for key in "abc":
        cache.put(key, vocabulary(key), 40)
        assert cache.get("a") is not None, "used again and again"
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]
    cache.put("large", vocabulary("large"), 1000)
    assert (len(cache), cache.get("large") is not None) == (1, True)


def test_words_put_twice_count_once() -> None:
    cache = WordsCache(100)
    for _ in range(9):
        cache.put("a", vocabulary("a"), 40)
    cache.put("b", vocabulary("b"), 40)
    assert len(cache) == 2


# ---- cores ---------------------------------------------------------------------------------------


def test_replica_sees_its_cores_while_it_is_built_and_runs_on_all_afterwards() -> None:
    before = os.sched_getaffinity(0)
    with seeing_only(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before
    with seeing_only(None):
        assert os.sched_getaffinity(0) == before


# ---- ports ---------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_replicas_of_a_machine_share_a_port_and_have_one_each() -> None:
    settings = Settings(port=free_port())
    with open_listeners(settings) as (first, own), open_listeners(settings) as (second, other):
        first.listen()
        second.listen()
        ports = [each.getsockname()[1] for each in (first, second, own, other)]
        assert ports[0] == ports[1] == settings.port
        assert settings.port < ports[2] < ports[3]
        with pytest.raises(OSError, match="cannot bind"):
            open_listener(settings)  # who shares nothing finds the port taken


def test_a_free_port_cannot_be_shared() -> None:
    with (
        pytest.raises(PortError, match=r"^found port 0, expected one that all replicas"),
        open_listeners(Settings(port=0)),
    ):
        pass


def test_what_two_replicas_must_not_share_is_named_by_the_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as own:
        port = own.getsockname()[1]
        found = own_settings(Settings(events_folder=tmp_path), own)
    assert found.events_folder == tmp_path / f"replica-{port}"
    assert found.mqtt_device == f"ovoad-{port}"


# ---- how many ------------------------------------------------------------------------------------


def test_replicas_are_as_many_as_said_or_scale_between_two_numbers() -> None:
    assert Scale(ingress=3).ingress_replicas() == {"num_replicas": 3}
    scaling = Scale(encoders=2, most_encoders=5, calls=3, upscale_delay_s=1).encoder_replicas()
    config = scaling["autoscaling_config"]
    assert (config["min_replicas"], config["max_replicas"]) == (2, 5)
    assert (config["target_ongoing_requests"], config["upscale_delay_s"]) == (3, 1)
    assert "policy" not in config
    policy = Scale(most_ingress=2).ingress_replicas()["autoscaling_config"]["policy"]
    assert policy == {"policy_function": "ovoad_server.on_ray.scale:by_sessions"}


def test_numbers_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVOAD_RAY_ENCODERS", "4")
    assert Scale().encoders == 4
    assert Scale.model_validate({"ingress": 2}).cpus_at_most == 2 + 4


def test_the_most_is_not_below_the_least() -> None:
    with pytest.raises(ValidationError, match="at most 1 encoder replicas, expected no fewer than"):
        Scale(encoders=2, most_encoders=1)


def test_encoder_on_a_gpu_sees_all_cores() -> None:
    assert Scale(encoder_cpus=1.5).encoder_cores == 2
    assert Scale(encoder_gpus=1).encoder_cores is None
    assert Scale(encoder_gpus=0.5).encoder_options == {"num_cpus": 1.0, "num_gpus": 0.5}


@pytest.mark.parametrize(
    ("sessions", "expected"),
    [({}, 3.0), ({"a": 0.0}, 0), ({"a": 10.0, "b": 7.0}, 2), ({"a": 10.0, "b": 11.0}, 3)],
)
def test_ingress_replicas_follow_the_open_sessions(
    sessions: dict[str, float], expected: float
) -> None:
    context = SimpleNamespace(
        aggregated_metrics={"sessions": sessions},
        target_num_replicas=3,
        config=SimpleNamespace(target_ongoing_requests=10.0),
    )
    assert by_sessions(context) == (expected, {})


def test_without_ray_the_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OnRayError, match=r"expected pip install 'ovoad\[scale\]'"):
        serve_on_ray(Settings())
