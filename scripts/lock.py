"""Write constraints.txt: the versions that a fresh install resolves to, for repeatable installs.

Makes a virtual environment of its own. Leaves out what torch pins by itself (CUDA packages), so
that another build of torch stays installable.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEFT_OUT = ("nvidia", "cuda", "triton", "ovoad", "-e ")
HEADER = (
    "# Made by `make lock` (scripts/lock.py) on Python {}. pyproject.toml has the loose bounds.\n"
)


def main() -> None:
    """Resolve all extras in an empty environment and freeze them."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = f"{folder}/bin/python"
        install = [python, "-m", "pip", "install", "--quiet", "-e", f"{ROOT}[dev,server]"]
        subprocess.run(install, check=True)
        freeze = [python, "-m", "pip", "freeze"]
        frozen = subprocess.run(freeze, check=True, capture_output=True, text=True).stdout
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    lines = [line for line in frozen.splitlines() if not line.lower().startswith(LEFT_OUT)]
    target = ROOT / "constraints.txt"
    target.write_text(HEADER.format(version) + "\n".join(lines) + "\n")
    print(f"wrote {len(lines)} versions to {target}")


if __name__ == "__main__":
    main()
