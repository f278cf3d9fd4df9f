# Every command of the project. `make help` lists them; .ci/run calls only these.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
PYTEST := $(BIN)/python -m pytest
SAY := @printf '\033[1m==> %s\033[0m\n'

NATIVE_SOURCES := CMakeLists.txt $(shell find kernels -type d -o -name '*.cpp' -o -name '*.h' 2>/dev/null)
SANITIZE := build/sanitize
EMULATE := build/emulate

.PHONY: help demo build test test-slow lint types fmt docs sanitize emulate ci pocket clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | while IFS='|' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

demo: $(STAMPS)/build ## build qwick and let the embedded model think, call a function and talk
	$(SAY) "asking the embedded model"
	$(BIN)/qwick run pocket "Who are you?" </dev/null
	$(BIN)/qwick run pocket --think --show-thinking "What is 4821 + 3377?" </dev/null
	$(BIN)/qwick run pocket "Ada Stone paid 12.95 euros on 3 May 2024. Give me name, date and amount as JSON." </dev/null
	$(BIN)/python examples/tools.py

build: $(STAMPS)/build ## make .venv, build the kernels and install qwick there (editable)

test: $(STAMPS)/build $(STAMPS)/dev ## build, then run all tests but the slow ones
	$(SAY) "testing"
	$(PYTEST) -m "not slow"

test-slow: $(STAMPS)/build $(STAMPS)/dev ## the tests at true model shapes (minutes each, up to 16 GB of memory)
	$(SAY) "testing, slow ones only"
	$(PYTEST) -m slow --timeout 3600

lint: $(STAMPS)/dev ## style (ruff, clang-format) and direction of imports (import-linter)
	$(SAY) "linting"
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	git ls-files -z 'kernels/*.cpp' 'kernels/*.h' | xargs -0 -r $(BIN)/clang-format --dry-run --Werror
	PYTHONPATH=src $(BIN)/lint-imports --no-logo

types: $(STAMPS)/dev ## check the types (pyright, strict)
	$(SAY) "checking types"
	$(BIN)/pyright

fmt: $(STAMPS)/dev ## format Python and C++ in place
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	git ls-files -z 'kernels/*.cpp' 'kernels/*.h' | xargs -0 -r $(BIN)/clang-format -i

docs: $(STAMPS)/build ## write docs/cli.md from the commands' help texts
	$(BIN)/python scripts/write_cli_docs.py

sanitize: $(STAMPS)/dev ## tests/kernels on a build with ASan + UBSan, AVX-512, VNNI and AMX emulated
	$(SAY) "building with sanitizers into $(SANITIZE)"
	scripts/sanitize.sh $(SANITIZE)

emulate: $(STAMPS)/dev ## the AVX-512, VNNI and AMX tests on a CPU without them: kernels, parity, bitwise
	$(SAY) "building with AVX-512, VNNI and AMX emulated into $(EMULATE)"
	scripts/emulate.sh $(EMULATE)

ci: ## what continuous integration runs
	.ci/run

pocket: $(STAMPS)/build $(STAMPS)/dev ## train the embedded model anew and measure it (recipes/pocket, three to five CPU hours)
	$(BIN)/python recipes/pocket/train.py
	$(BIN)/python recipes/pocket/evaluate.py

clean: ## remove everything built, .venv too
	rm -rf $(VENV) build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- what the targets stand on: one stamp a step, redone when its inputs change ---------------------------------------

$(STAMPS)/venv: scripts/check_tools.sh
	@scripts/check_tools.sh $(PYTHON)
	$(SAY) "making $(VENV)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/requirements: pyproject.toml $(STAMPS)/venv
	$(SAY) "installing what qwick needs to build and run"
	$(PIP) install --group build $$($(BIN)/python scripts/requirements.py)
	@touch $@

$(STAMPS)/build: $(NATIVE_SOURCES) src/qwick/__init__.py $(STAMPS)/requirements
	$(SAY) "building the kernels (first time: some minutes)"
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# torch first and alone: its resolver may pick a build for this machine that a joint resolution would not.
$(STAMPS)/dev: pyproject.toml $(STAMPS)/requirements
	$(SAY) "installing the test tools and the reference implementation (torch)"
	$(PIP) install "$$($(BIN)/python scripts/requirements.py oracle torch)"
	$(PIP) install --group oracle --group dev
	@touch $@
