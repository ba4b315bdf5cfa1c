# make demo   the whole workflow on the images inside scikit-image: noise, training, denoising, tables, pictures
# make test   everything that has to hold: format, lint, unit tests, real runs of the workflow
#
# PyPI's torch for Linux is the CUDA build (several gigabytes). Without a GPU take the small one instead:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= $(shell for python in python3.11 python3; do $$python -c "" 2>/dev/null && echo $$python && break; done)
VENV := .venv
INSTALLED := $(VENV)/.installed
IN_VENV := source $(VENV)/bin/activate &&

.PHONY: demo test test-faults lint format clean
.DEFAULT_GOAL := demo

demo: $(INSTALLED)
	@$(IN_VENV) snakemake --cores all
	@$(IN_VENV) python -c "from pathlib import Path; from dvlae.reporting.tables import print_summary; print_summary(Path('results/demo/tables'))"
	@echo; echo "Tables: results/demo/tables    Pictures: results/demo/figures    Denoised images: results/demo/simulated/dvlae-rf40/seed0/denoised"

test: lint
	@$(IN_VENV) python -m pytest

# Fifty kills at random moments, instead of the eight in `make test`.
test-faults: $(INSTALLED)
	@$(IN_VENV) DVLAE_KILLS=50 python -m pytest tests/workflow/test_kills.py

lint: $(INSTALLED)
	@$(IN_VENV) ruff check .
	@$(IN_VENV) ruff format --check .
	@$(IN_VENV) snakefmt --check workflow
	@$(IN_VENV) snakemake --lint

format: $(INSTALLED)
	@$(IN_VENV) ruff check --fix-only .
	@$(IN_VENV) ruff format .
	@$(IN_VENV) snakefmt workflow

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('dvlae needs Python 3.11 or newer; found ' + sys.version.split()[0] + '. Say which to take: make PYTHON=/path/to/python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable ".[dev]" --constraint constraints.txt
	@touch $@

# Leaves downloaded data and results alone.
clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info
