"""The pictures: panels, training curves, divergence of each level, calibration, noise, comparisons of methods."""

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib

from dvlae.config.dataset import EvaluationSettings
from dvlae.evaluation.evaluate import evaluated_images
from dvlae.evaluation.target import Targets
from dvlae.reporting.comparison_figures import (
    plot_paired_psnr,
    plot_receptive_field,
    plot_training_time,
    with_several_receptive_fields,
)
from dvlae.reporting.noise_figures import plot_calibration, plot_removed_noise
from dvlae.reporting.panels import plot_panel
from dvlae.reporting.style import STYLE, save_figure
from dvlae.reporting.training_figures import plot_kl_per_level, plot_training_curves
from dvlae.runs.folder import Run, best_run
from dvlae.system.errors import UserError
from dvlae.system.progress import progress


def make_figures(
    psnr_csvs: list[Path],
    output: Path,
    *,
    images: Mapping[str, Path],
    settings: Mapping[str, EvaluationSettings],
    noise: Mapping[str, Path] | None = None,
    targets: Mapping[str, Path] | None = None,
) -> None:
    """Write every figure, each as PNG and SVG.

    For each dataset ``panel_{dataset}``, ``removed_noise_{dataset}`` and, where models were trained,
    ``training_curves_{dataset}`` and ``kl_per_level_{dataset}``; with clean images ``paired_psnr_{dataset}`` of two
    methods or more and, with posterior standard deviations, ``calibration_{dataset}``. Over all datasets
    ``receptive_field`` where one has several receptive fields, ``training_time`` where a trained one can be measured.

    Parameters
    ----------
    psnr_csvs
        One file a run; ``denoised/``, ``uncertainty/`` and ``model/history.csv`` are looked for beside it.
    output
        Folder for the pictures.
    images
        Folder of canonical images (with ``manifest.csv``) of each dataset.
    settings
        How each dataset is evaluated.
    noise
        What ``dvlae diagnose`` found in datasets: JSON files with a ``correlation_length`` in pixels.
    targets
        What ``dvlae register`` wrote for datasets, with the same images and settings; of others each clean image is
        registered here.

    Raises
    ------
    UserError
        Where the images of a dataset are not named, or files of a run are missing.
    """
    runs = [Run.read(path) for path in psnr_csvs]
    datasets = list(dict.fromkeys(run.dataset for run in runs))
    for name in datasets:
        if name not in images or name not in settings:
            raise UserError(
                f"figures: found runs on {name!r}, but not where its images are; add --images {name}=FOLDER"
            )
    lengths = {name: _correlation_length(path) for name, path in (noise or {}).items()}
    lengths = {name: length for name, length in lengths.items() if length is not None}
    with matplotlib.rc_context(STYLE):
        for name in progress(datasets, description="figures", unit="dataset"):
            mine = [run for run in runs if run.dataset == name]
            chosen = evaluated_images(images[name], settings[name])
            aligned = Targets(settings[name], (targets or {}).get(name))
            save_figure(plot_panel(best_run(mine), chosen, aligned), output / f"panel_{name}")
            save_figure(plot_removed_noise(mine, chosen, aligned), output / f"removed_noise_{name}")
            if trained := [run for run in mine if run.receptive_field is not None]:
                save_figure(plot_training_curves(trained), output / f"training_curves_{name}")
                save_figure(plot_kl_per_level(trained), output / f"kl_per_level_{name}")
                if figure := plot_calibration(best_run(trained), chosen, aligned):
                    save_figure(figure, output / f"calibration_{name}")
            if figure := plot_paired_psnr(mine):
                save_figure(figure, output / f"paired_psnr_{name}")
        if compared := with_several_receptive_fields(runs):
            save_figure(plot_receptive_field(compared, lengths), output / "receptive_field")
        if figure := plot_training_time(runs):
            save_figure(figure, output / "training_time")


def _correlation_length(path: Path) -> float | None:
    """Return the correlation length in pixels; None where the noise is not correlated."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["correlation_length"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not what dvlae diagnose writes ({error!r}); run it again") from None
