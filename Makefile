# The two commands: `make demo` and `make test`. Both do all the set-up themselves, in .venv.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := data/demo

.PHONY: help setup demo test lint types imports unit format clean

help:
	@echo "make demo    set up, then synth -> preprocess -> train -> bench, and say where the pictures are"
	@echo "make test    set up, then lint, types, import order and tests"
	@echo "make format  format the code"
	@echo "make clean   remove data/demo and tool caches"

setup: $(READY)

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python {sys.version.split()[0]} is too old; use 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[dev,dali]'
	touch $@

test: setup lint types imports unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

unit: setup
	$(BIN)/python -m pytest

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf data/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
