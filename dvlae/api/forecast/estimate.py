"""How long the jobs take that are left of a grid."""

import heapq
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dvlae.api.forecast.extent import Extent
from dvlae.api.forecast.measure import Measurements, Network
from dvlae.config.dataset import DatasetSettings
from dvlae.config.loading import load_datasets
from dvlae.config.report_names import figures, planned_contents
from dvlae.config.settings import ModelSettings, Settings, TrainSettings
from dvlae.methods.filters.calibration import MAX_IMAGES
from dvlae.methods.search import MINUTES
from dvlae.models.files import read_architecture
from dvlae.runs.folder import DatasetFolder, RunFolder, read_json
from dvlae.runs.status import RunStatus, survey
from dvlae.system.hardware.devices import choose_device, device_name
from dvlae.system.hardware.gpus import count_gpus
from dvlae.system.hardware.machine import share_of_cores, usable_cores
from dvlae.system.progress import silence
from dvlae.system.wording import count, duration, list_names
from dvlae.training.schedule import Schedule, steps_per_epoch

logger = logging.getLogger(__name__)

RULES = (
    "simulate", "prepare", "extract_patches", "register", "diagnose", "train", "predict", "search_method", "run_method",
    "evaluate", "tables", "figures",
)  # fmt: skip
# Of a step of training, a forward pass takes this part.
FORWARD_PART = 1 / 3
# The receptive field of a network whose noise is not measured yet; it hardly changes the time of a step.
USUAL_FIELD = 16
ASSUMPTION = (
    "This assumes that the machine stays as busy as it is now, that jobs do not slow each other down, and that no "
    "training ends before its limit; downloads do not count, and of other methods that train only their minutes."
)


@dataclass(frozen=True)
class Job:
    """A job that is left.

    Attributes
    ----------
    rule
        The name of its rule.
    seconds
        How long it takes.
    on_device
        Whether it occupies the device that computes, or else cores of the processor.
    """

    rule: str
    seconds: float
    on_device: bool = False


@dataclass(frozen=True)
class Remainder:
    """The jobs that are left of a grid.

    Attributes
    ----------
    settings
        The configuration.
    datasets
        Its datasets.
    extents
        The images of each dataset whose size is known.
    measured
        What this machine needs for each kind of job.
    """

    settings: Settings
    datasets: Mapping[str, DatasetSettings]
    extents: Mapping[str, Extent]
    measured: Measurements

    def of_dataset(self, name: str, runs: Iterable[RunStatus]) -> Iterator[Job]:
        """Find the jobs for the images of a dataset.

        Parameters
        ----------
        name
            The dataset.
        runs
            The state of all runs.

        Yields
        ------
        Job
            Nothing if no run of the dataset is left.
        """
        runs = [run for run in runs if run.cell.dataset == name and run.state != "finished"]
        if not runs:
            return
        dataset, extent = self.datasets[name], self.extents[name]
        folder = DatasetFolder(Path(self.settings.results) / name)
        clean = dataset.has_clean
        to_cut, to_register = self.measured.seconds_to_prepare(extent.shape, dataset.evaluation, clean=clean)
        cut = to_cut * extent.pixels
        jobs = [
            ("simulate", folder.simulated, dataset.simulate is not None and not folder.images.exists(), cut),
            ("prepare", folder.images, True, cut),
            ("extract_patches", folder.patches, any(not run.trained for run in runs), cut),
            ("register", folder.targets, True, to_register * self._evaluated_pixels(name)),
            ("diagnose", folder.noise, True, self.measured.seconds_to_draw),
        ]
        for rule, made, needed, seconds in jobs:
            if needed and not made.exists():
                yield self._job(rule, seconds)

    def of_run(self, run: RunStatus) -> Iterator[Job]:
        """Find the jobs of a run, in their order.

        Parameters
        ----------
        run
            Its state.

        Yields
        ------
        Job
            Nothing if the run is finished.
        """
        if run.state == "finished":
            return
        dataset, extent = self.datasets[run.cell.dataset], self.extents[run.cell.dataset]
        folder = RunFolder.of(Path(self.settings.results), run.cell.dataset, run.cell.method.name, run.cell.seed)
        if run.cell.method.has_model:
            settings = run.cell.method.configure(self.settings)
            network = self._network(run, settings)
            if not run.trained:
                yield self._job("train", self._seconds_to_train(run, settings, network), on_device=True)
            if not (run.trained and folder.prediction_record.exists()):
                of_pixel = self.measured.seconds_to_denoise(network, settings.prediction, extent.shape[1:])
                yield self._job("predict", of_pixel * extent.pixels, on_device=True)
        elif not folder.method_record.exists():
            yield from self._of_method(run, folder)
        of_pixel = self.measured.seconds_to_evaluate(extent.shape, clean=dataset.has_clean)
        yield self._job("evaluate", of_pixel * self._evaluated_pixels(run.cell.dataset))

    def of_grid(self) -> Iterator[Job]:
        """Find the jobs that end a grid.

        Yields
        ------
        Job
            The tables and the figures.
        """
        yield self._job("tables", 0.0)
        drawn = figures(planned_contents(self.settings, self.datasets))
        yield self._job("figures", self.measured.seconds_to_draw * len(drawn))

    def _evaluated_pixels(self, name: str) -> float:
        """Return the pixels of the images of a dataset that are evaluated."""
        extent = self.extents[name]
        return extent.pixels * extent.evaluated(self.datasets[name]) / extent.images

    def _job(self, rule: str, seconds: float, *, on_device: bool = False) -> Job:
        """Return a job that takes so many seconds after its start."""
        return Job(rule, self.measured.start(rule) + seconds, on_device)

    def _of_method(self, run: RunStatus, folder: RunFolder) -> Iterator[Job]:
        """Find the jobs of a method that has a file, without a model of our own network."""
        method, how = run.cell.method, run.cell.method.file
        assert how is not None
        dataset, extent = self.datasets[run.cell.dataset], self.extents[run.cell.dataset]
        seconds = 0.0
        if how.unavailable is None and how.device in ("any", self.measured.device):
            if how.trains:
                minutes = self.settings.training.max_minutes or 0.0
                seconds = 60 * minutes
                found = folder.path.with_name("search.json")
                if how.candidates and not found.exists() and run.cell.seed == self.settings.seeds[0]:
                    searched = 60 * len(how.candidates) * min(MINUTES, minutes)
                    yield self._job("search_method", searched, on_device=True)
            elif how.function is not None:
                filtering = self.measured.filtering(
                    method.given, extent.shape, dataset.noise_direction, clean=dataset.has_clean
                )
                fitted = min(1.0, MAX_IMAGES / extent.images) * extent.pixels
                seconds = filtering.to_fit * fitted + filtering.to_denoise * extent.pixels
            else:
                seconds = 60 * how.prediction_minutes
        yield self._job("run_method", seconds, on_device=method.learns or how.device == "cuda")

    def _network(self, run: RunStatus, settings: Settings) -> Network:
        """Return the network of a run."""
        method, extent = run.cell.method, self.extents[run.cell.dataset]
        direction = self.datasets[run.cell.dataset].noise_direction
        crop, patch = extent.patch(settings)
        if method.model is not None:
            sizes = {name: value for name, value in asdict(read_architecture(Path(method.model))).items() if value}
            known = {name: sizes[name] for name in ModelSettings.model_fields if name in sizes}
            settings = settings.model_copy(update={"model": ModelSettings(**known)})
        field = method.receptive_field
        if field == "auto":
            noise = read_json(DatasetFolder(Path(self.settings.results) / run.cell.dataset).noise)
            field = noise.get("receptive_field") or USUAL_FIELD
        field = 0 if direction == "none" or field is None else field
        return Network(TrainSettings.of(settings), extent.shape[0], crop, patch, field, direction)

    def _seconds_to_train(self, run: RunStatus, settings: Settings, network: Network) -> float:
        """Return how long a training takes until its first limit."""
        limits, extent = settings.training, self.extents[run.cell.dataset]
        rate = self.measured.steps_per_second(network)
        places = math.prod(math.ceil(side / own) for side, own in zip(extent.shape[1:], network.patch, strict=True))
        of_patch = math.prod(network.patch)
        patches = min(extent.images * places, max(2, limits.max_patch_pixels // of_patch))
        held_out = max(1, round(patches * limits.validation_fraction))
        of_batch = limits.batch_size * math.prod(network.crop)
        of_epoch = steps_per_epoch(limits, (patches - held_out) * of_patch, network.crop)
        steps = Schedule(limits, of_epoch).total_steps
        validated = min(held_out, limits.max_validation_patches or held_out) * of_patch / of_batch
        seconds = (steps + math.ceil(steps / of_epoch) * FORWARD_PART * validated) / rate
        if limits.max_minutes is not None:
            seconds = min(seconds, 60 * limits.max_minutes)
        return seconds if run.left is None else min(seconds, run.left)


def estimate(settings: Settings, cores: int | None = None) -> str:
    """Estimate how long the rest of a grid takes on this machine, after measurements of some seconds each.

    Parameters
    ----------
    settings
        The configuration.
    cores
        The cores that Snakemake will be given; None: all that are usable.

    Returns
    -------
    str
        Lines of text: a table of the rules, the time of all jobs, and what it assumes.

    Raises
    ------
    UserError
        If a dataset's file is missing or wrong, or the device is missing.
    """
    cores = cores or usable_cores()
    device = choose_device(settings.device)
    gpus = 0 if device.type == "cpu" else max(1, count_gpus() // settings.devices)
    runs, _ = survey(settings)
    datasets = load_datasets(settings.datasets)
    with silence():
        found = {name: Extent.find(name, dataset, settings) for name, dataset in datasets.items()}
    extents = {name: extent for name, extent in found.items() if extent is not None}
    trainings = sum(run.cell.method.learns for run in runs)
    workers = 1 if gpus else _workers(settings, trainings, cores)
    at_once = gpus or max(1, cores // workers)
    logger.info("estimate: measures how fast this machine is")
    with TemporaryDirectory(prefix="dvlae-") as folder, silence():
        measured = Measurements(Path(folder), device.type, workers)
        rest = Remainder(settings, datasets, extents, measured)
        before = [list(rest.of_dataset(name, runs)) for name in extents]
        chains = [(run.cell.method.learns, list(rest.of_run(run))) for run in runs if run.cell.dataset in extents]
        jobs = [job for chain in [*before, *(chain for _, chain in chains)] for job in chain]
        after = list(rest.of_grid()) if jobs else []
    seconds = makespan(map(_sum, before), cores) + _seconds_of_runs(chains, cores, gpus, at_once) + _sum(after)
    lines = []
    if jobs:
        where = count(cores, "core") + (f", {gpus} x {device_name(device)}" if gpus else "")
        lines = [_table([*jobs, *after]), "", f"in all about {duration(seconds)} with {where}"]
        if rates := measured.step_rates:
            shown = " to ".join(dict.fromkeys(f"{rate:.3g}" for rate in (min(rates), max(rates))))
            lines[-1] += f"; {count(at_once, 'training')} at a time, with {shown} steps in a second each"
        lines.append(ASSUMPTION)
    if unknown := [name for name in found if name not in extents]:
        lines.append(
            f"not in it: {list_names(unknown)}; the images are not here yet, and `size` in the file of the dataset "
            "does not say how many there are"
        )
    return "\n".join(lines) or "nothing is left to do"


def _workers(settings: Settings, trainings: int, cores: int) -> int:
    """Return the cores that the workflow gives to a training on a processor."""
    if settings.training.workers != "auto":
        return settings.training.workers
    return share_of_cores(cores, trainings, settings.training.batch_size)


def _seconds_of_runs(chains: Sequence[tuple[bool, Sequence[Job]]], cores: int, gpus: int, at_once: int) -> float:
    """Return how long runs take, each of which learns or not: on GPUs beside the cores, or all on the cores."""
    if gpus:
        on_device, beside = (
            [_sum(job for job in chain if job.on_device == which) for _, chain in chains] for which in (True, False)
        )
        return max(makespan(on_device, gpus), makespan(beside, cores))
    learning, others = ([_sum(chain) for learns, chain in chains if learns == which] for which in (True, False))
    return makespan(learning, at_once) + makespan(others, cores)


def makespan(chains: Iterable[float], slots: int) -> float:
    """Return when the last of some chains of jobs ends, if the next one starts as soon as a slot is free.

    Parameters
    ----------
    chains
        Seconds of each chain.
    slots
        How many run at a time.

    Returns
    -------
    float
        In seconds.

    Examples
    --------
    >>> makespan([10, 10, 10], 2)
    20
    """
    ends: list[float] = [0] * slots
    for seconds in chains:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


def _sum(jobs: Iterable[Job]) -> float:
    return sum(job.seconds for job in jobs)


def _table(jobs: list[Job]) -> str:
    """Return a line for each rule: the jobs that are left, and how long they take one after the other."""
    rows = [("rule", "left", "one after the other")]
    for rule in RULES:
        mine = [job for job in jobs if job.rule == rule]
        if mine:
            rows.append((rule, str(len(mine)), duration(_sum(mine))))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(f"{rule:{widths[0]}}  {left:>{widths[1]}}  {time:>{widths[2]}}" for rule, left, time in rows)
