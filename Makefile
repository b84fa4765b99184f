# `make demo` and `make test` are all the set-up there is; both need Python >= 3.11, git and make.
# $(VENV)/installed says that the product is there, $(VENV)/dev that the tools of its tests are too.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
# DVC runs `ltdpipe` by name
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test check lint bench study-mini clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/'

install: $(VENV)/installed ## Make the environment in .venv

demo: $(VENV)/installed ## Run the demo study and print its result
	dvc repro
	@ltdpipe report
	@printf '%s\n' '' 'Next, for example:' \
	  '  . $(BIN)/activate                    # so that your shell finds `ltdpipe` and `dvc`' \
	  '  ltdpipe bundle heads/demo-train/ltd/0.safetensors -o detector.ltd' \
	  '  ltdpipe predict detector.ltd PHOTOS/         # the demo detector: shows how, knows nothing' \
	  '  ltdpipe extract PHOTOS/ --out features/photos    # your own images; README.md goes on from here'

test: $(VENV)/dev ## Run the test suite
	pytest -n auto --dist loadfile

check: lint test ## Linters, types, import contract and tests

lint: $(VENV)/dev
	ruff check
	ruff format --check
	mypy
	lint-imports

# Those that take minutes; the others (docs/benchmarks.md) answer one question each and are run by name.
bench: $(VENV)/installed ## Run the benchmarks, which print ratios
	@for name in storage repro scan extract training evaluation predict gpu; do \
	  echo "== $$name"; python -m benchmarks.$$name || exit 1; done

study-mini: $(VENV)/installed ## Run the paper's study on miniatures of its benchmarks, in a clone
	python -m benchmarks.study_mini

clean: ## Remove the environment and everything the graph made
	rm -rf $(VENV) .ltdpipe .dvc/cache .dvc/tmp analysis audit data heads reports scores sweeps/*/ corpora/demo-*.parquet \
	  dvc_plots .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info

# The stamp is last: an interrupted installation is started over. The venv is made anew when what it holds changes.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("ltdpipe needs Python 3.11 or newer, this is " + sys.version)'
	@echo 'Installing into $(VENV): 6 GB, some minutes'
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP_INSTALL) --editable .
	touch $@

$(VENV)/dev: $(VENV)/installed
	$(PIP_INSTALL) --editable '.[dev]'
	touch $@
