# The words of the daily work. They need Linux, make and Python 3.11 or later, and do their own set-up: packages locked
# by hash go into .venv, once per change of a lock. Variables given to make reach the program: `make run ALCOVE_PORT=9000`.

# Naming another PYTHON makes .venv anew. ARGS go to the program behind the word: `make test ARGS='-k lease -x'`.
PYTHON ?= python3
ARGS ?=
# A file's tests stay together, because they share what is slow to make: a sandbox, a filled database. Two workers for
# each processor, as most tests wait for a disk or for a program; in the order of the files, as the longest have few tests.
WORKERS ?= --numprocesses $(shell expr 2 \* $$(nproc)) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

VENV := .venv
BIN := $(VENV)/bin
MADE := .made$(if $(filter-out file,$(origin PYTHON)),$(subst /,-,-$(PYTHON)))

PIP := -m pip --quiet --disable-pip-version-check
# Wheels only: a source package would fetch tools that no lock holds in order to build itself.
LOCKED := $(PIP) install --only-binary :all: --require-hashes
ALCOVE := $(PIP) install --no-deps --no-index --no-build-isolation --editable .
COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

.PHONY: help run demo install test test-long check format stubs bench lock clean
.DELETE_ON_ERROR:

help: ## List these words
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 20

run: $(VENV)/.run ## Serve Alcove here; configured by ALCOVE_* and alcove.toml
	@exec $(BIN)/alcove serve $(ARGS)

demo: $(VENV)/.run ## Show what Alcove does, on a server of its own (ARGS=--keep leaves it)
	@$(BIN)/alcove demo $(ARGS)

install: $(VENV)/.run ## Install Alcove into .venv
	@echo "Alcove is installed: $(BIN)/alcove --help"

test: $(VENV)/.dev ## Run the tests
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-long: $(VENV)/.dev ## Run the tests that take minutes: crash loops, attacks, contracts on every database
	$(BIN)/python -m pytest -m long --timeout 300 $(ARGS)

check: $(VENV)/.dev ## Check format, lint, imports, types and tidiness
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest tests/tidy --quiet

format: $(VENV)/.dev ## Format the code and repair what ruff can
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

stubs: $(VENV)/.dev ## Write anew what follows from the code: signatures of the blocking door, the reference of the command line
	PYTHONPATH=src:tests $(BIN)/python -m sync.stub
	PYTHONPATH=src:tests $(BIN)/python -m tidy.commands

bench: $(VENV)-bench/.bench ## Measure Alcove against its peers
	$(VENV)-bench/bin/python -m bench $(ARGS)

lock: $(VENV)/.lock ## Resolve pyproject.toml anew into requirements/*.txt
	$(COMPILE) pyproject.toml --extra server --output-file requirements/run.txt
	$(COMPILE) --group build --constraints requirements/run.txt --output-file requirements/build.txt
	$(COMPILE) pyproject.toml --extra server --extra postgres --extra oidc --group test --group check \
		--constraints requirements/run.txt --constraints requirements/build.txt --output-file requirements/dev.txt
	$(COMPILE) pyproject.toml --extra server --group bench \
		--constraints requirements/run.txt --constraints requirements/build.txt --output-file requirements/bench.txt
	$(COMPILE) --group lock --output-file requirements/lock.txt

clean: ## Remove .venv and caches; sessions and .alcove stay
	rm -rf $(VENV) $(VENV)-bench build dist .pytest_cache .ruff_cache .hypothesis .coverage
	find src tests bench -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# One chain of stamps, so that `make -j` never runs two installers in one environment.
%/$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Alcove needs Python 3.11 or later, and $(PYTHON) is: $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Install a newer one and name it: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) lacks the module ensurepip or venv, with which Alcove makes $*." >&2; \
		echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Making $* with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $*
	@touch $*/.made $@

$(VENV)/.run: $(VENV)/$(MADE) requirements/build.txt requirements/run.txt pyproject.toml
	@echo "Installing requirements/run.txt"
	@$(BIN)/python $(LOCKED) --requirement requirements/build.txt --requirement requirements/run.txt
	@$(BIN)/python $(ALCOVE)
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	@echo "Installing requirements/dev.txt"
	@$(BIN)/python $(LOCKED) --requirement requirements/dev.txt
	@touch $@

$(VENV)/.lock: $(VENV)/.dev requirements/lock.txt
	@$(BIN)/python $(LOCKED) --requirement requirements/lock.txt
	@touch $@

# Apart from .venv, because a peer's package is called `agents`, as a folder of our tests is.
$(VENV)-bench/.bench: $(VENV)-bench/$(MADE) requirements/build.txt requirements/bench.txt pyproject.toml
	@echo "Installing requirements/bench.txt"
	@$(VENV)-bench/bin/python $(LOCKED) --requirement requirements/build.txt --requirement requirements/bench.txt
	@$(VENV)-bench/bin/python $(ALCOVE)
	@touch $@
