# make chat   set up on the first run, then open the chat on the bundled model
# make test   set up on the first run, then run the tests
# ENGINE=cpu|cuda|vulkan overrides what the engine is built for.

PYTHON ?= python3
VENV := .venv
UV := $(shell command -v uv 2>/dev/null)
CONSTRAINTS := .ci/constraints.txt
INSTALL = $(if $(UV),$(UV) pip install --python $(VENV)/bin/python,$(VENV)/bin/python -m pip install --disable-pip-version-check)
SETUP_FILES := pyproject.toml Makefile $(CONSTRAINTS) .ci/engine.cmake
EXAMPLE := How many r's are in strawberry?

.PHONY: chat test test-all lint setup sums clean

chat: $(VENV)/.app
	@if [ -t 0 ] && [ -t 1 ]; then \
		exec $(VENV)/bin/localr1; \
	else \
		echo "No terminal here, so one question instead of the chat: $(EXAMPLE)"; \
		$(VENV)/bin/localr1 ask "$(EXAMPLE)" </dev/null && echo "To open the chat, run 'make chat' (or $(VENV)/bin/localr1) in a terminal."; \
	fi

# Two processes, each with one thread for its matrices: more wait for each other.
PYTEST = OPENBLAS_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist worksteal

test: $(VENV)/.test
	$(PYTEST)

test-all: $(VENV)/.test
	$(PYTEST) -m ""

lint: $(VENV)/.test
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

setup: $(VENV)/.app

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "localr1 needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 || echo missing). Install one, then: make PYTHON=python3.12"; exit 1; }
	$(if $(UV),$(UV) venv --quiet --python "$$(command -v $(PYTHON))" $(VENV),$(PYTHON) -m venv $(VENV)) || { rm -rf $(VENV); exit 1; }

# A cache of built packages does not know how they were built: with it, an engine for a GPU could be the one for the CPU of an earlier build.
$(VENV)/.app: $(SETUP_FILES) | $(VENV)/bin/python
	@$(VENV)/bin/python -c 'import llama_cpp' 2>/dev/null || \
		echo "Building the engine, llama.cpp, for this machine ($$(sh .ci/engine.sh --describe)). This happens once and takes a few minutes."
	@case $$(sh .ci/engine.sh --describe) in cuda|vulkan) export PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1;; esac; \
		CMAKE_ARGS="$$(sh .ci/engine.sh)" SKBUILD_CMAKE_BUILD_TYPE=Release $(INSTALL) --quiet --constraint $(CONSTRAINTS) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.app
	$(INSTALL) --quiet --constraint $(CONSTRAINTS) --editable '.[test]'
	@touch $@

clean:  # but not build, where training keeps what took days
	rm -rf $(VENV) dist .mypy_cache .ruff_cache

# Train the bundled models anew from their seeds, stage by stage (assets/recipe); run again to resume.
RECIPE = $(VENV)/bin/python assets/recipe
TEACHER := build/teacher/grpo/train.pt

.PHONY: teacher student train-setup
train-setup: $(VENV)/.app
	$(INSTALL) --constraint $(CONSTRAINTS) --editable '.[train]'

teacher: train-setup
	$(RECIPE)/cold_start.py --out build/teacher/cold
	$(RECIPE)/grpo.py --base build/teacher/cold/train.pt --out build/teacher/grpo
	$(RECIPE)/curve.py build/teacher/grpo/curve.jsonl assets/r1-tiny-teacher/grpo.svg
	$(RECIPE)/export.py teacher $(TEACHER) assets/r1-tiny-teacher
	$(RECIPE)/evaluate.py assets/r1-tiny-teacher

student: train-setup
	@test -f $(TEACHER) || { echo "The student learns from the teacher: first run 'make teacher'."; exit 1; }
	$(RECIPE)/rejection.py $(TEACHER) build/student/traces.jsonl
	$(RECIPE)/distill.py --traces build/student/traces.jsonl --teacher $(TEACHER) --out build/student
	$(RECIPE)/export.py student build/student/train.pt assets/r1-tiny
	$(RECIPE)/evaluate.py assets/r1-tiny

# The list of what `localr1 verify` holds the bundle against; after changing weights or goldens.
sums: $(VENV)/.app
	$(VENV)/bin/python -m localr1.verifying.checksums
