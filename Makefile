# Everything happens in .venv; delete it to begin anew.
PYTHON ?= python3
SECONDS ?= 120
NUMBER ?= 150
SEED ?= 0
BIN := .venv/bin
# No byte-compilation of what is never imported: it halves the time of an installation.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# Nearly all of what is imported is compiled once instead, also where the environment says
# that imports write no bytecode, as in many containers: every script would compile it.
COMPILE := PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import grain.python, \
	matplotlib.figure, orbax.checkpoint, scipy.stats, tensorflow_datasets; \
	from dlworkshop import autofit, data, fit, load_run, sweep, verify, workshop'
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test mypy pytest test-slow test-aot torture mutants bench gallery format lock

demo: .venv/run.stamp
	$(BIN)/python experiments/digits.py

gallery: .venv/run.stamp
	$(BIN)/dlworkshop gallery gallery

.PHONY: docs notebooks dist

# The site, without a network; with the lessons' reports where gallery/ is there.
docs: .venv/dev.stamp
	$(BIN)/python -m sphinx --fail-on-warning --quiet -E -d build/doctrees -b html docs site
	@echo "site: site/index.html"

notebooks: .venv/dev.stamp
	$(BIN)/dlworkshop notebooks notebooks

# A wheel and a source distribution in dist/.
dist: .venv/dev.stamp
	$(BIN)/python -m build

test: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(MAKE) --no-print-directory --jobs=2 mypy pytest

# Side by side: the types are checked by one core.
mypy: .venv/dev.stamp
	$(BIN)/mypy

pytest: .venv/dev.stamp
	$(PYTEST) -m "not slow"

# What `make test` leaves out: CI runs it as well.
test-slow: .venv/dev.stamp
	$(PYTEST) -m slow

# Kills, signals, failing disks, damaged and hostile files, long runs: SECONDS of each.
torture: .venv/dev.stamp
	$(BIN)/python scripts/torture.py --seconds $(SECONDS)

# Does a test notice a change of the code? NUMBER of them, drawn by SEED.
mutants: .venv/dev.stamp
	$(BIN)/python scripts/mutants.py --number $(NUMBER) --seed $(SEED)

# The peers are large (PyTorch, TensorFlow) and live beside, so that .venv stays small.
bench: .venv-peers/stamp
	.venv-peers/bin/python scripts/bench.py --all --json bench.json

.venv-peers/stamp: pyproject.toml
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -e '.[peers]'
	@touch $@

# What XLA makes of the programs for a card that is not here: TARGET describes it.
test-aot: .venv-aot/stamp
	JAX_PLATFORMS=cpu AOT_TARGET=$(TARGET) .venv-aot/bin/python -m pytest \
		--noconftest tests/train/test_ahead_of_time.py

.venv-aot/stamp: pyproject.toml
	$(PYTHON) -m venv .venv-aot
	.venv-aot/bin/python -m pip install --quiet --disable-pip-version-check -e '.[aot]'
	@touch $@

format: .venv/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: .venv/dev.stamp
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python scripts/lock.py

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old: Python 3.11 or newer is needed (make PYTHON=...)"; exit 2; }
	$(PYTHON) -m venv .venv

.venv/run.stamp: .venv/bin/python requirements/run.txt pyproject.toml
	$(INSTALL) --require-hashes -r requirements/run.txt
	$(INSTALL) --no-build-isolation --no-deps -e .
	$(COMPILE)
	@touch $@

.venv/dev.stamp: .venv/bin/python requirements/dev.txt pyproject.toml
	$(INSTALL) --require-hashes -r requirements/dev.txt
	$(INSTALL) --no-build-isolation --no-deps -e .
	$(COMPILE)
	@touch $@ .venv/run.stamp
