"""All figures of a report."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from dvlae.config import report_names
from dvlae.config.dataset import EvaluationSettings
from dvlae.config.grid import Method
from dvlae.data.manifest import Image
from dvlae.evaluation.register import Targets, evaluated_images
from dvlae.reporting.comparison_figures import (
    plot_paired_psnr,
    plot_quality_over_time,
    plot_receptive_field,
    plot_side_by_side,
)
from dvlae.reporting.noise_figures import plot_calibration, plot_removed_noise, plot_spectra
from dvlae.reporting.panels import plot_panel
from dvlae.reporting.style import STYLE, save_figure
from dvlae.reporting.training_figures import plot_kl_per_level, plot_training_curves
from dvlae.runs.folder import DONE, Run, TrainedRun, best_run
from dvlae.system.errors import UserError
from dvlae.system.progress import progress
from dvlae.system.wording import count, list_names

logger = logging.getLogger(__name__)


def make_figures(
    psnr_csvs: list[Path],
    output: Path,
    *,
    images: Mapping[str, Path],
    settings: Mapping[str, EvaluationSettings],
    noise: Mapping[str, Path] | None = None,
    targets: Mapping[str, Path] | None = None,
) -> None:
    """Write all figures, each as PNG and SVG.

    :func:`dvlae.config.report_names.figures` lists them.

    Parameters
    ----------
    psnr_csvs
        One file per run. ``denoised/``, ``uncertainty/`` and ``model/history.csv`` are in the same folder. A run
        without ``denoised/`` is left out of the figures that show images, with a warning.
    output
        Folder for the figures.
    images
        Folder of canonical images (with ``manifest.csv``) of each dataset.
    settings
        How each dataset is evaluated.
    noise
        The output of ``dvlae diagnose`` for each dataset: JSON files with a ``correlation_length`` in pixels.
    targets
        The output of ``dvlae register`` for each dataset, with the same images and settings. The clean images of other
        datasets are registered here.

    Raises
    ------
    UserError
        If the images of a dataset are not named, or files of a run are missing.
    """
    read = [Run.read(path) for path in psnr_csvs]
    datasets = list(dict.fromkeys(run.dataset for run in read))
    done = [run for run in read if run.status == DONE]
    for name in datasets:
        if name not in images or name not in settings:
            raise UserError(
                f"figures: found runs on {name!r}, but not where its images are; add --images {name}=FOLDER"
            )
    if missing := [str(run.folder.denoised) for run in done if not run.folder.denoised.is_dir()]:
        logger.warning(
            f"figures of images leave out {count(len(missing), 'run')} without denoised images; there is no "
            f"{list_names(missing)}"
        )
    found = {name: _correlation_length(path) for name, path in (noise or {}).items()}
    lengths = {name: length for name, length in found.items() if length is not None}
    shown = {
        name: _Dataset(
            [run for run in read if run.dataset == name],
            evaluated_images(images[name], settings[name]),
            Targets(settings[name], (targets or {}).get(name)),
        )
        for name in datasets
    }
    planned = report_names.figures({name: dataset.contents() for name, dataset in shown.items()})
    with matplotlib.rc_context(STYLE):
        for figure in progress(planned, description="figures", unit="figure"):
            if figure.dataset is None:
                plot = PLOTS[figure.kind](done, lengths)
            else:
                dataset = shown[figure.dataset]
                plot = PLOTS_OF_DATASET[figure.kind](dataset) if dataset.done else None
            # The workflow expects each figure that it planned, whatever became of the methods.
            save_figure(plot or _plot_nothing(), output / figure.name)


@dataclass(frozen=True)
class _Dataset:
    """The runs and the evaluated images of one dataset, and what the estimates are compared with."""

    runs: Sequence[Run]
    images: Sequence[Image]
    targets: Targets

    @property
    def done(self) -> list[Run]:
        """The runs that have denoised the images."""
        return [run for run in self.runs if run.status == DONE]

    @property
    def pictured(self) -> list[Run]:
        """Those of them of which the images are there."""
        return [run for run in self.done if run.folder.denoised.is_dir()]

    @property
    def trained(self) -> list[TrainedRun]:
        """The runs that trained a model."""
        return [run for run in self.runs if isinstance(run, TrainedRun)]

    @property
    def sampled(self) -> list[TrainedRun]:
        """The runs that estimated the standard deviation of the posterior."""
        return [run for run in self.trained if any(run.folder.uncertainty.glob("*.tif"))]

    def contents(self) -> report_names.Contents:
        """Return what there is to show, as found in the files of the runs."""
        return report_names.Contents(
            methods=list(dict.fromkeys(Method(run.method, run.receptive_field) for run in self.runs)),
            measured=any(run.psnr.psnr_noisy.notna().any() for run in self.runs),
            sampled=bool(self.sampled),
        )


def _plot_nothing() -> Figure:
    """Return the figure for which there are too few results, or too small images."""
    figure = Figure(figsize=(5, 1))
    figure.text(
        0.5,
        0.5,
        "nothing to show: too few results (tables/methods has the reasons), or images that are too small",
        ha="center",
        fontsize=7,
    )
    return figure


def _of_images(
    plot: Callable[[Sequence[Run], Sequence[Image], Targets], Figure | None],
) -> Callable[[_Dataset], Figure | None]:
    """Return the function that plots the denoised images of a dataset, or nothing if there are none."""
    return lambda shown: plot(shown.pictured, shown.images, shown.targets) if shown.pictured else None


PLOTS: dict[str, Callable[[Sequence[Run], Mapping[str, float]], Figure | None]] = {
    "receptive_field": plot_receptive_field,
    "quality_over_time": lambda runs, lengths: plot_quality_over_time(runs),
}
PLOTS_OF_DATASET: dict[str, Callable[[_Dataset], Figure | None]] = {
    "panel": _of_images(lambda runs, images, targets: plot_panel(best_run(runs), images, targets)),
    "side_by_side": _of_images(plot_side_by_side),
    "spectra": _of_images(plot_spectra),
    "removed_noise": _of_images(plot_removed_noise),
    "training_curves": lambda shown: plot_training_curves(shown.trained),
    "kl_per_level": lambda shown: plot_kl_per_level(shown.trained),
    "calibration": lambda shown: plot_calibration(best_run(shown.sampled), shown.images, shown.targets),
    "paired_psnr": lambda shown: plot_paired_psnr(shown.done),
}


def _correlation_length(path: Path) -> float | None:
    """Return the correlation length in pixels; None if the noise is not correlated."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))["correlation_length"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not what dvlae diagnose writes ({error!r}); run it again") from None
