"""The version that a build gives itself: from a tag where there is one, and never a failure."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("hatch_vcs", reason="needs the dev extra")
if shutil.which("git") is None:
    pytest.skip("needs git", allow_module_level=True)

ROOT = Path(__file__).parents[2]
FILES = ("pyproject.toml", "README.md", "LICENSE", ".gitattributes", ".git_archival.txt")
NOBODY = 65534
Git = Callable[..., str]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a repository with the project's build files and one commit."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    commit(folder)
    return folder


def git(folder: Path, *arguments: str) -> str:
    """Run git without the user's own settings."""
    settings = ("user.name=x", "user.email=x@example.org", "commit.gpgsign=0", "tag.gpgsign=0")
    flags = [part for setting in settings for part in ("-c", setting)]
    return subprocess.run(
        ["git", *flags, *arguments], cwd=folder, capture_output=True, text=True, timeout=30,
        check=True,
    ).stdout  # fmt: skip


def commit(folder: Path) -> str:
    """Make a commit and return its name's first digits."""
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "something")
    return git(folder, "rev-parse", "HEAD")[:7]


def version(folder: Path, **variables: str) -> str:
    """Return the version that a build of the folder would have."""
    env = {key: value for key, value in os.environ.items() if "SETUPTOOLS_SCM" not in key}
    command = [sys.executable, "-m", "hatchling", "version"]
    done = subprocess.run(
        command, cwd=folder, env={**env, **variables}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_tag_is_the_version(clone: Path) -> None:
    git(clone, "tag", "v3.4.5")
    assert version(clone) == "3.4.5"


def test_a_commit_after_a_tag_leads_to_the_next_version(clone: Path) -> None:
    git(clone, "tag", "v3.4.5")
    assert re.fullmatch(rf"3\.4\.6\.dev1\+g{commit(clone)}\w*", version(clone))


def test_changed_files_are_told(clone: Path) -> None:
    git(clone, "tag", "v3.4.5")
    (clone / "README.md").write_text("changed")
    assert re.fullmatch(r"3\.4\.6\.dev0\+g\w+\.d\d{8}", version(clone))


def test_tags_of_other_things_are_no_versions(clone: Path) -> None:
    git(clone, "tag", "v3.4.5")
    commit(clone)
    for name in ("model-2", "before-2026-11-23", "v9-trial"):
        git(clone, "tag", name)
    assert version(clone).startswith("3.4.6.dev1+g")


def test_without_tags_commits_are_counted(clone: Path) -> None:
    last = commit(clone)
    assert re.fullmatch(rf"0\.1\.dev2\+g{last}\w*", version(clone))


@pytest.mark.filterwarnings("ignore:.*shallow")
def test_a_shallow_clone_without_tags_has_a_version(clone: Path, tmp_path: Path) -> None:
    commit(clone)
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth", "1", clone.as_uri(), str(shallow))
    assert version(shallow).startswith("0.1.dev1+g")


def test_without_git_there_is_a_fallback(clone: Path) -> None:
    shutil.rmtree(clone / ".git")
    assert version(clone) == "0.0"


def test_without_the_program_git_there_is_a_fallback(clone: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert version(clone, PATH=str(empty)) == "0.0"


def test_an_archive_of_a_tag_knows_it(clone: Path, tmp_path: Path) -> None:
    git(clone, "tag", "v3.4.5")
    archive = tmp_path / "archive"
    archive.mkdir()
    git(clone, "archive", "--output", str(tmp_path / "archive.tar"), "v3.4.5")
    shutil.unpack_archive(tmp_path / "archive.tar", archive)
    assert version(archive) == "3.4.5"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_clone_of_another_user_has_a_version(clone: Path) -> None:
    git(clone, "tag", "v3.4.5")
    for path in (clone, *clone.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    assert version(clone) in ("3.4.5", "0.0")


@pytest.mark.parametrize("name", ["SETUPTOOLS_SCM_PRETEND_VERSION_FOR_OVOAD"])
def test_a_build_can_be_told_its_version(clone: Path, name: str) -> None:
    shutil.rmtree(clone / ".git")
    assert version(clone, **{name: "7.8.9"}) == "7.8.9"
