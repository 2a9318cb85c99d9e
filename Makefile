# Set-up and checks. Every target works on a fresh machine with Python >= 3.10 and its venv module.

PYTHON ?= python3
BIN := .venv/bin
export TF_CPP_MIN_LOG_LEVEL ?= 2
# Tests start some hundred processes; what they load is compiled once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow lint check clean

demo: .venv  ## search, train, quantise and verify on this machine, then print what came out
	$(BIN)/nas-edge search --preset demo --out runs/demo-$$(date +%Y%m%d-%H%M%S)

# A file's tests in one process, since they share what is trained and converted. Quick ones in four processes on two
# cores, since many wait for a server, a worker or a timeout; slow ones cause faults at moments that load may shift.
PYTEST := $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder

test: .venv/test-extras  ## the tests, but for the slow ones
	$(PYTEST) -n 4 -m "not slow"

test-slow: .venv/test-extras  ## the slow ones
	$(PYTEST) -n 2 -m slow

lint: .venv/check-extras
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vermin --quiet --violations --no-tips -t=3.7- device_agents/worker device_agents/ssh/board_side.py

check: lint test test-slow  ## everything CI checks

# `make .venv` prepares the environment; it is redone when the dependencies change.
.venv: .venv/installed
.venv/installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "nas_edge needs Python 3.10 to 3.13, found $$($(PYTHON) --version 2>&1); try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/test-extras: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

.venv/check-extras: .venv/test-extras
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,check]'
	@touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
