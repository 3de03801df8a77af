# make demo and make test are all a fresh machine needs: each builds the environment if it is missing.
# the first interpreter that really runs, is new enough and can make an environment: a name on the PATH may be an empty shim
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.13 python; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
# uv, where it is there, installs the same in half the time (93 s against 185 s, measured on two busy cores)
INSTALL := $(if $(shell command -v uv 2>/dev/null),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install) \
	--quiet --constraint constraints.txt

# a worker of pytest for each core, at most four: each holds two gigabytes; a file's tests stay together
WORKERS ?= logical
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# what is long by nature, and left to test-all
LONG := learning or processes or cluster or store or kills or realsets or browser or compiled

.PHONY: env demo test test-all lint format bench docs clean
.DELETE_ON_ERROR:

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "refloom needs Python >= 3.11 with venv; set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(INSTALL) --editable '.[dev]'
	$(INSTALL) --no-deps insightface gradio
	@touch $@

demo: $(STAMP)
	$(BIN)/refloom demo $(DEMO)

test: $(STAMP)
	$(PYTEST) -m "not ($(LONG))" $(TESTS)

test-all: $(STAMP)
	$(PYTEST) --durations 25 $(TESTS)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	$(BIN)/python -m benchmarks $(BENCH)

docs: $(STAMP)
	@$(BIN)/python -c 'import pdoc' 2>/dev/null || $(INSTALL) --editable '.[docs]'
	$(BIN)/python docs/reference.py site

clean:
	rm -rf $(VENV) demo site build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
