# make demo and make test are all a fresh machine needs: each builds the environment if it is missing.
# the first interpreter that really runs, is new enough and can make an environment: a name on the PATH may be an empty shim
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.13 python; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
LOG := $(VENV)/install.log
# uv, where it is there, installs the same in a quarter of the time: 1.1 minutes of a core against 3.6; on two cores that
# sixteen processes shared, 4.8 minutes from the start to the end against 19.7
INSTALL := $(if $(shell command -v uv 2>/dev/null),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install \
	--disable-pip-version-check --progress-bar off) --constraint constraints.txt

# $(call step,NAME,COMMAND): NAME; every EVERY_S seconds how far it is, which is the last line that COMMAND wrote and what
# lies in the environment by now; and how long it took, or the end of what COMMAND wrote
EVERY_S ?= 15
comma := ,
define step
@echo "== $(1)"; began=$$(date +%s); \
	($(2)) >>$(LOG) 2>&1 & job=$$!; trap 'kill $$job 2>/dev/null' INT TERM; shown=$$began; \
	while kill -0 $$job 2>/dev/null; do \
		sleep 1; now=$$(date +%s); [ $$((now - shown)) -ge $(EVERY_S) ] || continue; shown=$$now; \
		printf '   %4d s %6s  %s\n' $$((now - began)) "$$(du -sh $(VENV) | cut -f1)" "$$(tail -n 1 $(LOG) | cut -c1-90)"; \
	done; \
	wait $$job || { tail -n 15 $(LOG); echo "   failed after $$(($$(date +%s) - began)) s; the whole of it: $(LOG)"; exit 1; }; \
	echo "   done in $$(($$(date +%s) - began)) s, $$(du -sh $(VENV) | cut -f1)"
endef

# a worker of pytest for each core, at most four: each holds two gigabytes; a file's tests stay together
WORKERS ?= logical
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# what is long by nature, and left to test-all
LONG := learning or processes or cluster or store or kills or realsets or browser or compiled

.PHONY: env demo bases test test-all lint format bench docs clean
.DELETE_ON_ERROR:

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "refloom needs Python >= 3.11 with venv; set PYTHON=/path/to/python3.11"; exit 1; }
	@mkdir -p $(VENV) && : >$(LOG)
	$(call step,1/3 an environment in $(VENV)$(comma) by $(PYTHON),{ test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); } && $(BIN)/python -m pip install --upgrade pip)
	$(call step,2/3 refloom with all it can use$(comma) and what its tests need,$(INSTALL) --editable '.[dev]')
	$(call step,3/3 insightface$(comma) by itself: it asks for opencv-python over the headless one,$(INSTALL) --no-deps insightface)
	@touch $@

demo: $(STAMP)
	$(BIN)/refloom demo $(DEMO)

# the bases of toys from nothing: hours, says how many, and goes on where it was stopped
bases: $(STAMP)
	$(BIN)/python -m refloom.demo.bases $(BASES)

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
