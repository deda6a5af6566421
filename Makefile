# The two commands: `make demo` and `make test`. Both do all the set-up themselves, in .venv.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := data/demo
COCO ?= COCO
GPU_OUT ?= data/gpu

.PHONY: help setup kernels demo test lint types imports unit format messages gpu gpu-dali clean

help:
	@echo "make demo    set up, then synth -> preprocess -> train -> bench, and say where the pictures are"
	@echo "make test    set up, then lint, types, import order and tests"
	@echo "make format  format the code"
	@echo "make messages  find all messages, compile the translations, name what has none"
	@echo "make gpu  test and measure on a GPU for 8 minutes, without installing anything; COCO=FOLDER GPU_OUT=FOLDER"
	@echo "make gpu-dali  fetch DALI and measure its loader"
	@echo "make clean   remove data/demo and tool caches"

setup: $(READY)

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python {sys.version.split()[0]} is too old; use 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[dev,dali]'
	$(MAKE) --no-print-directory kernels
	touch $@

# Runs the kernels once, in half a minute, so that all are compiled: else each command waits for its own at its first call.
kernels:
	@echo "Compiling kernels, once: half a minute"
	@folder=$$(mktemp -d); trap 'rm -rf $$folder' EXIT; exec 3>&1 >$$folder/log 2>&1; \
		$(BIN)/python cli.py synth $$folder/coco --images 8 && \
		$(BIN)/python cli.py preprocess --coco $$folder/coco --out $$folder/cache --side 64 --select all && \
		$(BIN)/python cli.py train --cache $$folder/cache --out $$folder/run --profile cpu --loader resident \
			--network unet --width 8 --epochs 1 || { cat $$folder/log >&3; exit 1; }

# About five minutes on two cores after the set-up. Each step is a command of the README. Nothing is augmented, as people
# that are drawn anew teach more than the same ones turned, and photos are stretched, which wastes no pixels on padding.
demo: setup
	rm -rf $(DEMO)
	$(BIN)/python cli.py synth $(DEMO)/coco --images 1500
	$(BIN)/python cli.py preprocess --coco $(DEMO)/coco --out $(DEMO)/cache --side 96 --fit stretch
	$(BIN)/python cli.py batch --cache $(DEMO)/cache --picture $(DEMO)/batch.png
	$(BIN)/python cli.py verify --coco $(DEMO)/coco --cache $(DEMO)/cache
	$(BIN)/python cli.py train --cache $(DEMO)/cache --out $(DEMO)/run --profile cpu \
		--network unet --width 16 --batch-size 8 --lr 4e-3 --augment none --epochs 10
	$(BIN)/python cli.py bench --coco $(DEMO)/coco --cache $(DEMO)/cache --quick --suite loader --suite epoch \
		--batch-size 32 --json $(DEMO)/bench.json
	@echo
	@echo "Done. Look at:"
	@echo "  $(DEMO)/batch.png                          a batch as the network sees it, masks drawn over"
	@echo "  $(DEMO)/run/plots/sample_predictions.png   what the trained network finds, worst to best"
	@echo "  $(DEMO)/run/plots/training_curves.png      how it learned"
	@echo "  $(DEMO)/run/checkpoints/best_model.pth     the network"
	@echo "  $(DEMO)/bench.json                         the figures above"

test: setup lint types imports unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

# One process per processor, each with one thread of OpenMP: more would wait for each other. Where a test asks for more,
# they sleep while they wait: spinning, the default, takes a processor from the other process. Files in their own order:
# by the number of their tests, as xdist would have them, those with few and long tests come last, and one idles.
# Bytecode is kept, whatever the environment says: else pytest rewrites all tests in each process, for ten seconds.
unit: setup
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest \
		--numprocesses logical --dist loadfile --no-loadscope-reorder

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# After a message was added or changed: its translation goes into console/locale/es/LC_MESSAGES/maskcache.po, then again.
messages: setup
	$(BIN)/python -m console.catalogue

# See CONTRIBUTING.md. The Python that has torch; REHEARSE=1 runs the same parts with small sizes.
gpu gpu-dali: PYTHON = python3
gpu:
	$(PYTHON) -m bench.gpu --coco $(COCO) --out $(GPU_OUT) $(if $(REHEARSE),--rehearse)

gpu-dali:
	$(PYTHON) -m pip install --disable-pip-version-check --quiet --target data/dali 'nvidia-dali-cuda130==2.4.*'
	rm -rf data/dali/numpy*  # that of the machine is used
	PYTHONPATH=data/dali:$$PYTHONPATH $(PYTHON) cli.py bench --coco $(COCO) --side 512 --batch-size 64 \
		--suite loader --json $(GPU_OUT)/bench-dali.json

clean:
	rm -rf data/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
