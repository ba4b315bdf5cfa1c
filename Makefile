# make demo         the whole workflow on the images inside scikit-image: noise, training, denoising, tables, pictures
# make check        what to run before a commit, in minutes: lint, types, all tests that do not run Snakemake
# make test         what continuous integration runs: lint, types, all tests but the slow ones and those of the clouds
# make test-slow    trainings of many minutes, compared with results/reference
# make test-clouds  runs through the plugins for clouds; installs the extra `clouds`
# make docs         the guides as a site, in site/
# make test-faults  fifty kills at random moments, instead of the five in `make test`
#
# PyPI's torch for Linux is the CUDA build (several gigabytes). Without a GPU take the small one instead:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= $(shell for python in python3.11 python3; do $$python -c "" 2>/dev/null && echo $$python && break; done)
VENV := .venv
IN_VENV := source $(VENV)/bin/activate &&

.PHONY: demo check test test-slow test-clouds test-faults lint types format docs constraints clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.demo
	@$(IN_VENV) snakemake --cores all
	@$(IN_VENV) python -c "from pathlib import Path; from dvlae.reporting.tables import format_summary; print(format_summary(Path('results/demo/tables')))"
	@echo; echo "Tables: results/demo/tables    Pictures: results/demo/figures    Denoised images: results/demo/simulated/dvlae-rf40/seed0/denoised"

check: $(VENV)/.dev
	@$(MAKE) --jobs=2 --output-sync=target lint types
	@$(IN_VENV) python -m pytest -n 2 --dist worksteal -m "not workflow and not slow and not clouds"

test: check
	@$(IN_VENV) python -m pytest -n 2 --dist loadfile -m "workflow and not slow and not clouds"

test-slow: $(VENV)/.dev
	@$(IN_VENV) python -m pytest -m slow

test-clouds: $(VENV)/.dev $(VENV)/.clouds
	@$(IN_VENV) python -m pytest -m clouds

test-faults: $(VENV)/.dev
	@$(IN_VENV) DVLAE_KILLS=50 python -m pytest tests/workflow/test_kills.py

lint: $(VENV)/.dev
	@$(IN_VENV) ruff check .
	@$(IN_VENV) ruff format --check .
	@$(IN_VENV) snakefmt --check workflow
	@$(IN_VENV) snakemake --lint
	@$(IN_VENV) lint-imports
	@$(IN_VENV) numpydoc lint $$(find dvlae -name '*.py')

types: types-linux types-darwin types-win32

types-%: $(VENV)/.dev
	@$(IN_VENV) mypy --platform $* --cache-dir .mypy_cache/$*

format: $(VENV)/.dev
	@$(IN_VENV) ruff check --fix-only .
	@$(IN_VENV) ruff format .
	@$(IN_VENV) snakefmt workflow

# The notice of MkDocs' theme about its successor is not about the guides.
docs: $(VENV)/.docs
	@$(IN_VENV) NO_MKDOCS_2_WARNING=1 mkdocs build --quiet --strict
	@echo "The guides: site/index.html"

# One environment, to which the targets add what they need: .venv/.demo says that the extra `demo` is installed.
$(VENV)/.%: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --editable ".[$*]" --constraint constraints.txt
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('dvlae needs Python 3.11 or newer; found ' + sys.version.split()[0] + '. Say which to take: make PYTHON=/path/to/python3.11')"
	$(PYTHON) -m venv $(VENV)

# Keeps the versions that constraints.txt has; OPTIONS=--upgrade finds newer ones. Needs uv (pip install uv).
# They are found for the oldest Python: a newer one takes packages for an older one, but not the reverse.
COMPILE := uv pip compile pyproject.toml --quiet --no-header --no-annotate --python-version 3.11 --python-platform linux
constraints:
	@folder=$$(mktemp -d); trap 'rm -r "$$folder"' EXIT; all=$$folder/all.txt; without_clouds=$$folder/without_clouds.txt; \
	cp constraints.txt "$$all"; \
	$(COMPILE) --all-extras --output-file "$$all" $(OPTIONS) >/dev/null; \
	$(COMPILE) --extra dev --extra bm3d --constraint "$$all" >"$$without_clouds"; \
	{ echo "# Made by \`make constraints\` out of pyproject.toml."; \
	  cat "$$without_clouds"; \
	  echo "# Only for the extra clouds:"; \
	  grep --invert-match --line-regexp --fixed-strings --file "$$without_clouds" "$$all"; } >constraints.txt

# Leaves downloaded data and results alone.
clean:
	rm -rf $(VENV) site .import_linter_cache .mypy_cache .pytest_cache .ruff_cache *.egg-info
