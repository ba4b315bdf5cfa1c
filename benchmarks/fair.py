"""Run a comparison of methods cell by cell, each on one core, and go on where an earlier call stopped.

    python benchmarks/fair.py config/fair_sem.yaml

A cell is one method on one dataset with one seed. It, and before it the search for its settings, are stopped after
``--cell-minutes``: the next call goes on with a training of our own network, and begins any other again. A cell whose
training had less than 95 % of its core is repeated. No cell begins after ``--minutes``. Tables and figures come last.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from dvlae.config.grid import Cell, resolve_grid
from dvlae.config.loading import load_configuration, load_datasets
from dvlae.runs.folder import RunFolder, read_json

MIN_SHARE = 0.95
REPETITIONS = 2


def snakemake(configuration: str, *targets: str, minutes: float | None = None) -> bool:
    """Run Snakemake on one core; return whether it made the targets in time. If not, the next call goes on."""
    command = [sys.executable, "-m", "snakemake", *targets, "--configfile", configuration]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--cores", "1", "--rerun-incomplete"], env=environment, process_group=0
    )
    try:
        return process.wait(minutes and 60 * minutes) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            # As Ctrl-C does, this ends all its jobs.
            os.killpg(process.pid, signal.SIGINT)
            process.wait()


def processor_share(run: RunFolder) -> float | None:
    """Return the part of its core that the training of a run had; None if it trained nothing."""
    records = (read_json(path) for path in (run.training_record, run.method_record))
    return next((record.get("processor_share") for record in records if record), None)


def run_cell(configuration: str, results: Path, cell: Cell, minutes: float) -> str:
    """Run a cell, again if it had too little of its core; return what became of it."""
    run = RunFolder.of(results, cell.dataset, cell.method.name, cell.seed)
    searched = cell.method.file is not None and bool(cell.method.file.candidates)
    targets = [run.path.with_name("search.json")] if searched else []
    for _ in range(1 + REPETITIONS):
        if not all(snakemake(configuration, str(target), minutes=minutes) for target in [*targets, run.psnr]):
            return f"not finished in {minutes:g} minutes, or failed, as the log says; the next call goes on"
        share = processor_share(run)
        if share is None or share >= MIN_SHARE:
            return "done" if share is None else f"done with {share:.0%} of a core"
        print(f"{run.path}: had {share:.0%} of a core, is repeated", flush=True)
        shutil.rmtree(run.path)
    return f"removed, as it had less than {MIN_SHARE:.0%} of a core {1 + REPETITIONS} times"


def main() -> None:
    """Run all cells, then make the tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configuration")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no cell begins later")
    parser.add_argument("--cell-minutes", type=float, default=20.0, help="a cell that takes longer is stopped")
    arguments = parser.parse_args()
    # So that the jobs end, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; the same command goes on"))
    settings = load_configuration([arguments.configuration])
    cells = resolve_grid(settings, load_datasets(settings.datasets))
    end, left = time.monotonic() + 60 * arguments.minutes, 0
    for number, cell in enumerate(cells, start=1):
        if time.monotonic() > end:
            left = len(cells) - number + 1
            break
        what = run_cell(arguments.configuration, Path(settings.results), cell, arguments.cell_minutes)
        left += not what.startswith("done")
        print(f"{number}/{len(cells)} {cell.dataset} {cell.method.name} seed {cell.seed}: {what}", flush=True)
    if left or not snakemake(arguments.configuration):
        sys.exit(f"{left} of {len(cells)} cells are left" if left else "the tables or figures failed")


if __name__ == "__main__":
    main()
