"""Figures of noise: what was removed, what was generated, and how far errors are predicted."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dvlae.axes import AXES
from dvlae.data.canonical import read_canonical
from dvlae.data.manifest import Image, spread_evenly
from dvlae.evaluation.calibration import NOMINAL_COVERAGE, calibrate_run
from dvlae.evaluation.evaluate import read_estimate
from dvlae.evaluation.metrics import autocorrelation
from dvlae.evaluation.noise_statistics import MAX_LAG, NoiseStatistics
from dvlae.evaluation.target import Targets, find_region
from dvlae.reporting.panels import Picture, grey_limits, plot_picture
from dvlae.reporting.style import BLACK, BLUE, GREEN, ORANGE, PURPLE
from dvlae.runs.folder import Run, best_run

# More images change the curves by less than the width of a line.
MAX_NOISE_IMAGES = 16

# In pixels: the middle of a generated image is shown.
MAX_SHOWN_SIDE = 128


def plot_removed_noise(runs: Sequence[Run], images: Sequence[Image], targets: Targets) -> Figure:
    """Plot the autocorrelation of the noise, and of what the methods take away, along every spatial axis.

    What a good method takes away is the noise, all of it and nothing else, so that the curves lie on each other.

    Parameters
    ----------
    runs
        Of one dataset; the best DVLAE run and the baselines are plotted.
    images
        The evaluated images; at most sixteen of them, evenly spread, are averaged.
    targets
        What the estimates are compared with.
    """
    baselines = [run for run in runs if run.receptive_field is None and run.method != "noisy"]
    trained = [run for run in runs if run.receptive_field is not None]
    shown = ([best_run(trained)] if trained else []) + baselines
    chosen = [images[i] for i in spread_evenly(len(images), MAX_NOISE_IMAGES)]
    curves = _average_curves(shown, chosen, targets)
    styles = [(BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D")]

    lines = {"x": "the same row", "y": "the same column", "z": "through the planes"}
    directions = list(AXES)[: len(images[0].shape) - 1]
    figure = Figure(figsize=(max(7.2, 3.6 * len(directions)), 3.2))
    plots = figure.subplots(1, len(directions), sharey=True, squeeze=False)[0]
    for axes, direction in zip(plots, directions, strict=True):
        axes.axhline(0, color="0.8", linewidth=0.8)
        for i, run in enumerate(shown):
            colour, marker = styles[i % len(styles)]
            values = curves[run.folder][direction]
            axes.plot(values, color=colour, marker=marker, markersize=3.5, label=f"removed by {run.label}")
        if None in curves:
            noise = {"color": BLACK, "linestyle": "--", "marker": "x", "markersize": 4}
            axes.plot(curves[None][direction], **noise, label="noise (noisy − clean)")
        axes.set_title(f"along {direction} ({lines[direction]})" if len(directions) > 1 else f"along {direction}")
        axes.set_xlabel("distance between two pixels (px)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.axes[0].set_ylabel("correlation")
    figure.axes[0].legend(fontsize=8)
    number = f"{len(chosen)} image{'s' if len(chosen) > 1 else ''}"
    figure.suptitle(f"{runs[0].dataset}: autocorrelation of the noise and of what is removed, {number}", fontsize=10)
    return figure


def _average_curves(runs: Sequence[Run], images: Sequence[Image], targets: Targets) -> dict:
    """Average autocorrelations over images: of what each run removes, by its folder; of the noise, under None."""
    regions = [find_region(image.shape[1:], targets.settings) for image in images]
    curves: dict[Path | None, list] = {}
    for image, region in zip(images, regions, strict=True):
        noisy = read_canonical(image.noisy)
        for run in runs:
            removed = (noisy - read_estimate(run.folder.denoised, image, noisy.shape))[:, *region]
            curves.setdefault(run.folder, []).append(autocorrelation(removed, MAX_LAG))
        if image.clean is not None:
            noise = targets.target(image, noisy).noise()
            curves.setdefault(None, []).append(autocorrelation(noise, MAX_LAG))
    return {key: {name: _average([lags[name] for lags in many]) for name in many[0]} for key, many in curves.items()}


def _average(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Average curves as far as the shortest reaches."""
    shortest = min(map(len, curves))
    return np.mean([curve[:shortest] for curve in curves], axis=0)


def plot_calibration(run: Run, images: Sequence[Image], targets: Targets) -> Figure | None:
    """Plot how well the posterior standard deviation predicts the error.

    Parameters
    ----------
    run
        A trained one.
    images
        The evaluated images of its dataset.
    targets
        What the estimates are compared with.

    Returns
    -------
    Figure or None
        None without clean images, and without posterior standard deviations.
    """
    measured = calibrate_run(run.folder, images, targets)
    if measured is None:
        return None
    figure = Figure(figsize=(7.2, 3.4))
    coverage, errors = figure.subplots(1, 2)
    coverage.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="right")
    coverage.plot(
        NOMINAL_COVERAGE, measured.coverage, color=BLUE, marker="o", markersize=4, label="found", clip_on=False
    )
    coverage.set(xlim=(0, 1), ylim=(0, 1), xlabel="part that the interval should hold")
    coverage.set_ylabel("part of the clean values in it")
    coverage.set_title("Intervals around the estimate")
    coverage.legend(fontsize=8, loc="upper left")
    top = 1.08 * max(measured.predicted.max(), measured.true.max())
    errors.plot([0, top], [0, top], color="0.6", linestyle="--", linewidth=1)
    errors.plot(measured.predicted, measured.true, color=BLUE, marker="o", markersize=4)
    errors.set(xlim=(0, top), ylim=(0, top), xlabel="posterior standard deviation (grey values)")
    errors.set_ylabel("root mean square error (grey values)")
    errors.set_title("Error where that much is predicted")
    for axes in (coverage, errors):
        axes.set_aspect("equal", adjustable="box")
    within = measured.coverage[np.isclose(NOMINAL_COVERAGE, 0.6827)][0]
    figure.suptitle(
        f"{run.dataset}, {run.label}: errors are {measured.ratio:.2f} times the posterior standard deviation;\n"
        f"{100 * within:.0f} % of the clean values are within one of it, 68 % would be right",
        fontsize=10,
    )
    return figure


def plot_generated_noise(
    pictures: Mapping[str, np.ndarray], statistics: Mapping[str, NoiseStatistics], real: str
) -> Figure:
    """Show a part of a real image, of a generated one and of what they have in common; compare their noise.

    Parameters
    ----------
    pictures
        By their titles, each (C, ...), the last one the cleanest. The middle is shown: of a volume the middle plane, of
        a trace its line.
    statistics
        Of the ``real`` and of the ``generated`` noise: their autocorrelation along each axis, their variance against
        the signal.
    real
        What the real noise is, in words.
    """
    axes_of_noise = list(statistics["real"].autocorrelation())
    figure = Figure(figsize=(7.2, 5.0))
    above, below = figure.subfigures(2, 1, height_ratios=[1.25, 1])
    _plot_middles(above.subplots(1, len(pictures), sharex=True, sharey=True), pictures)
    plots = below.subplots(1, len(axes_of_noise) + 1)
    styles = {
        "real": {"color": BLACK, "linestyle": "--", "marker": "x", "label": real},
        "generated": {"color": BLUE, "marker": "o", "label": "generated (noisy − content)"},
    }
    for kind, style in styles.items():
        style = style | {"markersize": 4, "linewidth": 1.2}
        correlation = statistics[kind].autocorrelation()
        for axes, axis in zip(plots, axes_of_noise, strict=False):
            axes.plot(correlation[axis], **style)
            axes.set_title(f"correlation along {axis}")
            axes.set_xlabel("distance (px)")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for channel in range(len(statistics[kind].mean)):
            plots[-1].plot(*statistics[kind].variance_by_signal(channel), **style)
    plots[-1].set_title("variance of the noise")
    plots[-1].set_xlabel("signal (grey values)")
    below.legend(*plots[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def _plot_middles(plots: Sequence[Axes], pictures: Mapping[str, np.ndarray]) -> None:
    """Plot the middle of each picture (C, ...), all in the same greys, or as lines in the same frame."""
    middles = [Picture(title, _middle(pixels), "image") for title, pixels in pictures.items()]
    for axes, middle in zip(plots, middles, strict=True):
        axes.set_title(middle.title, parse_math=False)
        if middle.pixels.ndim == 2:
            axes.plot(middle.pixels.T, linewidth=0.8)
        else:
            plot_picture(axes, middle, grey_limits(middles))


def _middle(pixels: np.ndarray) -> np.ndarray:
    """Return the middle of (C, ...): :data:`MAX_SHOWN_SIDE` pixels along x and y, in the middle plane."""
    if pixels.ndim == 4:
        pixels = pixels[:, pixels.shape[1] // 2]
    starts = [max(0, (side - MAX_SHOWN_SIDE) // 2) for side in pixels.shape[1:]]
    return pixels[:, *(slice(start, start + MAX_SHOWN_SIDE) for start in starts)]
