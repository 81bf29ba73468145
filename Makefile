# Each target is a thin door: docs/install.md shows the same commands bare.
PYTHON ?= python3
PORT ?= 5000
ARGS ?=
BIN = .venv/bin
export MLFLOW_DISABLE_TELEMETRY = true
unexport PYTHONDONTWRITEBYTECODE # with it every process compiles the tests, and all that it imports, anew

.PHONY: sweep test ui lint ci licences newest

# `make sweep` searches on synthetic scenes, `make sweep ROOT=/data/mine` on your photographs.
sweep: .venv/.installed
	$(BIN)/python -m platform.sweep $(if $(ROOT),search_spaces/photos.yaml --set data.root="$(ROOT)",search_spaces/quickstart.yaml) $(ARGS)

test: .venv/.installed
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile -m "not slow and not long and not browser and not cluster" $(ARGS)

ui: .venv/.installed
	$(BIN)/python -m platform.ui --port $(PORT)

lint: .venv/.installed
	$(BIN)/ruff format --check . && $(BIN)/ruff check .
	$(BIN)/mypy

ci: lint test

# The newest Ray, Optuna, MLflow, torch, ... in build/newest: what breaks.
newest: .venv/.installed
	$(BIN)/python deploy/newest.py $(ARGS)

licences: .venv/.installed
	$(BIN)/python deploy/licences.py docs/licences.md

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) deploy/check_machine.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
