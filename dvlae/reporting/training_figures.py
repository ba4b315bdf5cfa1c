"""Figures of training: the losses, and the KL divergence of each level."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dvlae.config.sizes.patch_size import level_strides
from dvlae.reporting.style import legend_below, sequential_colours
from dvlae.runs.folder import TrainedRun, best_run
from dvlae.system.errors import UserError

# In nats per position of a level's grid, summed over channels. A level with less is collapsed.
MIN_POSITION_KL = 0.01


def plot_training_curves(runs: Sequence[TrainedRun]) -> Figure:
    """Plot the history of all models of one dataset: ELBO, its two terms, and the error of the signal decoder.

    Parameters
    ----------
    runs
        The runs, with ``model/history.csv`` in their folders. Seeds of one receptive field share a colour.

    Returns
    -------
    Figure
        Four plots against the training step.

    Raises
    ------
    UserError
        If a history is missing.
    """
    ordered = sorted(runs, key=lambda run: (run.receptive_field, run.seed))
    histories = [(run.receptive_field, read_history(run.folder.history)) for run in ordered]
    minutes = max(history.minutes.iloc[-1] for _, history in histories)
    return plot_histories(histories, f"{runs[0].dataset}: training, at most {minutes:.1f} minutes a run")


def plot_histories(histories: Sequence[tuple[int, pd.DataFrame]], title: str) -> Figure:
    """Plot histories of trainings as :func:`plot_training_curves` does.

    Parameters
    ----------
    histories
        The receptive field in pixels and the history of each training.
    title
        The text above the plots.

    Returns
    -------
    Figure
        Four plots against the training step.
    """
    colours = sequential_colours(field for field, _ in histories)
    quantities = {
        "elbo": "ELBO (nats per value): higher is better",
        "log_likelihood": "log-likelihood of the noisy image (nats per value)",
        "kl": "KL divergence (nats per value)",
        "mse": "signal decoder: squared error (normalised image)",
    }
    figure = Figure(figsize=(7.2, 4.8))
    for axes, (name, label) in zip(figure.subplots(2, 2, sharex=True).flat, quantities.items(), strict=True):
        for field, history in histories:
            colour = colours[field]
            marker = "o" if len(history) == 1 else None
            axes.plot(history.step, history[f"train_{name}"], color=colour, linewidth=0.8, alpha=0.5, marker=marker)
            axes.plot(history.step, history[f"val_{name}"], color=colour, linewidth=1.6, marker=marker)
        axes.set_title(label)
        _limit_to_later_part(axes, [history[f"{part}_{name}"] for _, history in histories for part in ("train", "val")])
    for axes in figure.axes[2:]:
        axes.set_xlabel("training step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    handles = [
        *(Line2D([], [], color=c, linewidth=1.6, label=f"receptive field {field} px") for field, c in colours.items()),
        Line2D([], [], color="0.3", linewidth=1.6, label="validation (averaged weights)"),
        Line2D([], [], color="0.3", linewidth=0.8, alpha=0.5, label="training"),
    ]
    legend_below(figure, handles, columns=4)
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def read_history(path: Path) -> pd.DataFrame:
    """Read the history of a training.

    Parameters
    ----------
    path
        The file ``history.csv``.

    Returns
    -------
    pandas.DataFrame
        One row for each epoch.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); train the model again") from None


def _limit_to_later_part(axes: Axes, curves: Sequence[pd.Series]) -> None:
    """Fit the limits to all but the first fifth of the epochs, which have a much larger range."""
    later = pd.concat([curve.iloc[len(curve) // 5 :] for curve in curves])
    later = later[np.isfinite(later)]
    if len(later) and later.max() > later.min():
        margin = 0.08 * (later.max() - later.min())
        axes.set_ylim(later.min() - margin, later.max() + margin)


def plot_kl_per_level(runs: Sequence[TrainedRun]) -> Figure:
    """Plot the KL divergence of each level of the ladder, during and after training.

    It measures how much information the level carries. A level that ends with fewer than :data:`MIN_POSITION_KL` nats
    per position of its grid is marked as collapsed. The plot is in nats per pixel value, in which this limit is lower
    for a coarser level, because its grid has fewer positions.

    Parameters
    ----------
    runs
        The runs of one dataset, with ``model/history.csv`` and ``model/model.json`` in their folders.

    Returns
    -------
    Figure
        The best run during training, and all runs at the end.

    Raises
    ------
    UserError
        If a history is missing or does not contain the levels.
    """
    runs = sorted(runs, key=lambda run: (run.receptive_field, run.seed))
    shown = best_run(runs)
    history, limits = _read_divergences(shown), _collapse_limits(shown)
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(limits)))

    figure = Figure(figsize=(7.2, 3.7))
    during, end = figure.subplots(1, 2, sharey=True)
    marker = "o" if len(history) == 1 else None
    for level, colour in enumerate(colours):
        curve = _plotted_kl(history[f"val_kl_level{level}"], limits[level])
        label = _name_level(level, len(limits))
        during.plot(history.step, curve, color=colour, linewidth=1.4, marker=marker, label=label)
    during.set_title(f"during training: receptive field {shown.receptive_field} px, seed {shown.seed}")
    during.set(xlabel="training step", ylabel="KL divergence (nats per pixel value)", yscale="log")
    during.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    legend_below(figure, during.lines, columns=5)
    _plot_final_kl(end, runs)
    figure.suptitle(f"{shown.dataset}: information in each level of the ladder (validation)", fontsize=10)
    return figure


def _plot_final_kl(axes: Axes, runs: Sequence[TrainedRun]) -> None:
    """Plot the last divergence of each level of each run, and the limit below which a level is collapsed."""
    colours = sequential_colours(run.receptive_field for run in runs)
    for i, run in enumerate(runs):
        limits, last = _collapse_limits(run), _read_divergences(run).iloc[-1]
        values = np.array([last[f"val_kl_level{level}"] for level in range(len(limits))])
        places = np.arange(len(limits)) + 0.5 * (i + 0.5 - len(runs) / 2) / len(runs)  # side by side
        for these, marker in ((values >= limits, "o"), (values < limits, "x")):
            plotted = _plotted_kl(values, limits)[these]
            axes.plot(places[these], plotted, marker, markersize=4.5, color=colours[run.receptive_field])
        axes.hlines(limits, np.arange(len(limits)) - 0.4, np.arange(len(limits)) + 0.4, colors="0.5", linestyles=":")
    axes.set(title="at its end: every run", xlabel="level (0 is the finest)", xlim=(-0.6, len(limits) - 0.4))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    point: dict[str, Any] = {"markersize": 4.5, "linestyle": ""}
    handles = [
        *(Line2D([], [], color=c, marker="o", label=f"receptive field {f} px", **point) for f, c in colours.items()),
        Line2D([], [], color="0.5", linestyle=":", label=f"{MIN_POSITION_KL} nats a position of the level's grid"),
        Line2D([], [], color="0.5", marker="x", label="below it: collapsed", **point),
    ]
    axes.legend(handles=handles, fontsize=7)


def _name_level(level: int, levels: int) -> str:
    return f"level {level}" + {0: " (finest)", levels - 1: " (coarsest)"}.get(level, "") * (levels > 1)


def _read_divergences(run: TrainedRun) -> pd.DataFrame:
    """Return a history with a column ``val_kl_level{level}`` for each level."""
    history = read_history(run.folder.history)
    if "val_kl_level0" not in history:
        path = run.folder.history
        raise UserError(f"{path}: found no column val_kl_level0, as an older version trained it; train the model again")
    return history


Values = TypeVar("Values", np.ndarray, pd.Series)


def _plotted_kl(divergence: Values, limit: float | np.ndarray) -> Values:
    """Return a divergence, at least a hundredth of the limit, so that zero has a place on the logarithmic axis."""
    return np.maximum(divergence, limit / 100)


def _collapse_limits(run: TrainedRun) -> np.ndarray:
    """Return the divergence below which each level is collapsed, in nats per pixel value, finest level first."""
    path = run.folder.architecture
    try:
        sizes = json.loads(path.read_text(encoding="utf-8"))["architecture"]
        # Models of earlier versions have neither a number of axes nor a stride along each.
        dimensions, stride = sizes.get("dimensions", 2), sizes.get("stride")
        strides = level_strides(sizes["levels"], sizes["levels_per_scale"], dimensions, stride)
        values = sizes["image_channels"] * np.prod(strides, axis=1)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: cannot be read ({error}); train the model again") from None
    return MIN_POSITION_KL / values
