"""Figures that compare methods: image by image, by receptive field, by training time."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dvlae.evaluation.significance import bootstrap_interval
from dvlae.reporting.style import BLACK, BLUE, ORANGE, PURPLE, legend_below, sequential_colours
from dvlae.runs.folder import Run, TrainedRun

# In dB. On a shorter axis, a negligible difference would look large.
MIN_PSNR_SPAN = 0.5
COLUMN_WIDTH = 3.5  # inches
POINT_STYLE: dict[str, Any] = {
    "marker": "o",
    "markersize": 5,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
    "linestyle": "",
}


# ------------------------------------------------------------------------------------------------ image by image


def plot_paired_psnr(runs: Sequence[Run]) -> Figure | None:
    """Plot the PSNR of each image for all methods, and the difference of each method from the best.

    Parameters
    ----------
    runs
        The runs of one dataset. Seeds are averaged. The noisy images are left out if there are two other methods,
        because they would compress the axis.

    Returns
    -------
    Figure or None
        None if there are fewer than two methods, or no clean images.
    """
    psnr = _psnr_by_image(runs)
    if psnr.empty or psnr.shape[1] < 2:
        return None
    trained = {run.short_label for run in runs if isinstance(run, TrainedRun)}
    best, behind = psnr.columns[0], psnr.iloc[:, 1:].sub(psnr.iloc[:, 0], axis=0)
    figure = Figure(figsize=(COLUMN_WIDTH, 1.5 + 0.24 * (psnr.shape[1] + behind.shape[1])))
    values, differences = figure.subplots(2, 1, height_ratios=[psnr.shape[1] + 0.6, behind.shape[1] + 0.6])
    values.plot(psnr.T, np.arange(psnr.shape[1]), color="0.8", linewidth=0.5, zorder=1)
    differences.axvline(0, color="0.6", linestyle="--", linewidth=0.8)
    for axes, table in ((values, psnr), (differences, behind)):
        for place, (label, column) in enumerate(table.items()):
            colour, marker = (BLUE, "o") if label in trained else (ORANGE, "s")
            axes.scatter(column, np.full(len(column), place), s=9, c=colour, marker=marker, alpha=0.5, linewidths=0)
            _plot_mean(axes, column, place)
        axes.set_yticks(range(table.shape[1]), table.columns)
        axes.set_ylim(table.shape[1] - 0.4, -0.6)  # the best is on top
        axes.tick_params(axis="y", length=0)
    values.set_xlabel("PSNR (dB)")
    differences.set_xlabel(f"PSNR less that of {best} (dB)")
    point: dict[str, Any] = {"linestyle": "", "markersize": 4}
    handles = [
        Line2D([], [], color="0.5", marker="o", label="one image", **point),
        Line2D([], [], color=BLACK, marker="D", label="mean, 95 % interval", **point),
    ]
    legend_below(figure, handles, columns=2)
    figure.suptitle(f"{runs[0].dataset}: {len(psnr)} images, each by every method", fontsize=9, parse_math=False)
    return figure


def _psnr_by_image(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the PSNR in decibels, averaged over seeds: one row per image, one column per method, the best first."""
    others = [run for run in runs if run.method != "noisy"]
    shown = others if len({run.method for run in others}) > 1 else runs
    rows = pd.concat([run.psnr.assign(label=run.short_label) for run in shown])
    table = rows.pivot_table(index="image", columns="label", values="psnr").dropna()
    return table[table.mean().sort_values(ascending=False, kind="stable").index]


def _plot_mean(axes: Axes, values: pd.Series, place: int) -> None:
    """Plot the mean over images and its bootstrap interval."""
    axes.plot(bootstrap_interval([values.to_numpy()], np.mean), [place, place], color=BLACK, linewidth=1.5)
    axes.plot(values.mean(), place, color=BLACK, marker="D", markersize=4)


# ------------------------------------------------------------------------------------------------ receptive field


def plot_receptive_field(runs: Sequence[Run], correlation_lengths: Mapping[str, float]) -> Figure:
    """Plot PSNR against the receptive field of the autoregressive decoder, one plot per dataset.

    Parameters
    ----------
    runs
        All runs. Only datasets with several receptive fields are plotted. Each seed is a point; the line is the mean
        over seeds. For a dataset without clean images, the best validation ELBO replaces the PSNR.
    correlation_lengths
        The correlation length of the noise of each dataset, in pixels, if known. It is marked in the plot.

    Returns
    -------
    Figure
        One plot per dataset.
    """
    trained = [run for run in runs if isinstance(run, TrainedRun)]
    fields_of = Counter(dataset for dataset, _ in {(run.dataset, run.receptive_field) for run in trained})
    shown = [run for run in trained if fields_of[run.dataset] > 1]
    figure, plots = _subplots_by_dataset(shown)
    for dataset, axes in plots.items():
        mine = [run for run in shown if run.dataset == dataset]
        measured = any(run.measured for run in mine)
        values = [run.psnr.psnr.mean() if measured else _best_elbo(run) for run in mine]
        table = pd.DataFrame({"field": [run.receptive_field for run in mine], "value": values})
        mean = table.groupby("field").value.mean()
        axes.plot(mean.index, mean, color=BLUE, linewidth=1.4)
        axes.plot(table.field, table.value, "o", color=BLACK, markersize=3.5, alpha=0.7)
        # A square root keeps small values apart, and keeps 0 on the axis.
        axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
        axes.set_xticks(mean.index, [str(field) for field in mean.index])
        axes.set_xlabel("receptive field (px)")
        axes.set_ylabel("PSNR (dB)" if measured else "best validation ELBO\n(nats per value)")
        axes.grid(axis="y", color="0.9")
        if measured:
            _widen_psnr_axis(axes)
        if (length := correlation_lengths.get(dataset)) is not None:
            axes.axvline(length, color=PURPLE, linestyle="--", linewidth=1.4)
    handles = [
        Line2D([], [], color=BLACK, marker="o", markersize=3.5, linestyle="", label="one seed"),
        Line2D([], [], color=BLUE, linewidth=1.4, label="mean over seeds"),
    ]
    if any(name in plots for name in correlation_lengths):
        handles.append(Line2D([], [], color=PURPLE, linestyle="--", label="correlation length"))
    legend_below(figure, handles, columns=3 if len(plots) > 1 else 2)
    return figure


def _best_elbo(run: Run) -> float:
    value = run.training.get("best_val_elbo")
    return math.nan if value is None else value


# ------------------------------------------------------------------------------------------------ minutes of training


def plot_training_time(runs: Sequence[Run]) -> Figure | None:
    """Plot PSNR against the training time, one plot per dataset. Baselines are horizontal lines.

    Parameters
    ----------
    runs
        All runs. A dataset without clean images, or without a trained model, has no plot. The noisy images are left out
        if there is another baseline.

    Returns
    -------
    Figure or None
        None if no dataset has a plot.
    """
    runs = [run for run in runs if run.measured]
    plotted = {run.dataset for run in runs if run.minutes is not None}
    if not plotted:
        return None
    runs = [run for run in runs if run.dataset in plotted]
    colours = sequential_colours(run.receptive_field for run in runs if isinstance(run, TrainedRun))
    figure, plots = _subplots_by_dataset(runs)
    for dataset, axes in plots.items():
        mine = [run for run in runs if run.dataset == dataset]
        longest = 0.0
        for run in mine:
            if isinstance(run, TrainedRun) and run.minutes is not None:
                longest = max(longest, run.minutes)
                axes.plot(run.minutes, run.psnr.psnr.mean(), color=colours[run.receptive_field], **POINT_STYLE)
        axes.set_xlim(0, 1.15 * longest or 1)
        _plot_baselines(axes, [run for run in mine if not isinstance(run, TrainedRun)])
        _widen_psnr_axis(axes)
        axes.set(xlabel="training (min)", ylabel="PSNR (dB)")
    handles = [
        *(Line2D([], [], color=c, label=f"receptive field {field} px", **POINT_STYLE) for field, c in colours.items()),
        Line2D([], [], color=ORANGE, linestyle="--", label="without training"),
    ]
    legend_below(figure, handles, columns=3 if len(plots) > 1 else 2)
    return figure


def _plot_baselines(axes: Axes, runs: Sequence[Run]) -> None:
    """Plot a labelled line at the PSNR of each baseline."""
    others = [run for run in runs if run.method != "noisy"]
    for run in others or runs:
        psnr = run.psnr.psnr.mean()
        axes.axhline(psnr, color=ORANGE, linestyle="--", linewidth=1.2)
        axes.annotate(run.short_label, (0, psnr), xytext=(2, 2), textcoords="offset points", fontsize=7)


# ------------------------------------------------------------------------------------------------ layout


def _subplots_by_dataset(runs: Sequence[Run]) -> tuple[Figure, dict[str, Axes]]:
    datasets = list(dict.fromkeys(run.dataset for run in runs))
    columns = min(3, len(datasets))
    lines = math.ceil(len(datasets) / columns)
    figure = Figure(figsize=(COLUMN_WIDTH if columns == 1 else 2.5 * columns, 2.4 * lines + 0.5))
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid[len(datasets) :]:
        axes.set_visible(False)
    plots = dict(zip(datasets, grid, strict=False))
    for dataset, axes in plots.items():
        axes.set_title(dataset, parse_math=False)
    return figure, plots


def _widen_psnr_axis(axes: Axes) -> None:
    """Widen the axis of PSNR to at least :data:`MIN_PSNR_SPAN`."""
    low, high = axes.get_ylim()
    missing = max(0.0, MIN_PSNR_SPAN - (high - low))
    axes.set_ylim(low - missing / 2, high + missing / 2)
