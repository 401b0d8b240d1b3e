# Everything a newcomer needs: `make quickstart` and `make test` set up their own virtual environment.
SHELL := bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart check test test-thorough test-slow rehearsal test-comfyui fuzz endings docs bench install clean

install: $(VENV)/installed

# One stamp file: reinstalled only when the dependencies change.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,theory]"
	touch $@

quickstart: install
	$(BIN)/urae quickstart

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One process a core with one thread each: faster than one process with a thread a core, most models being tiny.
# At its end it says how long it took, and how much of the processors.
test: install
	time OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# Further cases of what `make test` holds: other families, signals, settings.
test-thorough: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m thorough

test-slow: install
	$(BIN)/python -m pytest -m slow

# FLUX.1-dev's commands and scripts from an empty folder on, with a model of its configuration and a toy's width. SIZE_2K
# and SIZE_4K are the sizes trained at: 2048 and 4096 are the whole thing, at the price that docs/guides/flux.md names.
SIZE_2K ?= 1152
SIZE_4K ?= 1152
rehearsal: install
	OMP_NUM_THREADS=1 REHEARSAL_2K=$(SIZE_2K) REHEARSAL_4K=$(SIZE_4K) \
		$(BIN)/python -m pytest -m slow tests/flux_road --basetemp .cache/rehearsal
	@echo "what was typed and printed: .cache/rehearsal/road0/transcript.txt"

# The nodes in a real ComfyUI of that folder, started on loopback without a GPU, and its latents beside ours. Its Python needs
# pytest. Where that lacks torchvision or torchaudio, the empty modules of tests/comfyui/absent stand for them.
COMFYUI_PYTHON ?= $(COMFYUI)/venv/bin/python
test-comfyui: install
	@test -n "$(COMFYUI)" || { echo "say where ComfyUI is: make test-comfyui COMFYUI=folder"; exit 1; }
	COMFYUI=$(abspath $(COMFYUI)) COMFYUI_PYTHON=$(abspath $(COMFYUI_PYTHON)) PYTHONPATH=tests/comfyui:tests/families OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest tests/comfyui/real/latents.py tests/comfyui/real/inside.py

# 14,960 damaged and hostile files, a table row for each door; CASES=400 for ten times as many.
CASES ?= 40
fuzz: install
	OMP_NUM_THREADS=1 URAE_FUZZ_CASES=$(CASES) $(BIN)/python -m pytest tests/fuzz

# Every long command killed, terminated, interrupted and without room on the disk, and typed again: a table row for each.
endings: install
	OMP_NUM_THREADS=1 URAE_ENDINGS=1 $(BIN)/python -m pytest -m "slow or not slow" tests/endings

# The reference pages, and the site in site/. A link that leads nowhere is an error.
docs: install
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/cards.py
	$(BIN)/zensical build --strict

# Those that run without options in minutes on a CPU; benchmarks/gpu.py needs a GPU, guided.py an adapter and hours.
bench: install
	for name in decomposition data ladder cpu; do $(BIN)/python benchmarks/$$name.py || exit 1; done

clean:
	rm -rf .cache build dist site src/*.egg-info urae-quickstart
