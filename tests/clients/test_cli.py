"""Tests of the command `ovoad`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ovoad_client import cli

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Install:
    """Return a function that puts a module with a command in place."""

    def put(body: str, *, name: str = "dance", module: str = "dancing") -> None:
        (tmp_path / f"{module}.py").write_text(body)
        monkeypatch.syspath_prepend(str(tmp_path))
        entry = EntryPoint(name, f"{module}:main", cli.GROUP)
        monkeypatch.setattr(cli, "installed_commands", lambda: {name: entry})
        monkeypatch.delitem(sys.modules, module, raising=False)

    return put


def test_a_command_gets_its_arguments_and_gives_its_status(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("def main(argv):\n    print(argv)\n    return 7\n", module="dancing_well")
    assert cli.main(["dance", "--fast", "2"]) == 7
    assert capsys.readouterr().out == "['--fast', '2']\n"


def test_help_lists_the_installed_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in ("serve", "watch", "demo"):
        assert f"  {name:<9}" in text
        assert cli.SUMMARIES[name] in text


def test_no_command_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "usage: ovoad COMMAND" in capsys.readouterr().out


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ovoad ")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wacth", "ovoad: found unknown command 'wacth', did you mean watch?"),
        ("xyzzy", "ovoad: found unknown command 'xyzzy', expected one of serve, watch"),
    ],
)
def test_an_unknown_command_suggests_the_nearest(
    name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([name]) == 2
    assert capsys.readouterr().err.startswith(text)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("import surely_not_there", "needs the dev extra (found no module surely_not_there): pip"),
        (
            "raise ModuleNotFoundError(name='torch')",
            "needs the model extra (found no module torch): pip install 'ovoad[model]'",
        ),
        (
            "import ovoad_client.surely_not_there",
            "this installation has no module ovoad_client.surely_not_there",
        ),
    ],
)
def test_a_missing_module_names_the_extra(
    install: Install, module: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    install(f"{module}\ndef main(argv): return 0\n", module=f"dancing_{len(module)}")
    assert cli.main(["dance"]) == 1
    assert f"ovoad dance: {expected}" in capsys.readouterr().err


def test_serve_without_its_libraries_names_the_server_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "ovoad_server.__main__", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["serve"]) == 1
    expected = (
        "ovoad serve: needs the server extra (found no module uvicorn): pip install 'ovoad[server]'"
    )
    assert capsys.readouterr().err.strip() == expected


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("raise KeyboardInterrupt", 130, ""),
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit", 0, ""),
        (
            "from ovoad_client.errors import SourceError; raise SourceError('found x')",
            1,
            "ovoad dance: found x\n",
        ),
        (
            "from ovoad_client.errors import UsageError; raise UsageError('found y')",
            2,
            "ovoad dance: found y\n",
        ),
    ],
)
def test_ends_of_all_kinds_become_a_status(
    install: Install, body: str, status: int, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    install(f"def main(argv):\n    {body}\n", module=f"dancing_{abs(hash(body))}")
    assert cli.main(["dance"]) == status
    assert capsys.readouterr().err == error


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter."""
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_package_runs_as_the_command() -> None:
    done = run_python("-m", "ovoad_client", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ovoad ")


@pytest.mark.parametrize("module", ["client", "cli", "watch", "demo", "board", "timeline"])
def test_bare_install_is_enough_to_import(module: str) -> None:
    blocked: Sequence[str] = ("cv2", "numpy", "rich", "matplotlib", "torch", "fastapi", "uvicorn")
    block = f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))"
    done = run_python("-c", f"{block}; import ovoad_client.{module}")
    assert (done.returncode, done.stderr) == (0, "")


def test_reader_that_leaves_is_no_traceback() -> None:
    code = "import sys; from ovoad_client.cli import main; sys.exit(main(['--help']))"
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "{code}" | true'],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
