# Every target below that needs the environment creates it first. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The interpreter that creates .venv: python3.11 where it runs, else python3. Override with `make setup PYTHON=...`.
PYTHON ?= $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo python3)
ARGS ?=
EXTRAS ?= dev
SMOKE_STEPS ?= 2

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
# `make setup` with other EXTRAS than the last time installs again.
WITH := $(VENV)/.extras
ifneq ($(origin EXTRAS),file)
ifneq ($(shell cat $(WITH) 2>/dev/null),$(EXTRAS))
$(shell rm -f $(READY))
endif
endif

.PHONY: help setup train test test-slow soak check docs format smoke bench clean

help:  ## Print this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## Create .venv and install rlvr with its tested versions (EXTRAS="dev,vllm" for more)

# Installs again only when the dependencies change. The constraints are always passed: without the pins, pip may choose
# another torch, which is a download of several GB.
$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e ".[$(EXTRAS)]"
	@echo "$(EXTRAS)" > $(WITH)
	@touch $@

train: $(READY)  ## Train: make train ARGS="recipe=NAME/MODEL run.steps=100"
	$(BIN)/rlvr train $(ARGS)

test: $(READY)  ## Run the fast tests (ARGS are passed to pytest)
	$(BIN)/python -m pytest $(ARGS)

test-slow: $(READY)  ## Run the tests marked slow: several processes, short trainings
	@status=0; $(BIN)/python -m pytest -m slow $(ARGS) || status=$$?; \
	if [ $$status -eq 5 ]; then echo "test-slow: NOTHING RAN, no test is marked slow"; \
	else exit $$status; fi

soak: export RLVR_SOAK := 1
soak: test-slow  ## Run the slow tests with their long settings (RLVR_SOAK=1)

check: $(READY)  ## Lint, format check, types, docs/config.md, and the rules of the architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy rlvr
	$(BIN)/python -m scripts.config_docs --check
	$(BIN)/python -m pytest tests/test_architecture.py

docs: $(READY)  ## Write docs/config.md from the schema
	$(BIN)/python -m scripts.config_docs

format: $(READY)  ## Format the code and apply the safe lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

smoke: $(READY)  ## Train every recipes/*/smoke.yaml for SMOKE_STEPS steps; fails if one fails
	@ran=0; failed=""; \
	for file in recipes/*/smoke.yaml; do \
		[ -e "$$file" ] || continue; \
		name=$$(basename "$$(dirname "$$file")"); ran=$$((ran + 1)); \
		echo "smoke: $$name"; \
		$(BIN)/rlvr train "recipe=$$name/smoke" "run.name=smoke_$$name" run.overwrite=true \
			run.steps=$(SMOKE_STEPS) $(ARGS) </dev/null || failed="$$failed $$name"; \
	done; \
	if [ $$ran -eq 0 ]; then echo "smoke: NOTHING RAN, no recipes yet (no file matches recipes/*/smoke.yaml)"; \
	elif [ -n "$$failed" ]; then echo "smoke: FAILED:$$failed"; exit 1; \
	else echo "smoke: $$ran recipes passed"; fi

bench: $(READY)  ## Time selection, grader, KTAE, evaluation, analyses and a training step (options: scripts/bench_*.py --help)
	$(BIN)/python -m scripts.bench_selection
	$(BIN)/python -m scripts.bench_grader
	$(BIN)/python -m scripts.bench_ktae
	$(BIN)/python -m scripts.bench_evaluation
	$(BIN)/python -m scripts.bench_analysis
	$(BIN)/python -m scripts.bench_train_step

clean:  ## Remove .venv, caches and build outputs; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	find rlvr tests scripts -type d -name __pycache__ -prune -exec rm -rf {} +
