"""Ask the advisory services about every locked version: Python packages, and npm's.

    python scripts/audit.py

pip-audit, from requirements/release.lock, looks up the pinned versions in PyPI's advisories, `npm
audit` those of package-lock.json and of what is vendored into the page. What nobody could be asked
about is told, never passed over.
Exit status: 0 nothing is known, 1 something is, 3 a service does not answer and nothing is known.
"""

import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from environments import NO_INDEX, ROOT, NoIndexError, attempt, make_environment

PYTHON_FILES: Final = ("requirements/server.lock", "requirements/release.lock", "constraints.txt")
VENDORED: Final = (
    ROOT / "clients" / "web" / "vendor" / "uPlot.VERSION",
    ROOT / "clients" / "web" / "vendor" / "swagger-ui" / "VERSION",
)


@dataclass(frozen=True)
class Finding:
    """What one file's audit came to; `known` is None where nobody answered."""

    subject: str
    asked: int
    known: list[str] | None
    trouble: str = ""


def main() -> int:
    """Audit everything; print a line for each file and each advisory."""
    with tempfile.TemporaryDirectory(prefix="ovoad-audit-") as name:
        folder = Path(name)
        findings = [*audit_python(folder), *audit_npm(folder)]
    for finding in findings:
        print(f"{finding.subject}: {told(finding)}")
        for advisory in finding.known or []:
            print(f"    {advisory}")
    if any(finding.known for finding in findings):
        return 1
    return NO_INDEX if any(finding.known is None for finding in findings) else 0


def told(finding: Finding) -> str:
    """Say what an audit came to."""
    if finding.known is None:
        return f"NOT AUDITED: {finding.trouble}"
    rest = f"; NOT AUDITED: {finding.trouble}" if finding.trouble else ""
    return f"{finding.asked} packages asked about, {len(finding.known)} advisories{rest}"


def audit_python(folder: Path) -> list[Finding]:
    """Run pip-audit on each file of pinned versions."""
    lock = ROOT / "requirements" / "release.lock"
    try:
        python = make_environment(folder / "tools", "--require-hashes", "-r", lock)
    except NoIndexError as error:
        return [Finding(name, 0, None, reason(str(error))) for name in PYTHON_FILES]
    return [pip_audit(python, name, folder / "answer.json") for name in PYTHON_FILES]


def pip_audit(python: Path, name: str, answer: Path) -> Finding:
    """Ask about one file. pip-audit fails alike for an advisory and for a silent service."""
    answer.unlink(missing_ok=True)
    done = attempt(
        python, "-m", "pip_audit", "--requirement", name, "--no-deps", "--disable-pip",
        "--progress-spinner", "off", "--format", "json", "--output", answer,
    )  # fmt: skip
    if not answer.exists():
        return Finding(name, 0, None, reason(done.stderr))
    packages: list[dict[str, Any]] = json.loads(answer.read_text())["dependencies"]
    known = [
        f"{package['name']} {package['version']}: {flaw['id']}, mended in "
        f"{', '.join(flaw['fix_versions']) or 'no version'}"
        for package in packages
        for flaw in package.get("vulns", [])
    ]
    skipped = [package["skip_reason"] for package in packages if "vulns" not in package]
    if not skipped:
        return Finding(name, len(packages), known)
    trouble = f"{len(skipped)} of {len(packages)} packages skipped, such as: {skipped[0]}"
    return Finding(name, len(packages) - len(skipped), known or None, trouble)


def audit_npm(folder: Path) -> list[Finding]:
    """Run npm audit on package-lock.json, and on what is vendored."""
    subjects = ("package-lock.json", "clients/web/vendor")
    if shutil.which("npm") is None:
        return [Finding(subject, 0, None, "found no npm") for subject in subjects]
    vendored = folder / "vendored"
    vendored.mkdir()
    packages = dict(path.read_text().split(",")[0].split() for path in VENDORED)
    (vendored / "package.json").write_text(json.dumps({"dependencies": packages}))
    made = attempt("npm", "install", "--package-lock-only", "--ignore-scripts", cwd=vendored)
    if made.returncode != 0:
        return [npm_audit(subjects[0], ROOT), Finding(subjects[1], 0, None, reason(made.stderr))]
    return [npm_audit(subjects[0], ROOT), npm_audit(subjects[1], vendored)]


def npm_audit(subject: str, folder: Path) -> Finding:
    """Ask npm's registry about one lock file."""
    done = attempt("npm", "audit", "--package-lock-only", "--json", cwd=folder)
    try:
        answer = json.loads(done.stdout)
        asked = int(answer["metadata"]["dependencies"]["total"])
    except (ValueError, KeyError):
        return Finding(subject, 0, None, reason(done.stderr))
    known = [f"{name}: {flaw['severity']}" for name, flaw in answer["vulnerabilities"].items()]
    return Finding(subject, asked, known)


def reason(said: str) -> str:
    """Return the first line that tells of an error, else the last line, of what a tool said."""
    lines = [line for line in said.splitlines() if line.strip()] or ["no word of why"]
    telling = [line for line in lines if "audit 4" in line or "audit 5" in line or "Error:" in line]
    return (telling or lines[-1:])[0].strip()


if __name__ == "__main__":
    sys.exit(main())
