"""docker/Dockerfile and the scripts that it copies: pinned, not root, and what a build sees."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from ovoad_server.settings import Settings

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "docker"


@dataclass(frozen=True)
class Stage:
    """One FROM and what follows it: instructions and their arguments."""

    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [arguments for name, arguments in self.steps if name == instruction]


def read_stages() -> dict[str, Stage]:
    """Return the stages by name; the last one, which has none, as ""."""
    text = (FOLDER / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found: dict[str, Stage] = {}
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            base, _, stage_name = rest.partition(" AS ")
            stage = found[stage_name] = Stage(base)
        elif name and found:
            stage.steps.append((name, " ".join(rest.split())))
    return found


def environment(stage: Stage) -> dict[str, str]:
    pairs = " ".join(stage.all("ENV")).split()
    return dict(pair.split("=", 1) for pair in pairs)


stages: Final = read_stages()
every_step: Final = [step for stage in stages.values() for step in stage.steps]


def test_the_base_has_an_exact_version() -> None:
    base = re.search(r"^ARG BASE=(\S+)$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)

    assert base
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm(@sha256:[0-9a-f]{64})?", base[1])
    for stage in stages.values():
        assert stage.base == "${BASE}" or stage.base in stages


def test_the_default_is_the_image_for_the_cpu() -> None:
    assert list(stages)[-1] == ""
    assert stages[""] == Stage("cpu")


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_an_image_runs_as_a_fixed_user_that_is_not_root(target: str) -> None:
    assert stages[target].steps[-1] == ("USER", "10001:10001")
    assert stages[target].base == "runtime"


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_of_the_build_an_image_has_the_environment_alone(target: str) -> None:
    assert stages[target].all("COPY") == [f"--from={target}-packages /opt/ovoad /opt/ovoad"]
    assert not any("pip" in step for step in stages[target].all("RUN"))
    assert "--without-pip /opt/ovoad" in stages["tools"].all("RUN")[0]


def test_nothing_is_fetched_but_packages() -> None:
    for name, arguments in every_step:
        assert name != "ADD"
        assert not re.search(r"\b(curl|wget|git)\b|https?://", arguments)
        assert not re.search(r"\b(apt|apt-get)\b", arguments)


def test_packages_are_pinned_and_none_is_built() -> None:
    installs = [
        command
        for name, arguments in every_step
        if name == "RUN"
        for command in arguments.split("&&")
        if re.search(r"\bpip\b.* install ", command)
    ]

    assert len(installs) == 5
    for command in installs:
        pinned = "--require-hashes -r " in command or "-c constraints.txt" in command
        assert ("--only-binary=:all:" in command and pinned) or "--no-index" in command


def test_what_is_copied_exists_and_passes_the_ignore_file() -> None:
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    sources = [
        source
        for name, arguments in every_step
        if name == "COPY" and not arguments.startswith("--from")
        for source in arguments.split()[:-1]
        if source != "."
    ]

    assert allowed[1] == "*"  # all that is not named stays out: .git, keys, videos
    assert len(sources) >= 5
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in allowed
    for line in allowed:
        assert not line.startswith("!") or (ROOT / line[1:]).exists()


def test_what_the_server_writes_lies_in_the_declared_volume() -> None:
    runtime = stages["runtime"]
    settings = environment(runtime)
    volume = runtime.all("VOLUME")[0]

    assert f"0750 -o 10001 -g 10001 {volume} " in runtime.all("RUN")[0]
    for name in ("OVOAD_CACHE", "OVOAD_EVENTS_FOLDER", "HF_HOME", "HOME"):
        assert Path(settings[name]).is_relative_to(volume)


def test_libraries_report_to_nobody() -> None:
    settings = environment(stages["runtime"])

    assert settings["ORT_DISABLE_TELEMETRY"] == "1"
    assert settings["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_every_setting_is_one_of_the_server() -> None:
    names = {name for stage in stages.values() for name in environment(stage)}
    ours = {name for name in names if name.startswith("OVOAD_")}

    assert ours
    assert ours <= {f"OVOAD_{each.upper()}" for each in Settings.model_fields}


def test_commands_need_no_shell() -> None:
    runtime = stages["runtime"]
    health = runtime.all("HEALTHCHECK")[0].partition(" CMD ")[2]

    assert json.loads(runtime.all("ENTRYPOINT")[0]) == ["ovoad"]
    assert json.loads(runtime.all("CMD")[0]) == ["serve"]
    assert json.loads(health) == ["python", "-I", "/opt/probe.py"]


def requirements(*arguments: str) -> list[str]:
    script = [sys.executable, str(FOLDER / "requirements.py"), "--root", str(ROOT)]
    done = subprocess.run(
        [*script, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.splitlines()


def test_images_take_opencv_without_windows_at_the_pinned_version() -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    (opencv,) = (pin.partition("==")[2] for pin in pins if pin.startswith("opencv-python=="))

    found = requirements("server")

    assert [each for each in found if "opencv" in each] == [f"opencv-python-headless=={opencv}"]
    assert any(each.startswith("onnxruntime>=") for each in found)
    assert not any("torch" in each for each in found)


def test_the_image_for_gpus_takes_their_onnxruntime_alone() -> None:
    found = requirements("--gpu", "model")

    runtimes = [each for each in found if each.startswith("onnxruntime")]
    assert len(runtimes) == 1
    assert re.fullmatch(r"onnxruntime-gpu\[cuda,cudnn\]==\d+\.\d+\.\d+", runtimes[0])
    assert any(each.startswith("torch>=") for each in found)
    assert any(each.startswith("fastapi") for each in found)  # of extra `server`, which it names
    assert not any(each.startswith("ovoad") for each in found)


@contextmanager
def answering(status: int) -> Iterator[int]:
    """Answer every GET with this status; yields the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()
            self.wfile.write(b"the reason")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def probe(port: int) -> "subprocess.CompletedProcess[str]":
    variables = os.environ | {"OVOAD_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    script = [sys.executable, "-I", str(FOLDER / "probe.py")]
    return subprocess.run(script, env=variables, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1), (404, 1)])
def test_the_probe_tells_what_the_server_says_of_itself(status: int, expected: int) -> None:
    with answering(status) as port:
        done = probe(port)

    assert done.returncode == expected
    assert done.stdout == "the reason\n"


def test_the_probe_is_red_where_nobody_answers() -> None:
    with answering(200) as port:
        pass

    done = probe(port)

    assert done.returncode == 1
    assert done.stdout.startswith(f"no answer from 127.0.0.1:{port}: ")
