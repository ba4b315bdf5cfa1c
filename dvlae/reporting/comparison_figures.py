"""Figures that compare methods: image by image, by receptive field, by time, side by side."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dvlae.data.canonical import read_noisy
from dvlae.data.manifest import Image
from dvlae.evaluation.evaluate import read_estimate
from dvlae.evaluation.register import Targets
from dvlae.evaluation.significance import bootstrap_interval
from dvlae.evaluation.target import find_region
from dvlae.reporting.panels import Picture, find_detail, grey_limits, median_image, plot_picture, zoom_sides
from dvlae.reporting.style import BLACK, BLUE, GREEN, ORANGE, PAGE_WIDTH, PURPLE, legend_below
from dvlae.reporting.typesetting import run_label
from dvlae.runs.folder import Run, TrainedRun, one_of_each

PICTURES_IN_ROW = 6
# In inches.
MIN_TIME_HEIGHT = 2.2
NAME_HEIGHT = 0.13
# In dB. A limit so far above the best method is not shown.
SHOWN_BELOW_LIMIT = 3.0
# For each kind of method: colour, marker, words.
KINDS = {
    "own": (BLUE, "o", "DVLAE"),
    "learned": (GREEN, "^", "trained"),
    "filter": (ORANGE, "s", "not trained"),
}
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
    trained = {run_label(run) for run in runs if isinstance(run, TrainedRun)}
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
    title = f"{runs[0].dataset}: {len(psnr)} images, each by every method{_name_oracles(psnr.columns)}"
    figure.suptitle(title, fontsize=9, parse_math=False)
    return figure


def _psnr_by_image(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the PSNR in decibels, averaged over seeds: one row per image, one column per method, the best first."""
    others = [run for run in runs if run.method != "noisy"]
    shown = others if len({run.method for run in others}) > 1 else runs
    rows = pd.concat([run.psnr.assign(label=run_label(run)) for run in shown])
    # An estimate without any error has an infinite PSNR, which has no place.
    finite = rows.replace({"psnr": {math.inf: math.nan}})
    table = finite.pivot_table(index="image", columns="label", values="psnr").dropna()
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


# ------------------------------------------------------------------------------------------------ time


def plot_quality_over_time(runs: Sequence[Run]) -> Figure | None:
    """Plot PSNR against the time of training and of denoising, with a point for each method.

    Parameters
    ----------
    runs
        All runs; seeds are averaged. A dataset without clean images has no plots. A method whose time was not recorded
        has no point. The noisy images are left out.

    Returns
    -------
    Figure or None
        Two plots per dataset, and the names of its methods beside them, the best on top; None if no dataset has any.
    """
    points = {name: table for name, table in _quality_and_time(runs).items() if len(table)}
    if not points:
        return None
    heights = [max(MIN_TIME_HEIGHT, NAME_HEIGHT * len(table)) for table in points.values()]
    figure = Figure(figsize=(PAGE_WIDTH, sum(heights) + 0.6 * len(heights) + 0.5))
    grid = figure.subplots(len(points), 2, sharey="row", squeeze=False, height_ratios=heights)
    limited = False
    for (training, denoising), height, (dataset, table) in zip(grid, heights, points.items(), strict=True):
        for axes, column in ((training, "training"), (denoising, "denoising")):
            for row in table.itertuples():
                colour, marker, _ = KINDS[row.kind]
                axes.plot(getattr(row, column), row.psnr, color=colour, **POINT_STYLE | {"marker": marker})
            axes.grid(axis="y", color="0.93")
        training.set_xscale("symlog", linthresh=1)
        training.set_xlim(-0.2, 2 * max(1.0, table.training.max()))
        if table.denoising.gt(0).any():
            denoising.set_xscale("log")
        denoising.margins(x=0.1)
        training.set(xlabel="training (s)", ylabel="PSNR (dB)")
        denoising.set_xlabel("denoising (s per million pixels)")
        training.set_title(dataset, parse_math=False, loc="left")
        low, high = table.psnr.min(), table.psnr.max()
        if (limit := table.limit.mean()) < high + SHOWN_BELOW_LIMIT:
            limited, high = True, max(high, limit)
            for axes in (training, denoising):
                axes.axhline(limit, color=PURPLE, linestyle="--", linewidth=1.2)
        # Methods whose time was not recorded have names, too.
        margin = 0.05 * (high - low) + 0.01
        training.set_ylim(low - margin, high + margin)
        _widen_psnr_axis(training)
        _name_beside(denoising, table.psnr, table.label, NAME_HEIGHT / height)
    kinds = {row.kind for table in points.values() for row in table.itertuples()}
    handles = [
        Line2D([], [], color=colour, label=label, **POINT_STYLE | {"marker": marker})
        for kind, (colour, marker, label) in KINDS.items()
        if kind in kinds
    ]
    if limited:
        handles.append(Line2D([], [], color=PURPLE, linestyle="--", label="limit by the noise of the clean images"))
    if any(_name_oracles(table.label) for table in points.values()):
        handles.append(Line2D([], [], linestyle="", label="† oracle"))
    legend_below(figure, handles, columns=5)
    return figure


def _quality_and_time(runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """Return the points of each dataset, averaged over seeds, the highest PSNR first."""
    rows = [
        {
            "dataset": run.dataset,
            "label": run_label(run),
            "kind": "own" if isinstance(run, TrainedRun) else "learned" if run.minutes is not None else "filter",
            "psnr": run.psnr.psnr.mean(),
            "limit": run.psnr.psnr_limit.mean(),
            "training": run.training_seconds,
            "denoising": run.seconds_per_megapixel,
        }
        for run in runs
        if run.measured and run.method != "noisy" and math.isfinite(run.psnr.psnr.mean())
    ]
    table = pd.DataFrame(rows, columns=["dataset", "label", "kind", "psnr", "limit", "training", "denoising"])
    table = table.astype({"training": float, "denoising": float})
    return {
        dataset: mine.groupby(["label", "kind"], sort=False)
        .mean(numeric_only=True)
        .sort_values("psnr", ascending=False, kind="stable")
        .reset_index()
        for dataset, mine in table.groupby("dataset", sort=False)
    }


def _name_beside(axes: Axes, values: pd.Series, labels: pd.Series, distance: float) -> None:
    """Write names right of a plot, from the highest, each with a line from its height, none nearer than a distance."""
    low, high = axes.get_ylim()
    places = ((values - low) / (high - low)).tolist()
    for i in range(1, len(places)):
        places[i] = min(places[i], places[i - 1] - distance)
    places[-1] = max(places[-1], 0.0)
    for i in reversed(range(len(places) - 1)):
        places[i] = max(places[i], places[i + 1] + distance)
    for value, label, place in zip(values, labels, places, strict=True):
        axes.annotate(
            label, (1, value), xycoords=axes.get_yaxis_transform(), xytext=(1.12, place), textcoords="axes fraction",
            va="center", fontsize=7, annotation_clip=False, parse_math=False,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------ side by side


def plot_side_by_side(runs: Sequence[Run], images: Sequence[Image], targets: Targets) -> Figure:
    """Plot the same part of one image by all methods, with the same grey values, and what is wrong with it below.

    Parameters
    ----------
    runs
        The runs of one dataset.
    images
        The evaluated images of its dataset. The one with the median gain in PSNR of the best method is shown.
    targets
        What the estimates are compared with.

    Returns
    -------
    Figure
        The noisy and the clean part first, then those of the methods, the best first. Below each is its difference
        from the clean image, or from the noisy one if there is no clean one. The middle plane of a volume is shown.
    """
    shown = one_of_each(runs)
    image, why = median_image(shown[0], images)
    noisy = read_noisy(image)
    target = None if image.clean is None else targets.target(image, noisy)
    region = find_region(noisy.shape[1:], targets.settings)
    estimates = {run_label(run): read_estimate(run.folder.denoised, image) for run in shown}
    pictures = {}
    for title, pixels in {"noisy": noisy, **estimates}.items():
        if target is None:
            pictures[title] = Picture(title, _middle_plane(pixels[:, *region]), "image")
        else:
            caption = f"{target.psnr(pixels):.2f} dB"
            pictures[title] = Picture(title, _middle_plane(target.to_target_units(pixels)), "image", caption)
    first = [pictures.pop("noisy")]
    if target is not None:
        first.append(Picture("clean", _middle_plane(target.clean), "image"))
    shown_pictures = [*first, *pictures.values()]
    reference = first[-1]
    part = find_detail(reference.pixels, zoom_sides(reference.pixels.shape[1:]))
    differences = [
        None if picture is reference else replace(picture, pixels=picture.pixels - reference.pixels, kind="residual")
        for picture in shown_pictures
    ]
    what = "difference from the clean image" if target is not None else "difference from the noisy image"
    figure = _plot_cells(shown_pictures, differences, reference, part)
    title = f"{runs[0].dataset}, “{image.name}”{why}; below: {what}{_name_oracles(pictures)}"
    figure.suptitle(title, fontsize=9, parse_math=False)
    return figure


def _middle_plane(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, pixels.shape[1] // 2] if pixels.ndim == 4 else pixels


def _plot_cells(
    pictures: Sequence[Picture], differences: Sequence[Picture | None], reference: Picture, part: Sequence[slice]
) -> Figure:
    """Plot a part of pictures in rows, each with its difference below, in the same colours."""
    in_row = min(len(pictures), PICTURES_IN_ROW)
    rows = math.ceil(len(pictures) / in_row)
    size = PAGE_WIDTH / in_row
    height, width = reference.pixels[:, *part].shape[-2:] if reference.pixels.ndim == 3 else (1, 2)
    figure = Figure(figsize=(PAGE_WIDTH, rows * (2 * size * height / width + 0.35) + 0.4))
    grid = figure.subplots(2 * rows, in_row, squeeze=False)
    limits = grey_limits([reference]) if reference.pixels.ndim == 3 else None
    # The noisy picture would decide on the colours of all.
    of_methods = [picture for picture in differences[1:] if picture is not None] or [p for p in differences if p]
    widest = replace(of_methods[0], pixels=np.concatenate([p.pixels for p in of_methods], axis=1))
    for axes in grid.ravel():
        axes.set_axis_off()
    for i, (picture, difference) in enumerate(zip(pictures, differences, strict=True)):
        above, below = grid[2 * (i // in_row) : 2 * (i // in_row) + 2, i % in_row]
        above.set_title("\n".join(filter(None, [picture.title, picture.caption])), fontsize=7, parse_math=False)
        _plot_part(above, picture, part, limits, reference)
        if difference is not None:
            _plot_part(below, difference, part, limits, widest)
    return figure


def _plot_part(
    axes: Axes, picture: Picture, part: Sequence[slice], limits: tuple[np.ndarray, np.ndarray] | None, like: Picture
) -> None:
    """Plot a part of a picture, with the colours of another one; without grey values, a trace as lines."""
    pixels = picture.pixels[:, *part]
    if limits is not None:
        plot_picture(axes, replace(picture, pixels=pixels), limits, like=like)
    else:
        axes.plot(pixels.T, linewidth=0.6)
        axes.set_ylim(like.pixels.min(), like.pixels.max())


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


def _name_oracles(labels: Iterable[str]) -> str:
    """Explain the dagger in a title, if the name of a method has one."""
    return "; † oracle" if any(name.endswith("†") for name in labels) else ""


def _widen_psnr_axis(axes: Axes) -> None:
    """Widen the axis of PSNR to at least :data:`MIN_PSNR_SPAN`."""
    low, high = axes.get_ylim()
    missing = max(0.0, MIN_PSNR_SPAN - (high - low))
    axes.set_ylim(low - missing / 2, high + missing / 2)
