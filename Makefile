# Every target sets up what it needs: `make run` and `make test` work in a fresh clone.
#   make run ARGS="strategy=full seed=2"      any override of train.py
#   make test ARGS="-k digits"                any option of pytest

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PY := $(VENV)/bin/python
OLDEST := $(VENV)-oldest
# Named by content and place, so that only a changed dependency or version or a moved checkout installs again.
STAMP := $(VENV)/installed-$(shell { pwd; cat pyproject.toml constraints.txt; grep ^__version__ src/headstart/__init__.py; } | cksum | cut -d ' ' -f 1)

.DEFAULT_GOAL := help
.PHONY: help setup run test test-all test-oldest lint format types docs clean

help:
	@echo "make run       train on the embedded data (ARGS=\"strategy=full seed=2\" for overrides)"
	@echo "make test      the fast tests (minutes)"
	@echo "make test-all  the fast and the slow tests; those that need a GPU or a network skip without one"
	@echo "make test-oldest  fast tests with the oldest versions that pyproject.toml allows (Python 3.11; .venv-oldest)"
	@echo "make lint      ruff: rules and formatting        make format  apply them"
	@echo "make types     mypy"
	@echo "make docs      the documentation as a site in site/; a warning or a broken link is an error"
	@echo "make clean     remove the virtual environment and tool caches (never results)"

setup: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Headstart needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`. Choose one: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing Headstart and its dependencies into $(VENV) (once; PyTorch is large)"
	$(PY) -m pip install $(if $(wildcard $(VENV)/lib/*/site-packages/torch),--quiet) --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@rm -f $(VENV)/installed-*
	@touch $@

run: $(STAMP)
	$(PY) train.py $(ARGS)

test: $(STAMP)
	$(PY) -m pytest -n 2 --dist worksteal -m "not slow and not gpu and not network" $(ARGS)

test-all: $(STAMP)
	$(PY) -m pytest -n 2 --dist worksteal --durations=15 $(ARGS)

# Old libraries warn of the new ones beside them, so warnings are no errors here.
test-oldest:
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e '.[dev]'
	$(OLDEST)/bin/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu and not network" -o filterwarnings=default \
		--disable-warnings $(addprefix tests/unit/,config data weights system runs tasks training) $(ARGS)

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(STAMP)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: $(STAMP)
	$(PY) -m mypy

# Material announces its successor at each build.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) $(OLDEST) .pytest_cache .mypy_cache .ruff_cache build dist site
