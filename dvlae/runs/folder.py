"""The paths of the files of a run and of its dataset, and the content of these files."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from dvlae.config.grid import dvlae_method
from dvlae.runs.record import RECORD_NAME, read_run
from dvlae.system.errors import UserError

# The status of a run that has denoised the images.
DONE = "done"
PSNR_COLUMNS = ("dataset", "method", "receptive_field", "seed", "image", "psnr", "ssim", "psnr_noisy")
# Older tables end before them.
MEASURE_COLUMNS = ("si_psnr", "ms_ssim", "kept_band", "removed_details", "reference_noise", "psnr_limit")


class _Below:
    """A path below the folder that has it as an attribute."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, folder: "DatasetFolder | RunFolder", owner: type) -> Path:
        return folder.path / self.name


@dataclass(frozen=True)
class DatasetFolder:
    """The folder ``RESULTS/DATASET``, which contains a folder for each method.

    Attributes
    ----------
    path
        The folder itself.
    simulated
        The images to which noise was added.
    images
        The canonical images and their manifest.
    targets
        The table of what each image is compared with.
    patches
        The patches for training.
    patch_description
        The sources of the patches, and their hashes.
    """

    path: Path

    simulated = _Below("simulated")
    images = _Below("images")
    targets = _Below("targets.csv")
    patches = _Below("patches")
    patch_description = _Below("patches/patches.json")

    @property
    def noise(self) -> Path:
        """What the diagnosis of the noise found, beside the figures of all datasets."""
        return self.path.with_name("figures") / f"noise_{self.path.name}.json"


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, ``RESULTS/DATASET/METHOD/seedN``.

    Attributes
    ----------
    path
        The folder itself.
    checkpoints
        The unfinished training.
    tensorboard
        The history of the training for TensorBoard.
    model
        The trained model.
    architecture, history, training_record
        The sizes of the model, the history of the training, and its record.
    denoised, uncertainty, samples
        The denoised images, the standard deviations of the posterior, and samples of the posterior.
    prediction_record, method_record
        The record of what made the denoised images, or of why there are none.
    psnr
        The PSNR of each image.
    evaluation_record
        The record of the evaluation.
    parts
        A folder for each part of a dataset that several jobs share, with the files above that these jobs make.
    """

    path: Path

    checkpoints = _Below("checkpoints")
    tensorboard = _Below("tensorboard")
    model = _Below("model")
    architecture = _Below("model/model.json")
    history = _Below("model/history.csv")
    training_record = _Below(f"model/{RECORD_NAME}")
    denoised = _Below("denoised")
    uncertainty = _Below("uncertainty")
    samples = _Below("samples")
    prediction_record = _Below("prediction.json")
    method_record = _Below("method.json")
    psnr = _Below("psnr.csv")
    evaluation_record = _Below("evaluation.json")
    parts = _Below("parts")

    @classmethod
    def of(cls, results: Path, dataset: str, method: str, seed: int) -> "RunFolder":
        """Return the folder of a run in a folder of results.

        Parameters
        ----------
        results
            The folder of results.
        dataset
            Name of the dataset.
        method
            Name of the method.
        seed
            Seed of the run.

        Returns
        -------
        RunFolder
            The folder, which need not exist.
        """
        return cls(results / dataset / method / f"seed{seed}")

    @property
    def dataset(self) -> DatasetFolder:
        """The folder of the dataset."""
        return DatasetFolder(Path(os.path.normpath(self.path.absolute() / "../..")))


def read_psnr(path: Path) -> pd.DataFrame:
    """Read a table of :func:`dvlae.evaluation.evaluate`.

    Parameters
    ----------
    path
        The table.

    Returns
    -------
    pandas.DataFrame
        One row per image, with :data:`PSNR_COLUMNS` and :data:`MEASURE_COLUMNS`, which are empty in an older table.

    Raises
    ------
    UserError
        If the file is missing or has other columns.
    """
    try:
        # An image may be called NA. Missing numbers are empty.
        texts = {"dataset": str, "method": str, "image": str}
        table = pd.read_csv(path, dtype=texts | {"receptive_field": "Int64"}, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a table of dvlae evaluate ({error})") from None
    columns = [*PSNR_COLUMNS, *MEASURE_COLUMNS]
    if list(table.columns) not in (columns, list(PSNR_COLUMNS)) or table.empty:
        raise UserError(f"{path}: found columns {list(table.columns)} and {len(table)} rows, expected {columns}")
    return table.reindex(columns=columns)


@dataclass(frozen=True)
class Run:
    """One method on one dataset with one seed, as its files describe it.

    Attributes
    ----------
    folder
        The folder of the files.
    dataset, method, receptive_field, seed
        What was run. The receptive field is in pixels, or None for other methods than our own.
    psnr
        One row per image.
    """

    folder: RunFolder
    dataset: str
    method: str
    receptive_field: int | None
    seed: int
    psnr: pd.DataFrame

    @staticmethod
    def read(psnr_csv: Path) -> "Run":
        """Read the table of :func:`dvlae.evaluation.evaluate` in the folder of a run.

        Parameters
        ----------
        psnr_csv
            The table, in the folder of the run.

        Returns
        -------
        Run
            The run; a :class:`TrainedRun` if the table contains a receptive field.
        """
        table = read_psnr(psnr_csv)
        first = table.iloc[0]
        field = None if pd.isna(first.receptive_field) else int(first.receptive_field)
        cls: type[Run] = Run if field is None else TrainedRun
        return cls(RunFolder(Path(psnr_csv).parent), first.dataset, first.method, field, int(first.seed), table)

    @cached_property
    def training(self) -> dict[str, Any]:
        """The record of the training; empty if there is none."""
        return read_run(self.folder.model) if self.folder.training_record.exists() else {}

    @cached_property
    def method_record(self) -> dict[str, Any]:
        """The record of a method that has a file; empty if there is none."""
        return read_json(self.folder.method_record)

    @property
    def status(self) -> str:
        """What became of the run: :data:`DONE`, or why there are no denoised images."""
        return self.method_record.get("status", DONE)

    @property
    def reason(self) -> str | None:
        """The reason why the run is not as was asked for; None if it is."""
        if self.prediction.get("estimator") not in (None, self.prediction.get("settings", {}).get("estimator")):
            return "the training left the refined denoiser out, and samples denoised"
        return self.method_record.get("reason")

    @cached_property
    def prediction(self) -> dict[str, Any]:
        """The record of the prediction; empty if there is none."""
        return read_json(self.folder.prediction_record)

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """The record of the evaluation; empty if there is none."""
        return read_json(self.folder.evaluation_record)

    @property
    def minutes(self) -> float | None:
        """The duration of the training; None for a method that trains nothing."""
        if self.training:
            return self.training["seconds"] / 60
        seconds = self.method_record.get("training_seconds") if self.method_record.get("trains") else None
        return None if seconds is None else seconds / 60

    @property
    def training_seconds(self) -> float | None:
        """The duration of the training, or of the choice of parameters; None if it was not recorded."""
        return self.training.get("seconds", self.method_record.get("training_seconds"))

    @property
    def seconds_per_megapixel(self) -> float | None:
        """The time for a million pixels to be denoised; None if it was not recorded.

        On a processor, it is the processor time of each thread, so that it does not depend on other programs; older
        records have the time on the clock alone.
        """
        record = self.method_record or self.prediction
        megapixels = record.get("megapixels")
        names = ("prediction_processor_seconds", "processor_seconds", "prediction_seconds", "seconds")
        seconds = next((record[name] for name in names if record.get(name) is not None), None)
        return seconds / megapixels if seconds is not None and megapixels else None

    @property
    def measured(self) -> bool:
        """Whether there is a PSNR, for which a clean image is needed."""
        return bool(self.psnr.psnr.notna().any())

    @property
    def label(self) -> str:
        """The name of the method in words."""
        return self.method


def read_record(path: Path) -> dict[str, Any]:
    """Read a record that has to be there.

    Parameters
    ----------
    path
        A JSON file.

    Returns
    -------
    dict
        The record.

    Raises
    ------
    UserError
        If there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    return read_json(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a record of a run.

    Parameters
    ----------
    path
        A JSON file.

    Returns
    -------
    dict
        The record; empty if there is no such file.

    Raises
    ------
    UserError
        If the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(record, dict):
            raise ValueError("no object with names and values")
    except ValueError as error:
        raise UserError(f"{path}: not a JSON record ({error}); remove the run's folder and run it again") from None
    return record


@dataclass(frozen=True)
class TrainedRun(Run):
    """A run of a trained model, which has a receptive field, unlike other methods."""

    receptive_field: int

    @property
    def label(self) -> str:
        """The name of the method in words."""
        field = self.receptive_field
        names = {dvlae_method(field, "nonlinear").name: "", dvlae_method(field, "linear").name: ", linear"}
        return self.method if self.method not in names else f"DVLAE, receptive field {field} px{names[self.method]}"


AnyRun = TypeVar("AnyRun", bound=Run)


def best_run(runs: Sequence[AnyRun]) -> AnyRun:
    """Choose the run to show: DVLAE before other methods, then the highest PSNR, then the larger receptive field.

    Parameters
    ----------
    runs
        The runs, at least one.

    Returns
    -------
    Run
        The chosen run.
    """

    def rank(run: Run) -> tuple:
        field = run.receptive_field or 0
        return isinstance(run, TrainedRun), run.method != "noisy", _mean_psnr(run), field, -run.seed

    return max(runs, key=rank)


def one_of_each(runs: Sequence[Run]) -> list[Run]:
    """Choose a run of each method, that with the lowest seed.

    Parameters
    ----------
    runs
        The runs of one dataset.

    Returns
    -------
    list of Run
        The method with the highest PSNR first. The noisy images are left out if there is anything else.
    """
    chosen: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        chosen.setdefault(run.method, run)
    others = [run for name, run in chosen.items() if name != "noisy"] or list(chosen.values())
    return sorted(others, key=_mean_psnr, reverse=True)


def _mean_psnr(run: Run) -> float:
    mean = run.psnr.psnr.mean()
    return -math.inf if math.isnan(mean) else mean
