# Two commands do the job on a fresh machine: `make repro` (the benchmark, end to end) and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
INSTALLED := $(VENV)/.installed
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export NO_MKDOCS_2_WARNING := 1
# threads of numeric libraries only get in each other's way in short commands
export OMP_NUM_THREADS ?= 2

.PHONY: help install repro test lint docs bench clean
.DEFAULT_GOAL := help

help:  ## Say what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1	/'

install: $(INSTALLED)  ## Create .venv and install the locked dependencies

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; run: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# numba's cache does not see edits in files that a cached kernel calls into
KERNELS := $(VENV)/.kernels
$(KERNELS): $(shell grep -rl --include=*.py ncbench.jit ncbench) | $(INSTALLED)
	@find ncbench -name '*.nb[ic]' -delete
	@touch $@

repro: $(INSTALLED) $(KERNELS)  ## Fetch, prepare, predict, evaluate and report, as DVC stages; prints the table
	@dvc repro
	@ncbench report --show --check expected

test: $(INSTALLED) $(KERNELS)  ## Run the tests with coverage, a file at a time on every core
	@OMP_NUM_THREADS=1 python -m pytest -n logical --dist loadfile --cov --cov-report=term:skip-covered

lint: $(INSTALLED)  ## Check style, types and the direction of imports
	@ruff check .
	@ruff format --check .
	@mypy
	@lint-imports

docs: $(INSTALLED)  ## Build the documentation site into site/; fails on a broken link
	@mkdocs build --quiet
	@echo "$(CURDIR)/site/index.html"

bench: $(INSTALLED) $(KERNELS)  ## Run the speed comparisons; JSON goes to benchmarks/results
	@mkdir -p benchmarks/results
	@python -m pytest benchmarks --benchmark-only --benchmark-json=benchmarks/results/latest.json -q -s

clean:  ## Remove data, results and reports; keeps .venv
	@rm -rf data reports/generated
