"""The progress of a grid: what is finished, running, failed or waiting, and how long the rest will take.

It is read from the results and from the logs and benchmarks that the workflow writes next to them, while the workflow
runs or afterwards, on one machine or on a cluster.
"""

import csv
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from dvlae.config.grid import Cell, resolve_grid
from dvlae.config.loading import load_datasets
from dvlae.config.settings import Settings, TrainSettings
from dvlae.runs.folder import RunFolder
from dvlae.runs.record import read_run
from dvlae.system.progress import time_left
from dvlae.system.wording import duration

# A job that writes nothing for longer is considered dead. A live one prints its progress every ten seconds.
MAX_SILENCE_SECONDS = 300
MAX_LISTED_JOBS = 20
# The rules that are `prediction.jobs` jobs each.
DIVIDED_RULES = ("predict", "run_part_of_method", "evaluate")
# Only the end of a log is read.
MAX_TAIL_BYTES = 8192
# A shell reports a signal as a larger exit status, for example SIGKILL as 137.
MIN_SIGNAL_STATUS = 128


@dataclass(frozen=True)
class Job:
    """A job of the workflow that has started.

    Attributes
    ----------
    name
        The path of its log, for example ``train/sem_line/dvlae-rf40/seed0``.
    state
        ``"finished"``, ``"running"``, ``"failed"`` or ``"stopped"`` (killed, or silent for a long time).
    words
        The last line of its log.
    log
        The path of its log.
    silence
        Seconds since it last wrote to its log.
    """

    name: str
    state: str
    words: str
    log: Path
    silence: float

    @property
    def rule(self) -> str:
        """The name of its rule."""
        return self.name.partition("/")[0]

    @property
    def place(self) -> str:
        """The part of the grid that it works on: ``DATASET/METHOD/seedN``, ``DATASET``, or empty for all."""
        return self.name.partition("/")[2].partition("/parts/")[0]

    @property
    def parts(self) -> int:
        """The number of parts of the dataset, of which it works on one; 1: it works on the whole."""
        return int(self.name.partition("/")[2].partition("/parts/")[2].partition("-of-")[2] or 1)


@dataclass(frozen=True)
class RunStatus:
    """The progress of one cell of the grid.

    Attributes
    ----------
    cell
        The cell.
    state
        ``"finished"``, ``"running"``, ``"failed"`` or ``"waiting"``.
    psnr
        Mean over its images, in decibels; None if it is not measured yet, or there is no clean image.
    seconds
        Duration of its training; None if there is no finished training.
    left
        Remaining seconds of its training, from the log; None if the log does not contain them.
    """

    cell: Cell
    state: str
    psnr: float | None
    seconds: float | None
    left: float | None

    @property
    def trained(self) -> bool:
        """Whether there is a model, or none is needed."""
        return self.seconds is not None or not self.cell.method.trained


def describe_status(settings: Settings) -> str:
    """Describe the progress of a configuration's grid.

    Parameters
    ----------
    settings
        The configuration.

    Returns
    -------
    str
        Lines of text: the number of runs in each state, one line per dataset, and the jobs that failed, were stopped or
        are running.

    Raises
    ------
    UserError
        If a dataset's file is missing or wrong, or the record of a training cannot be read.
    """
    runs, jobs = survey(settings)
    counts = Counter(run.state for run in runs)
    states = ", ".join(f"{counts[state]} {state}" for state in ("running", "failed", "waiting"))
    lines = [
        f"{settings.results}: {counts['finished']} of {len(runs)} runs finished, {states}{_time_left(runs, settings)}",
        "",
        _table(runs),
    ]
    for state in ("failed", "stopped", "running"):
        lines += _describe_jobs([job for job in jobs if job.state == state], state)
    return "\n".join(lines)


def survey(settings: Settings) -> tuple[list[RunStatus], list[Job]]:
    """Find the state of every run of a configuration's grid, and of every job that has started for it.

    Parameters
    ----------
    settings
        The configuration.

    Returns
    -------
    runs, jobs
        The runs in the order of the grid, and the jobs sorted by name.

    Raises
    ------
    UserError
        If a dataset's file is missing or wrong, or the record of a training cannot be read.
    """
    datasets = load_datasets(settings.datasets)
    results = Path(settings.results)
    names = {f"{cell.dataset}/{cell.method.name}/seed{cell.seed}": cell for cell in resolve_grid(settings, datasets)}
    jobs: dict[str, list[Job]] = {name: [] for name in [*names, *datasets, ""]}
    for job in _jobs(results):
        if job.place in jobs and not _is_past(job, settings.prediction.jobs):
            jobs[job.place].append(job)
    runs = [_run_status(results, settings, cell, jobs[name]) for name, cell in names.items()]
    finished = {name for name, run in zip(names, runs, strict=True) if run.state == "finished"}
    shown = [job for own in jobs.values() for job in own if job.state == "finished" or job.place not in finished]
    return runs, sorted(shown, key=lambda job: job.name)


def _is_past(job: Job, parts: int) -> bool:
    """Return whether a job is not repeated, because the dataset is now divided into another number of parts."""
    if job.rule in DIVIDED_RULES:
        return job.parts != parts
    return job.rule.startswith("gather_") and parts == 1


def _jobs(results: Path) -> Iterable[Job]:
    """Read the state of each job from its log, its benchmark and ``LOG.failed``.

    Snakemake writes the benchmark when a job has succeeded. When it has failed, the rule writes its exit status and the
    last line of its log to ``LOG.failed``. If the log is newer than these files, they belong to an earlier attempt.
    """
    for log in sorted((results / "logs").rglob("*.log")):
        name = log.relative_to(results / "logs").with_suffix("").as_posix()
        written = log.stat().st_mtime
        silence = time.time() - written
        if _modified(results / "benchmarks" / f"{name}.tsv") >= written:
            yield Job(name, "finished", "", log, silence)
        elif _modified(failure := log.with_name(f"{log.name}.failed")) >= written:
            status, _, words = failure.read_text(encoding="utf-8", errors="replace").strip().partition(" ")
            yield Job(name, "stopped" if int(status or 1) >= MIN_SIGNAL_STATUS else "failed", words, log, silence)
        else:
            yield Job(name, "running" if silence < MAX_SILENCE_SECONDS else "stopped", _last_line(log), log, silence)


def _modified(path: Path) -> float:
    """Return the time of a file's last change; minus infinity if there is no such file."""
    return path.stat().st_mtime if path.exists() else -math.inf


def _last_line(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(-min(MAX_TAIL_BYTES, path.stat().st_size), os.SEEK_END)
        return file.read().decode("utf-8", errors="replace").strip().rpartition("\n")[2].strip()


def _run_status(results: Path, settings: Settings, cell: Cell, jobs: Sequence[Job]) -> RunStatus:
    folder = RunFolder.of(results, cell.dataset, cell.method.name, cell.seed)
    seconds = _training_seconds(folder, cell.method.configure(settings))
    # A job whose log is older than the measurement was replaced by one that left no log, as after a kill.
    age = time.time() - _modified(folder.psnr)
    states = {job.state for job in jobs if job.silence < age}
    done = folder.psnr.exists() and "stopped" not in states and (seconds is not None or not cell.method.trained)
    state = next((state for state in ("failed", "running") if state in states), "finished" if done else "waiting")
    left = next((time_left(job.words) for job in jobs if job.rule == "train" and job.state != "finished"), None)
    return RunStatus(cell, state, _mean_psnr(folder.psnr), seconds, left)


def _training_seconds(folder: RunFolder, settings: Settings) -> float | None:
    """Return the duration of a training; None if there is none, or one with other settings, which will run again."""
    if not folder.training_record.exists():
        return None
    record = read_run(folder.model)
    wanted = TrainSettings.of(settings).record()
    recorded = TrainSettings.complete(record.get("settings", {}))
    found = {name: recorded.get(name) for name in wanted}
    return record.get("seconds") if found == wanted else None


def _mean_psnr(path: Path) -> float | None:
    """Return the mean over images, in decibels; None without a table or without clean images."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            values = [float(row["psnr"]) for row in csv.DictReader(file) if row["psnr"]]
    except FileNotFoundError:
        return None
    return mean(values) if values else None


def _time_left(runs: Sequence[RunStatus], settings: Settings) -> str:
    """Estimate the time of the unfinished trainings if as many run at a time as now."""
    waiting = [run for run in runs if not run.trained]
    if not waiting:
        return ""
    done = [run.seconds for run in runs if run.seconds is not None]
    minutes = settings.training.max_minutes
    usual = mean(done) if done else None if minutes is None else 60 * minutes
    left = [usual if run.left is None else run.left for run in waiting]
    known = [seconds for seconds in left if seconds is not None]
    if len(known) < len(left):
        return "; how long it will take is known once a training is done"
    at_a_time = max(1, sum(run.state == "running" for run in waiting))
    return f"; about {duration(sum(known) / at_a_time)} of training left, {at_a_time} at a time"


def _table(runs: Sequence[RunStatus]) -> str:
    """Return one line per dataset."""
    states = ["finished", "running", "failed", "waiting"]
    rows = [["dataset", *states, "best PSNR so far"]]
    for dataset in dict.fromkeys(run.cell.dataset for run in runs):
        mine = [run for run in runs if run.cell.dataset == dataset]
        counts = Counter(run.state for run in mine)
        rows.append([dataset, *(str(counts[state]) for state in states), _best(mine)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:]), row[-1]]).rstrip() for row in rows
    )


def _best(runs: Sequence[RunStatus]) -> str:
    """Return the method with the highest PSNR, averaged over the finished seeds."""
    values: dict[str, list[float]] = {}
    for run in runs:
        if run.psnr is not None:
            values.setdefault(run.cell.method.name, []).append(run.psnr)
    if not values:
        return ""
    method = max(values, key=lambda name: mean(values[name]))
    return f"{mean(values[method]):.2f} dB, {method}"


def _describe_jobs(jobs: Sequence[Job], state: str) -> list[str]:
    """Return lines with the last message of each job and, unless it is running, the path of its log."""
    lines = ["", f"{state}:"] if jobs else []
    for job in jobs[:MAX_LISTED_JOBS]:
        lines.append(f"  {job.name}: {job.words or 'nothing said yet'}")
        if state != "running":
            lines.append(f"    {duration(job.silence)} ago; {job.log}")
    if len(jobs) > MAX_LISTED_JOBS:
        lines.append(f"  and {len(jobs) - MAX_LISTED_JOBS} more")
    return lines
