"""The files in docker/ray say what the code takes, and Ray Serve's own schema agrees."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from ovoad_server.on_ray.scale import Scale
from ovoad_server.settings import Settings

yaml: Any = pytest.importorskip("yaml", reason="PyYAML is not installed")
FOLDER = Path(__file__).parents[2] / "docker" / "ray"
IMPORT_PATH = "ovoad_server.on_ray.application:build"


def configs() -> list[Any]:
    service, _ = yaml.safe_load_all((FOLDER / "rayservice.yaml").read_text())
    return [
        yaml.safe_load((FOLDER / "serve_config.yaml").read_text()),
        yaml.safe_load(service["spec"]["serveConfigV2"]),
    ]


@pytest.mark.parametrize("number", [0, 1])
def test_both_name_the_application_and_only_arguments_that_it_takes(number: int) -> None:
    (application,) = configs()[number]["applications"]
    assert application["import_path"] == IMPORT_PATH
    scale = Scale(**application["args"])
    assert scale.most_ingress is not None
    assert scale.most_encoders is not None


def test_variables_are_settings_that_exist() -> None:
    (application,) = configs()[0]["applications"]
    names = application["runtime_env"]["env_vars"]
    ours = {name.removeprefix("OVOAD_").lower() for name in names if name.startswith("OVOAD_")}
    assert ours <= set(Settings.model_fields)
    assert "api_key" not in ours, "Ray shows this file's variables"


def test_pods_offer_what_the_replicas_take() -> None:
    service, front = yaml.safe_load_all((FOLDER / "rayservice.yaml").read_text())
    scale = Scale(**configs()[1]["applications"][0]["args"])
    ingress, encoder = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert f'"{scale.ingress_resource}\\": 1' in ingress["rayStartParams"]["resources"]
    assert ingress["maxReplicas"] == scale.most_ingress
    assert encoder["maxReplicas"] == scale.most_encoders
    for group, cores in ((ingress, scale.ingress_cpus), (encoder, scale.encoder_cpus)):
        (container,) = group["template"]["spec"]["containers"]
        assert float(container["resources"]["limits"]["cpu"]) == cores
    assert front["spec"]["selector"] == ingress["template"]["metadata"]["labels"]


@pytest.mark.parametrize("number", [0, 1])
def test_ray_serve_takes_them(number: int) -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="ray is not installed")
    schema.ServeDeploySchema.model_validate(configs()[number])


def test_the_application_is_there() -> None:
    pytest.importorskip("ray.serve", reason="ray is not installed")
    module, _, name = IMPORT_PATH.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
