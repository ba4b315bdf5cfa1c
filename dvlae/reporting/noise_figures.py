"""Figures of removed noise, of the details that are kept, of generated noise, and of predicted errors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dvlae.axes import AXES, middle
from dvlae.data.canonical import read_noisy
from dvlae.data.manifest import Image, spread_evenly
from dvlae.evaluation.calibration import NOMINAL_COVERAGE, calibrate_run
from dvlae.evaluation.evaluate import read_estimate
from dvlae.evaluation.metrics import autocorrelation
from dvlae.evaluation.noise_statistics import MAX_LAG, Curves, NoiseComparison, average_curves
from dvlae.evaluation.register import Targets
from dvlae.evaluation.structure import band_centres, band_power
from dvlae.evaluation.target import find_region
from dvlae.reporting.panels import Picture, grey_limits, plot_picture
from dvlae.reporting.style import BLACK, BLUE, ORANGE, plot_grid
from dvlae.reporting.typesetting import run_label
from dvlae.runs.folder import Run, RunFolder, one_of_each
from dvlae.system.wording import count

# More images change the curves by less than a line width.
MAX_NOISE_IMAGES = 16

# In pixels, around the middle of a generated image.
MAX_SHOWN_SIDE = 128


def plot_removed_noise(runs: Sequence[Run], images: Sequence[Image], targets: Targets) -> Figure:
    """Plot the autocorrelation of the noise, and of what each method removes, along every spatial axis.

    A good method removes all of the noise and nothing else; its curve is then that of the noise.

    Parameters
    ----------
    runs
        The runs of one dataset.
    images
        The evaluated images. At most sixteen of them, evenly spaced, are averaged.
    targets
        What the estimates are compared with.

    Returns
    -------
    Figure
        For each method, the best first, one plot per axis.
    """
    shown = one_of_each(runs)
    chosen = [images[i] for i in spread_evenly(len(images), MAX_NOISE_IMAGES)]
    removed, noise = _average_correlations(shown, chosen, targets)
    directions = list(AXES)[: len(images[0].shape) - 1]
    number = count(len(chosen), "image")
    figure, plots = plot_grid(
        [run_label(run) for run in shown],
        len(directions),
        heading=f"{runs[0].dataset}: autocorrelation of the noise and of what is removed, {number}",
        xlabel="distance (px)",
        ylabel="correlation",
    )
    for run, axes_of_run in zip(shown, plots, strict=True):
        for axes, direction in zip(axes_of_run, directions, strict=True):
            axes.axhline(0, color="0.8", linewidth=0.8)
            curve = removed[run.folder][direction]
            axes.plot(curve, color=BLUE, marker="o", markersize=2.5, linewidth=1.2, label="removed by the method")
            if noise is not None:
                axes.plot(noise[direction], color=BLACK, linestyle="--", linewidth=1, label="noise (noisy − clean)")
            place: dict[str, Any] = {"ha": "right", "va": "top", "transform": axes.transAxes, "fontsize": 7}
            axes.text(0.98, 0.98, f"along {direction}", **place)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def _average_correlations(
    runs: Sequence[Run], images: Sequence[Image], targets: Targets
) -> tuple[dict[RunFolder, Curves], Curves | None]:
    """Average autocorrelations over images.

    Returns
    -------
    removed
        For what each run removes, by its folder.
    noise
        For the noise; None without clean images.
    """
    removed: dict[RunFolder, list[Curves]] = {run.folder: [] for run in runs}
    noise: list[Curves] = []
    for image in images:
        noisy, region = read_noisy(image), find_region(image.shape[1:], targets.settings)
        for run in runs:
            difference = (noisy - read_estimate(run.folder.denoised, image))[:, *region]
            removed[run.folder].append(autocorrelation(difference, MAX_LAG))
        if image.clean is not None:
            noise.append(autocorrelation(targets.target(image, noisy).noise(), MAX_LAG))
    averages = {folder: average_curves(curves) for folder, curves in removed.items()}
    return averages, average_curves(noise) if noise else None


def plot_spectra(runs: Sequence[Run], images: Sequence[Image], targets: Targets) -> Figure | None:
    """Plot the power spectra of the estimates, of the clean and of the noisy images.

    Parameters
    ----------
    runs
        The runs of one dataset.
    images
        The evaluated images. At most sixteen of them, evenly spaced, are averaged.
    targets
        What the estimates are compared with.

    Returns
    -------
    Figure or None
        A plot for each method, the best first; None if no image has a clean one, or all are too small for a spectrum.
    """
    shown = one_of_each(runs)
    pairs = [image for image in images if image.clean is not None]
    chosen = [pairs[i] for i in spread_evenly(len(pairs), MAX_NOISE_IMAGES)] if pairs else []
    spectra: dict[str, list[np.ndarray]] = {}
    for image in chosen:
        noisy = read_noisy(image)
        target = targets.target(image, noisy)
        found = {"clean": target.clean, "noisy": target.to_target_units(noisy)}
        found |= {run.method: target.to_target_units(read_estimate(run.folder.denoised, image)) for run in shown}
        for name, pixels in found.items():
            spectra.setdefault(name, []).append(band_power(pixels, pixels) / target.data_range**2)
    bands = max((len(power) for power in spectra.get("clean", [])), default=0)
    if bands == 0:
        return None
    # Smaller images have wider bands.
    averages = {name: np.mean([p for p in powers if len(p) == bands], axis=0) for name, powers in spectra.items()}
    frequency = band_centres(bands)
    figure, plots = plot_grid(
        [run_label(run) for run in shown],
        1,
        heading=f"{runs[0].dataset}: power in each band of frequency, {count(len(chosen), 'image')}",
        xlabel="frequency (cycles per px)",
        ylabel="power / range²",
    )
    for run, (axes,) in zip(shown, plots, strict=True):
        axes.plot(frequency, averages["noisy"], color="0.7", linewidth=1, label="noisy")
        axes.plot(frequency, averages["clean"], color=BLACK, linestyle="--", linewidth=1, label="clean")
        axes.plot(frequency, averages[run.method], color=BLUE, linewidth=1.2, label="denoised")
        if (kept := run.psnr.kept_band.mean()) == kept:
            axes.axvline(kept, color=ORANGE, linewidth=1, label="details are kept up to here")
        axes.set_yscale("log")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def plot_calibration(run: Run, images: Sequence[Image], targets: Targets) -> Figure | None:
    """Plot how well the posterior standard deviation predicts the error.

    Parameters
    ----------
    run
        A run of a trained model.
    images
        The evaluated images of its dataset.
    targets
        What the estimates are compared with.

    Returns
    -------
    Figure or None
        None without clean images or without posterior standard deviations.
    """
    measured = calibrate_run(run.folder, images, targets)
    if measured is None:
        return None
    figure = Figure(figsize=(7.2, 3.4))
    coverage, errors = figure.subplots(1, 2)
    coverage.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="right")
    points: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 4}
    coverage.plot(NOMINAL_COVERAGE, measured.coverage, **points, label="found", clip_on=False)
    coverage.set(xlim=(0, 1), ylim=(0, 1), title="Intervals around the estimate")
    coverage.set(xlabel="part that the interval should hold", ylabel="part of the clean values in it")
    coverage.legend(fontsize=8, loc="upper left")
    top = 1.08 * max(measured.predicted.max(), measured.true.max())
    errors.plot([0, top], [0, top], color="0.6", linestyle="--", linewidth=1)
    errors.plot(measured.predicted, measured.true, **points)
    errors.set(xlim=(0, top), ylim=(0, top), title="Error where that much is predicted")
    errors.set(xlabel="posterior standard deviation (grey values)", ylabel="root mean square error (grey values)")
    for axes in (coverage, errors):
        axes.set_aspect("equal", adjustable="box")
    within = measured.coverage[np.isclose(NOMINAL_COVERAGE, 0.6827)][0]
    figure.suptitle(
        f"{run.dataset}, {run.label}: errors are {measured.ratio:.2f} times the posterior standard deviation;\n"
        f"{100 * within:.0f} % of the clean values are within one of it, 68 % would be right",
        fontsize=10,
    )
    return figure


def plot_generated_noise(pictures: Mapping[str, np.ndarray], comparison: NoiseComparison, real: str) -> Figure:
    """Plot the middle of a real image, of a generated one and of their content, and compare the noise.

    Parameters
    ----------
    pictures
        The images by title, each (C, ...), the cleanest last. Of a volume the middle plane is shown; a trace is a line.
    comparison
        The statistics of the real and the generated noise.
    real
        The legend of the real noise.

    Returns
    -------
    Figure
        The images above, the curves of their noise below.
    """
    axes_of_noise = list(comparison.real.autocorrelation())
    figure = Figure(figsize=(7.2, 5.0))
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.25, 1])[:, 0]
    _plot_middles(above.subplots(1, len(pictures), sharex=True, sharey=True), pictures)
    plots = below.subplots(1, len(axes_of_noise) + 1)
    common: dict[str, Any] = {"markersize": 4, "linewidth": 1.2}
    styles = [
        (comparison.real, common | {"color": BLACK, "linestyle": "--", "marker": "x", "label": real}),
        (comparison.generated, common | {"color": BLUE, "marker": "o", "label": "generated (noisy − content)"}),
    ]
    for statistics, style in styles:
        correlation = statistics.autocorrelation()
        for axes, axis in zip(plots, axes_of_noise, strict=False):
            axes.plot(correlation[axis], **style)
            axes.set(title=f"correlation along {axis}", xlabel="distance (px)")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for channel in range(comparison.real.channels):
            plots[-1].plot(*statistics.variance_by_signal(channel), **style)
    plots[-1].set(title="variance of the noise", xlabel="signal (grey values)")
    below.legend(*plots[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def _plot_middles(plots: Sequence[Axes], pictures: Mapping[str, np.ndarray]) -> None:
    """Plot the middle of each picture (C, ...), with the same grey values, or as lines with the same limits."""
    middles = [Picture(title, _middle(pixels), "image") for title, pixels in pictures.items()]
    for axes, picture in zip(plots, middles, strict=True):
        axes.set_title(picture.title, parse_math=False)
        if picture.pixels.ndim == 2:
            axes.plot(picture.pixels.T, linewidth=0.8)
        else:
            plot_picture(axes, picture, grey_limits(middles))


def _middle(pixels: np.ndarray) -> np.ndarray:
    """Return the middle of (C, ...): at most :data:`MAX_SHOWN_SIDE` pixels along x and y, of the middle plane."""
    if pixels.ndim == 4:
        pixels = pixels[:, pixels.shape[1] // 2]
    sides = pixels.shape[1:]
    return pixels[:, *middle(sides, [MAX_SHOWN_SIDE] * len(sides))]
