"""Run a comparison of methods cell by cell, each on one core, and go on where an earlier call stopped.

    python benchmarks/fair.py config/fair_sem.yaml

A cell is one method on one dataset with one seed. It, and before it the search for its settings, are stopped after
``--cell-minutes``: the next call goes on with a training of our own network, and begins any other again. A cell whose
training had less than 95 % of its core is repeated. No cell begins after ``--minutes``.

The scores and records of a finished cell, some kilobytes, are kept in ``results/reference/NAME``, for ``results:
results/NAME``. When no cell is left, tables are made there of all that is kept, so that each call can run on another
machine, without the results of the one before. A cell is made again if its settings, or the revisions of its steps,
have changed, or if its folder is removed. Figures come last, in ``results/NAME/figures``. Those that show images have
the methods whose denoised images are in ``results/NAME``.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dvlae import revision
from dvlae.config.dataset import DatasetSettings
from dvlae.config.grid import Cell, resolve_grid
from dvlae.config.loading import load_configuration, load_datasets
from dvlae.config.settings import PredictSettings, Settings, TrainSettings
from dvlae.reporting.figures import make_figures
from dvlae.reporting.tables import make_tables
from dvlae.runs.folder import DatasetFolder, RunFolder, read_json
from dvlae.system.errors import UserError
from dvlae.system.files import write_json

MIN_SHARE = 0.95
REPETITIONS = 2
# Says what the cells of a method depend on.
IDENTITY = "identity.json"


def snakemake(configuration: str, *words: object, minutes: float | None = None) -> bool:
    """Run Snakemake on one core; return whether it made the targets in time. If not, the next call goes on."""
    command = [sys.executable, "-m", "snakemake", *map(str, words), "--configfile", configuration]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--cores", "1", "--rerun-incomplete"], env=environment, process_group=0)
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


def agrees(kept: Any, now: Any) -> bool:
    """Return whether values are the same; keys that newer versions have added are not looked at."""
    if isinstance(kept, dict) and isinstance(now, dict):
        return all(key in now and agrees(value, now[key]) for key, value in kept.items())
    return kept == now


@dataclass(frozen=True)
class Comparison:
    """A comparison: its configuration, and the minutes after which a cell is stopped."""

    configuration: str
    minutes: float

    @cached_property
    def settings(self) -> Settings:
        """The content of the configuration."""
        return load_configuration([self.configuration])

    @cached_property
    def datasets(self) -> Mapping[str, DatasetSettings]:
        """Its datasets by name."""
        return load_datasets(self.settings.datasets)

    @cached_property
    def cells(self) -> Sequence[Cell]:
        """All cells, in the order of the tables."""
        return resolve_grid(self.settings, self.datasets)

    @property
    def results(self) -> Path:
        """The folder in which Snakemake works."""
        return Path(self.settings.results)

    @property
    def reference(self) -> Path:
        """The folder of what is kept, with the same places of files."""
        return self.results.parent / "reference" / self.results.name

    def run(self, cell: Cell, folder: Path | None = None) -> RunFolder:
        """Return the folder of a cell in the results, or in another folder."""
        return RunFolder.of(folder or self.results, cell.dataset, cell.method.name, cell.seed)

    def noise(self, dataset: str, folder: Path | None = None) -> Path:
        """Return the diagnosis of a dataset in the results, or in another folder."""
        return DatasetFolder((folder or self.results) / dataset).noise

    def identity(self, cell: Cell) -> dict[str, Any]:
        """Return what the result of a cell depends on, apart from the seed, as the rules of the workflow do."""
        method, dataset = cell.method, self.datasets[cell.dataset]
        steps = ["PREPARE", "EVALUATION"]
        found: dict[str, Any] = {
            "dataset": dataset.model_dump(mode="json", exclude={"title", "license", "citation", "sweep"})
        }
        if method.has_model:
            own = method.configure(self.settings)
            found |= json.loads(TrainSettings.of(own).identity_json())
            found |= json.loads(PredictSettings.of(own).identity_json())
            found |= {"receptive_field": method.receptive_field, "model_folder": method.model}
            steps += ["PATCHES", "TRAINING", "PREDICTION"]
        else:
            # As text, since a setting that a method was not given is another method.
            found["method"] = {key: json.dumps(value) for key, value in json.loads(method.file.identity).items()}
            found["minutes"] = self.settings.training.max_minutes if method.learns else None
            steps += ["METHODS"]
        return found | {"revisions": {step: getattr(revision, step) for step in steps}}

    def is_current(self, cell: Cell) -> bool:
        """Return whether what is kept of a method was made as it would be made now."""
        kept = read_json(self.run(cell, self.reference).path.with_name(IDENTITY))
        return bool(kept) and agrees(kept, self.identity(cell))

    def is_kept(self, cell: Cell) -> bool:
        """Return whether a cell need not be run."""
        return self.run(cell, self.reference).psnr.exists() and self.is_current(cell)

    def keep(self, cell: Cell) -> None:
        """Copy what tables are made of."""
        run = self.run(cell)
        method = self.run(cell, self.reference).path.parent
        if not self.is_current(cell):
            shutil.rmtree(method, ignore_errors=True)
        records = [run.method_record, run.prediction_record, run.evaluation_record]
        model = [run.training_record, run.architecture, run.history]
        of_dataset = [run.path.with_name("search.json"), run.dataset.patch_description, self.noise(cell.dataset)]
        # The last one says that the cell is complete.
        for file in [*records, *model, *of_dataset, run.psnr]:
            if file.exists():
                copy = self.reference / file.absolute().relative_to(self.results.absolute())
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
        write_json(method / IDENTITY, self.identity(cell))

    def search(self, cell: Cell) -> bool:
        """Search the settings of a method, if it has candidates, or put them back; return whether they are there."""
        if cell.method.file is None or not cell.method.file.candidates:
            return True
        found, kept = (self.run(cell, folder).path.with_name("search.json") for folder in (None, self.reference))
        if kept.exists() and not found.exists() and self.is_current(cell):
            # Snakemake accepts a file that it did not make only if all that the file is made of is there, and older.
            # With `--touch` it records the settings, so that it notices when they change.
            if not snakemake(self.configuration, found, "--omit-from", "search_method", minutes=self.minutes):
                return False
            found.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(kept, found)
            return snakemake(self.configuration, found, "--touch", "--forcerun", "search_method")
        return snakemake(self.configuration, found, minutes=self.minutes)

    def run_cell(self, cell: Cell) -> str:
        """Run a cell, again if it had too little of its core, and keep it; return what became of it."""
        run = self.run(cell)
        targets = run.psnr, self.noise(cell.dataset)
        for _ in range(1 + REPETITIONS):
            if not self.search(cell) or not snakemake(self.configuration, *targets, minutes=self.minutes):
                return f"not finished in {self.minutes:g} minutes, or failed, as the log says; the next call goes on"
            record = read_json(run.method_record)
            if record.get("status") == "failed":
                shutil.rmtree(run.path)
                run.path.with_name("search.json").unlink(missing_ok=True)
                return f"failed: {record['reason']}"
            share = processor_share(run)
            if share is None or share >= MIN_SHARE:
                self.keep(cell)
                return "done" if share is None else f"done with {share:.0%} of a core"
            print(f"{run.path}: had {share:.0%} of a core, is repeated", flush=True)
            shutil.rmtree(run.path)
        return f"removed, as it had less than {MIN_SHARE:.0%} of a core {1 + REPETITIONS} times"

    def tabulate(self) -> None:
        """Make the tables of all cells that are kept."""
        kept = [cell for cell in self.cells if self.is_kept(cell)]
        noise = {name: self.noise(name, self.reference) for name in dict.fromkeys(cell.dataset for cell in kept)}
        make_tables([self.run(cell, self.reference).psnr for cell in kept], self.reference, noise=noise)
        for file in [*self.reference.glob("*.tex"), *self.reference.glob("*.html")]:
            file.unlink()

    def draw(self) -> bool:
        """Draw the figures; return whether the images of all datasets could be made."""
        noise = {name: self.noise(name) for name in self.datasets}
        if not snakemake(self.configuration, *noise.values()):
            return False
        here = [self.run(cell) for cell in self.cells]
        kept = [self.run(cell, self.reference) for cell in self.cells]
        folders = {name: self.run(Cell(name, self.cells[0].method, 0)).dataset for name in self.datasets}
        make_figures(
            [(one if one.denoised.exists() else other).psnr for one, other in zip(here, kept, strict=True)],
            self.results / "figures",
            images={name: folder.images for name, folder in folders.items()},
            settings={name: dataset.evaluation for name, dataset in self.datasets.items()},
            noise=noise,
            targets={name: folder.targets for name, folder in folders.items()},
        )
        return True


def main() -> None:
    """Run all cells that are not kept, then make the tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configuration", help="such as config/fair_sem.yaml")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no cell begins later (%(default)g)")
    parser.add_argument("--cell-minutes", type=float, default=20.0, help="a longer cell is stopped (%(default)g)")
    parser.add_argument(
        "--partial", action="store_true", help="make tables of the cells that are done, if some are left"
    )
    arguments = parser.parse_args()
    # So that the jobs end, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; the same command goes on"))
    comparison = Comparison(arguments.configuration, arguments.cell_minutes)
    end, left = time.monotonic() + 60 * arguments.minutes, 0
    for number, cell in enumerate(comparison.cells, start=1):
        if comparison.is_kept(cell):
            what = "done before"
        elif time.monotonic() > end:
            what = "left, as the time is over"
        else:
            what = comparison.run_cell(cell)
        left += not what.startswith("done")
        name = f"{cell.dataset} {cell.method.name} seed {cell.seed}"
        print(f"{number}/{len(comparison.cells)} {name}: {what}", flush=True)
    if not left or (arguments.partial and left < len(comparison.cells)):
        comparison.tabulate()
    if left:
        sys.exit(f"{left} of {len(comparison.cells)} cells are left")
    if not comparison.draw():
        sys.exit("the images of a dataset could not be made, as the log says, so that there are no figures")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"fair: error: {error}")
