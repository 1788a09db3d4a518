BIN := .venv/bin
STAMP := .venv/.setup
CONFIG ?= demo
# Set to cpu or gpu to overrule what `make setup` would choose, and to a Python of 3.11 to 3.13 to have that one.
STACK ?=
PYTHON ?= python3 python3.13 python3.12 python3.11

.PHONY: help setup table1 test check demo-model force

help:  ## what can be made
	@grep -hE '^[a-z0-9-]+:.*  ## ' $(MAKEFILE_LIST) | awk -F ':.*  ## ' '{printf "make %-11s %s\n", $$1, $$2}'

setup: $(STAMP)  ## the environment in .venv, for the CPU or, where there is an NVIDIA GPU, for that (STACK=cpu|gpu)
	@:

$(STAMP): requirements/cpu.txt requirements/gpu.txt requirements/install.py pyproject.toml $(if $(STACK),force)
	@for python in $(PYTHON); do \
		if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
			exec $$python requirements/install.py $(STACK); \
		fi; \
	done; \
	echo "setup: found no Python 3.11 to 3.13 (looked for: $(PYTHON)); install one, or run: make setup PYTHON=/path/to/python3.11" >&2; \
	exit 1

table1: $(STAMP)  ## run every method and print the main table (CONFIG=demo)
	@$(BIN)/bench table table1 --config $(CONFIG)

test: $(STAMP)  ## all tests, speed bars included
	$(BIN)/python -m pytest

check: $(STAMP)  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

demo-model: $(STAMP)  ## pre-train the demo's language model anew
	$(BIN)/python -m bench.demo.pretrain --out bench/demo/model
