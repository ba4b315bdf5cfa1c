#!/usr/bin/env bash
# Snakemake runs a copy of this in the new environment, so its own path does not tell where the package is.
set -euo pipefail
checkout=${DVLAE_CHECKOUT:-$PWD}
if ! grep --quiet '^name = "dvlae"$' "$checkout/pyproject.toml" 2>/dev/null; then
  echo "$checkout is no checkout of dvlae; run Snakemake in one, or let DVLAE_CHECKOUT name it" >&2
  exit 1
fi
python -m pip install --editable "$checkout" --constraint "$checkout/constraints.txt"
