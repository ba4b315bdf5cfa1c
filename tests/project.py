"""A folder in which the workflow runs for real, with budgets of seconds."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

TINY = {
    "datasets": ["small"],
    "receptive_fields": [4],
    "results": "results",
    "device": "cpu",
    "model": {"levels": 2, "channels": 8, "latent_channels": 4},
    "training": {"patch_size": 32, "batch_size": 2, "max_steps": 5, "max_minutes": None, "workers": 1},
    "prediction": {"samples": 2},
}
SMALL = {
    "source": {"kind": "skimage"},
    "noisy": ["camera.png", "coins.png", "moon.png"],
    "crop": {"y": [100, 180], "x": [100, 196]},
    "axes": "YX",
    "noise_direction": "x",
    "simulate": {"kernel": [1.0, 0.6, 0.36]},
    "evaluation": {"data_range": 255},
}


class Project:
    """A working folder with a configuration and datasets, in which Snakemake runs as a user would run it."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "config/datasets").mkdir(parents=True)
        self.configure()
        self.add_dataset("small", SMALL)

    def configure(self, **changes) -> None:
        """Write the tiny configuration with some keys changed."""
        self._write("config/config.yaml", TINY | changes)

    def add_dataset(self, name: str, settings: dict) -> None:
        self._write(f"config/datasets/{name}.yaml", settings)

    def _write(self, path: str, settings: dict) -> None:
        (self.folder / path).write_text(yaml.safe_dump(settings))

    def snakemake(self, *words: str, before: Sequence[str] = (), fails: bool | None = False, **environment: str) -> str:
        """Run Snakemake, through the command ``before`` where one is given; return all that it printed.

        Its environment is not activated: the steps have to be found without.

        ``fails``: whether it has to; None: it may.
        """
        path = [folder for folder in os.environ["PATH"].split(os.pathsep) if folder != str(BIN)]
        done = subprocess.run(
            [
                *before,
                str(BIN / "snakemake"),
                "--snakefile",
                str(REPOSITORY / "workflow/Snakefile"),
                "--cores",
                "2",
                *words,
            ],
            cwd=self.folder,
            env=os.environ | {"PATH": os.pathsep.join(path)} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
        )
        assert fails is None or (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def planned(self, *words: str) -> dict[str, int]:
        """Return how many jobs of each rule a run would have."""
        return jobs(self.snakemake("--dry-run", *words))

    def spans(self, rule: str) -> list[tuple[float, float]]:
        """Return the start and the end of each finished job of a rule, in seconds, the first one first."""
        files = list((self.folder / "results/benchmarks" / rule).rglob("*.tsv"))
        ends = [file.stat().st_mtime for file in files]
        seconds = [float(file.read_text().splitlines()[1].split("\t")[0]) for file in files]
        return sorted((end - duration, end) for end, duration in zip(ends, seconds, strict=True))

    def read(self, path: str) -> bytes:
        return (self.folder / "results" / path).read_bytes()

    def json(self, path: str) -> dict:
        return json.loads(self.read(path))

    def files(self, pattern: str) -> list[str]:
        """Return the files under the results that match, without Snakemake's own."""
        found = (path for path in (self.folder / "results").glob(pattern) if path.is_file())
        return sorted(str(path.relative_to(self.folder / "results")) for path in found if path.name[0] != ".")


def jobs(printed: str) -> dict[str, int]:
    """Return the counts in Snakemake's table of jobs; empty where there was nothing to do."""
    if "Nothing to be done" in printed:
        return {}
    lines = printed.partition("Job stats:\n")[2].partition("\n\n")[0].splitlines()[2:]
    counts = dict(line.split() for line in lines)
    return {rule: int(count) for rule, count in counts.items() if rule not in {"all", "total"}}


def error_lines(printed: str) -> set[str]:
    """Return the different lines: a long job shows its line at once, and Snakemake its log at the end."""
    return {line for line in printed.splitlines() if line.startswith("dvlae ") and "error:" in line}
