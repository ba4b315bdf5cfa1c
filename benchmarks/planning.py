"""Measure how long Snakemake takes to plan a grid of 5,000 jobs: 8 datasets x 7 receptive fields x 30 seeds.

Run it in the environment of ``make demo``: ``python benchmarks/planning.py``. It computes nothing but the plan.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

SNAKEFILE = Path(__file__).parents[1] / "workflow/Snakefile"
DATASET = {
    "source": {"kind": "skimage"},
    "noisy": ["camera.png"],
    "axes": "YX",
    "noise_direction": "x",
    "simulate": {},
}
GRID = {
    "datasets": [f"set{number}" for number in range(8)],
    "receptive_fields": [4, 8, 14, 20, 28, 40, 80],
    "seeds": list(range(30)),
    "results": "results",
}


def main() -> None:
    """Time the dry run three times."""
    with tempfile.TemporaryDirectory() as folder:
        datasets = Path(folder, "config/datasets")
        datasets.mkdir(parents=True)
        for name in GRID["datasets"]:
            (datasets / f"{name}.yaml").write_text(yaml.safe_dump(DATASET))
        Path(folder, "config/config.yaml").write_text(yaml.safe_dump(GRID))
        command = [str(Path(sys.executable).with_name("snakemake")), "--snakefile", str(SNAKEFILE), "--dry-run"]
        for _ in range(3):
            started = time.monotonic()
            used = os.times().children_user
            printed = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
            total = next(line.split()[1] for line in printed.splitlines() if line.startswith("total "))
            seconds, processor = time.monotonic() - started, os.times().children_user - used
            print(f"{total} jobs planned in {seconds:.1f} s, {processor:.1f} s of them on the processor")


if __name__ == "__main__":
    main()
