"""compose.yaml: what it starts, and that nothing of it reaches further than it must."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

from ovoad_server.settings import Settings

ROOT: Final = Path(__file__).parents[2]
PROFILES: Final = ("cpu", "cuda", "tls", "tls-cuda")
SERVERS: Final = {
    "cpu": "server",
    "cuda": "server-cuda",
    "tls": "server-tls",
    "tls-cuda": "server-tls-cuda",
}
ONCE: Final = ("first-key", "keys")  # services that end by themselves
Service = dict[str, Any]

compose: Final[dict[str, Any]] = import_module("yaml").safe_load(  # carries no types
    (ROOT / "compose.yaml").read_text()
)
services: Final[dict[str, Service]] = compose["services"]
each_service: Final = pytest.mark.parametrize("name", services)


def started_by(profile: str) -> set[str]:
    return {
        name for name, service in services.items() if profile in service.get("profiles", [profile])
    }


def mounts(service: Service) -> Iterator[tuple[str, str, str]]:
    """Yield source, target and mode of each volume."""
    for volume in service.get("volumes", []):
        source, target, *mode = volume.split(":")
        yield source, target, mode[0] if mode else "rw"


def seconds(text: str) -> int:
    match = re.fullmatch(r"(\d+)s", text)
    assert match, text
    return int(match[1])


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_has_one_server_under_one_name(profile: str) -> None:
    found = [name for name in started_by(profile) if name.startswith("server")]

    assert found == [SERVERS[profile]]
    for network in ("serving", "monitoring"):
        assert services[found[0]]["networks"][network]["aliases"] == ["server"]
    assert {"first-key", "prometheus", "grafana"} <= started_by(profile)
    assert ("proxy" in started_by(profile)) == profile.startswith("tls")


def test_without_a_profile_the_server_for_the_cpu_is_started() -> None:
    assert "COMPOSE_PROFILES=cpu" in (ROOT / ".env").read_text().splitlines()


@each_service
def test_no_service_can_write_to_its_image_or_gain_privileges(name: str) -> None:
    service = services[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "proxy" else [])
    for forbidden in ("privileged", "pid", "ipc", "devices", "userns_mode"):
        assert forbidden not in service
    assert service.get("network_mode", "none") == "none"


@each_service
def test_what_runs_on_is_bounded_and_started_again(name: str) -> None:
    if name in ONCE:
        pytest.skip("it ends by itself")

    service = services[name]
    assert service["restart"] == "unless-stopped"
    assert service["pids_limit"] <= 512
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}


@each_service
def test_ports_are_published_on_loopback_alone(name: str) -> None:
    ports = services[name].get("ports", [])

    if name == "proxy":
        assert ports == ["80:80", "443:443"]
    else:
        assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("profile", ["tls", "tls-cuda"])
def test_behind_the_proxy_the_server_is_not_published(profile: str) -> None:
    server = services[SERVERS[profile]]

    assert "ports" not in server
    assert server["environment"]["FORWARDED_ALLOW_IPS"] == "*"
    assert services["proxy"]["networks"] == ["serving"]
    assert "FORWARDED_ALLOW_IPS" not in services["server"]["environment"]


@each_service
def test_images_have_exact_versions(name: str) -> None:
    service = services[name]
    image, _, tag = service["image"].partition(":")

    if image == "ovoad":
        assert service["build"] == {
            "context": ".",
            "dockerfile": "docker/Dockerfile",
            "target": tag,
            "args": {"VERSION": "${VERSION:-0.0}"},
        }
    else:
        assert re.match(r"v?\d+\.\d+\.\d+", tag)


@each_service
def test_what_is_mounted_exists(name: str) -> None:
    for source, _, mode in mounts(services[name]):
        if source.startswith("."):
            assert (ROOT / source).exists()
            assert mode == "ro"
        else:
            assert source in compose["volumes"]


def test_every_volume_is_mounted_somewhere() -> None:
    used = {source for service in services.values() for source, _, _ in mounts(service)}

    assert set(compose["volumes"]) <= used


@each_service
def test_every_setting_is_one_of_the_server(name: str) -> None:
    environment = services[name].get("environment", {})
    ours = {each for each in environment if each.startswith("OVOAD_")}

    assert ours <= {f"OVOAD_{field.upper()}" for field in Settings.model_fields}


@pytest.mark.parametrize("name", SERVERS.values())
def test_no_server_lets_anyone_in(name: str) -> None:
    environment = services[name]["environment"]

    assert "OVOAD_ALLOW_ANONYMOUS" not in environment
    assert "OVOAD_API_KEY" not in environment  # a value here could be read by `docker inspect`
    folder = str(Path(environment["OVOAD_KEYS_FILE"]).parent)
    assert ("keys", folder, "ro") in mounts(services[name])
    assert services[name]["depends_on"] == {
        "first-key": {"condition": "service_completed_successfully"}
    }


@pytest.mark.parametrize("name", SERVERS.values())
def test_a_server_may_finish_what_it_has_begun(name: str) -> None:
    drain_s = Settings.model_fields["drain_s"].default
    requests_s = 10  # uvicorn's grace for requests under way, in listener.py

    assert seconds(services[name]["stop_grace_period"]) > drain_s + requests_s


def test_prometheus_finds_its_key_and_its_rules() -> None:
    scraping = (ROOT / "docker" / "prometheus" / "prometheus.yml").read_text()
    keys = [Path(each) for each in re.findall(r"credentials_file: (\S+)", scraping)]
    mounted = {target: source for source, target, _ in mounts(services["prometheus"])}
    made = Path(services["first-key"]["environment"]["METRICS_KEY_FILE"])

    assert {mounted[str(key.parent)] for key in keys} == {"metrics-key"}
    assert {key.name for key in keys} == {made.name}
    assert ("metrics-key", str(made.parent), "rw") in mounts(services["first-key"])
    assert "server:8000" in scraping
    assert mounted["/etc/prometheus"] == "./docker/prometheus"


def test_prometheus_may_read_its_key() -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()

    assert services["prometheus"]["group_add"] == ["10001"]
    assert "groupadd --gid 10001 ovoad" in dockerfile


def test_grafana_has_no_password_to_guess() -> None:
    settings = services["grafana"]["environment"]

    assert settings["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert settings["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert settings["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_the_health_check_is_the_one_of_the_image() -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    command = re.search(r"HEALTHCHECK [^[]*CMD (\[.*\])", dockerfile)
    assert command

    for name in SERVERS.values():
        check = services[name]["healthcheck"]
        assert check["test"] == ["CMD", *json.loads(command[1])]
        assert seconds(check["timeout"]) > 8  # the probe's own limit


def test_the_schema_of_the_compose_specification_holds() -> None:
    schema = find_schema()
    if schema is None:
        pytest.skip("no schema: neither docker-compose's nor node_modules has one")

    import_module("jsonschema_rs").validate(json.loads(schema.read_text()), compose)


def find_schema() -> Path | None:
    places = (
        ROOT / "node_modules" / "dclint" / "schemas" / "compose.schema.json",
        Path("/usr/lib/python3/dist-packages/compose/config/compose_spec.json"),
    )
    return next((place for place in places if place.exists()), None)


@pytest.mark.parametrize("profile", PROFILES)
def test_docker_compose_reads_it(profile: str) -> None:
    read = configuration("--profile", profile)

    assert started_by(profile) <= set(read["services"])


def test_keys_may_come_from_secrets() -> None:
    read = configuration("--file", "docker/compose.secrets.yaml")
    script = (ROOT / "docker" / "first_key.sh").read_text()

    names = [secret["source"] for secret in read["services"]["first-key"]["secrets"]]
    assert sorted(names) == ["ovoad_api_key", "ovoad_keys"]
    assert all(f"/{name}" in script for name in names)
    assert Path(read["secrets"]["ovoad_keys"]["file"]) == ROOT / "secrets" / "keys.json"


def configuration(*arguments: str) -> dict[str, Any]:
    """Return compose.yaml as docker-compose understands it."""
    command = shutil.which("docker-compose")
    if command is None:
        pytest.skip("docker-compose is not installed")
    done = subprocess.run(
        [command, "--file", "compose.yaml", *arguments, "config"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = import_module("yaml").safe_load(done.stdout)
    return read
