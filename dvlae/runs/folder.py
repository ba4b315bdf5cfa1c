"""Where the files of a run and of its dataset lie, and what they say."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from dvlae.config.grid import dvlae_method
from dvlae.runs.record import RECORD_NAME, read_run
from dvlae.system.errors import UserError

PSNR_COLUMNS = ("dataset", "method", "receptive_field", "seed", "image", "psnr", "ssim", "psnr_noisy")


@dataclass(frozen=True)
class DatasetFolder:
    """The folder ``RESULTS/DATASET``, with a folder for each method in it.

    Attributes
    ----------
    path
        The folder itself.
    """

    path: Path

    @property
    def simulated(self) -> Path:
        """The images that noise was added to."""
        return self.path / "simulated"

    @property
    def images(self) -> Path:
        """The canonical images, with their manifest."""
        return self.path / "images"

    @property
    def targets(self) -> Path:
        """The table of what each image is compared with."""
        return self.path / "targets.csv"

    @property
    def patches(self) -> Path:
        """The patches that are trained on."""
        return self.path / "patches"

    @property
    def patch_description(self) -> Path:
        """What the patches were cut from, and their hashes."""
        return self.patches / "patches.json"


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, ``RESULTS/DATASET/METHOD/seedN``.

    Attributes
    ----------
    path
        The folder itself.
    """

    path: Path

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
            Whether it exists or not.
        """
        return cls(results / dataset / method / f"seed{seed}")

    @property
    def dataset(self) -> DatasetFolder:
        """The folder of the dataset."""
        return DatasetFolder(self.path.parents[1])

    @property
    def checkpoints(self) -> Path:
        """The unfinished training."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """The history of the training as TensorBoard reads it."""
        return self.path / "tensorboard"

    @property
    def model(self) -> Path:
        """The trained model."""
        return self.path / "model"

    @property
    def architecture(self) -> Path:
        """The sizes of the trained model."""
        return self.model / "model.json"

    @property
    def history(self) -> Path:
        """The history of the training."""
        return self.model / "history.csv"

    @property
    def training_record(self) -> Path:
        """The record of the training."""
        return self.model / RECORD_NAME

    @property
    def denoised(self) -> Path:
        """The denoised images."""
        return self.path / "denoised"

    @property
    def uncertainty(self) -> Path:
        """The standard deviations of the posterior."""
        return self.path / "uncertainty"

    @property
    def samples(self) -> Path:
        """The samples of the posterior."""
        return self.path / "samples"

    @property
    def prediction_record(self) -> Path:
        """The record of the prediction."""
        return self.path / "prediction.json"

    @property
    def baseline_record(self) -> Path:
        """The record of a baseline."""
        return self.path / "baseline.json"

    @property
    def psnr(self) -> Path:
        """The PSNR of each image."""
        return self.path / "psnr.csv"

    @property
    def evaluation_record(self) -> Path:
        """The record of the evaluation."""
        return self.path / "evaluation.json"


def read_psnr(path: Path) -> pd.DataFrame:
    """Read one table of :func:`dvlae.evaluation.evaluate`.

    Parameters
    ----------
    path
        The table.

    Returns
    -------
    pandas.DataFrame
        One row an image.

    Raises
    ------
    UserError
        Where it is missing or has other columns.
    """
    try:
        # An image may be called NA; numbers that are missing are empty.
        texts = {"dataset": str, "method": str, "image": str}
        table = pd.read_csv(path, dtype=texts | {"receptive_field": "Int64"}, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a table of dvlae evaluate ({error})") from None
    if list(table.columns) != list(PSNR_COLUMNS) or table.empty:
        raise UserError(
            f"{path}: found columns {list(table.columns)} and {len(table)} rows, expected {list(PSNR_COLUMNS)}"
        )
    return table


@dataclass(frozen=True)
class Run:
    """One method on one dataset with one seed, as its files describe it.

    Attributes
    ----------
    folder
        Where the files are.
    dataset, method, receptive_field, seed
        Which run; the receptive field is in pixels, and None for a baseline.
    psnr
        One row an image.
    """

    folder: RunFolder
    dataset: str
    method: str
    receptive_field: int | None
    seed: int
    psnr: pd.DataFrame

    @staticmethod
    def read(psnr_csv: Path) -> "Run":
        """Read the table of :func:`dvlae.evaluation.evaluate`, and remember where it stood.

        Parameters
        ----------
        psnr_csv
            The table, in the folder of the run.

        Returns
        -------
        Run
            A :class:`TrainedRun` where the table names a receptive field.
        """
        table = read_psnr(psnr_csv)
        first = table.iloc[0]
        field = None if pd.isna(first.receptive_field) else int(first.receptive_field)
        folder, seed = RunFolder(Path(psnr_csv).parent), int(first.seed)
        if field is None:
            return Run(folder, first.dataset, first.method, field, seed, table)
        return TrainedRun(folder, first.dataset, first.method, field, seed, table)

    @cached_property
    def training(self) -> dict[str, Any]:
        """The record of the training; empty where there is none."""
        return read_run(self.folder.model) if self.folder.training_record.exists() else {}

    @cached_property
    def baseline(self) -> dict[str, Any]:
        """The record of the baseline; empty where there is none."""
        return read_json(self.folder.baseline_record)

    @cached_property
    def prediction(self) -> dict[str, Any]:
        """The record of the prediction; empty where there is none."""
        return read_json(self.folder.prediction_record)

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """The record of the evaluation; empty where there is none."""
        return read_json(self.folder.evaluation_record)

    @property
    def minutes(self) -> float | None:
        """Of the training; None where there is none."""
        return self.training["seconds"] / 60 if self.training else None

    @property
    def measured(self) -> bool:
        """Whether there is a PSNR, hence a clean image."""
        return bool(self.psnr.psnr.notna().any())

    @property
    def short_label(self) -> str:
        """The method, in a word or two."""
        return {"gaussian": "Gaussian", "bm3d": "BM3D"}.get(self.method, self.method)

    @property
    def label(self) -> str:
        """The method, in words."""
        return {"noisy": "noisy image", "gaussian": "Gaussian filter", "bm3d": "BM3D"}.get(self.method, self.method)


def read_json(path: Path) -> dict[str, Any]:
    """Read a record of a run.

    Parameters
    ----------
    path
        A JSON file.

    Returns
    -------
    dict
        Empty where there is no such file.

    Raises
    ------
    UserError
        Where the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); remove the run's folder and run it again") from None


@dataclass(frozen=True)
class TrainedRun(Run):
    """A run of a model that was trained, and so has a receptive field; a baseline has none."""

    receptive_field: int

    @property
    def short_label(self) -> str:
        """The method, in a word or two."""
        return f"DVLAE {self.receptive_field} px{' linear' if self._is_linear else ''}"

    @property
    def label(self) -> str:
        """The method, in words."""
        return f"DVLAE, receptive field {self.receptive_field} px{', linear' if self._is_linear else ''}"

    @property
    def _is_linear(self) -> bool:
        return self.method == dvlae_method(self.receptive_field, "linear").name


AnyRun = TypeVar("AnyRun", bound=Run)


def best_run(runs: Sequence[AnyRun]) -> AnyRun:
    """Choose the run to show: DVLAE before baselines, then the best PSNR, then the larger receptive field.

    Parameters
    ----------
    runs
        At least one.

    Returns
    -------
    Run
        One of them.
    """

    def rank(run: Run) -> tuple:
        psnr = run.psnr.psnr.mean()
        return (
            isinstance(run, TrainedRun),
            run.method != "noisy",
            -math.inf if math.isnan(psnr) else psnr,
            run.receptive_field or 0,
            -run.seed,
        )

    return max(runs, key=rank)
