#!/usr/bin/env bash
# Snakemake runs this in the new environment, in the working folder: the checkout.
set -euo pipefail
python -m pip install --editable . --constraint constraints.txt
