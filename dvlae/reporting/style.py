"""The appearance of all figures, and the files that they are written to."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType

from dvlae.system.files import atomic_file

RESOLUTION_DPI = 300
# In inches.
PAGE_WIDTH = 7.2
ROW_HEIGHT = 1.35
# A figure is at least as high as so many rows.
MIN_ROWS = 2
PLOTS_IN_ROW = 4
STYLE: dict[Any, Any] = {  # Any, as matplotlib's stubs name every key
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "legend.frameon": False,
    "svg.hashsalt": "dvlae",  # equal runs give equal files
}
BLACK, BLUE, ORANGE, GREEN, PURPLE = "#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7"  # Okabe and Ito


def save_figure(figure: Figure, stem: Path) -> None:
    """Write a figure as PNG and SVG.

    Parameters
    ----------
    figure
        Complete: what it shows is drawn when it is written.
    stem
        The path without a suffix.
    """
    options: dict[str, dict[str, Any]] = {
        "png": {"dpi": RESOLUTION_DPI},
        # The resolution of embedded images; lines and text stay vectors.
        "svg": {"metadata": {"Date": None}, "dpi": 0.6 * RESOLUTION_DPI},
    }
    for suffix in options:
        with atomic_file(stem.with_name(f"{stem.name}.{suffix}")) as path:
            figure.savefig(path, format=suffix, **options[suffix])


def plot_grid(
    titles: Sequence[str], plots_each: int, *, heading: str, xlabel: str, ylabel: str
) -> tuple[Figure, list[list[Axes]]]:
    """Make a figure with the same plots for any number of things, in as many rows as they need.

    Parameters
    ----------
    titles
        The name of each thing, above its first plot.
    plots_each
        Number of plots of each, side by side.
    heading
        The title of the figure.
    xlabel, ylabel
        The labels of the lowest and of the first plots.

    Returns
    -------
    figure
        The figure, as wide as a page.
    plots
        The plots of each thing. All share their axes.
    """
    in_row = min(len(titles), max(1, PLOTS_IN_ROW // plots_each))
    rows = math.ceil(len(titles) / in_row)
    figure = Figure(figsize=(PAGE_WIDTH, ROW_HEIGHT * max(rows, MIN_ROWS) + 0.9))
    grid = figure.subplots(rows, in_row * plots_each, sharex=True, sharey=True, squeeze=False)
    places = [
        list(row[first : first + plots_each]) for row in grid for first in range(0, in_row * plots_each, plots_each)
    ]
    for axes in [axes for place in places[len(titles) :] for axes in place]:
        axes.set_visible(False)
    plots = places[: len(titles)]
    for title, place in zip(titles, plots, strict=True):
        place[0].set_title(title, loc="left", fontsize=8, parse_math=False)
        for axes in place:
            axes.tick_params(labelsize=7, labelbottom=True)
    for row in grid:
        row[0].set_ylabel(ylabel, fontsize=7)
    for column in grid.T:
        [axes for axes in column if axes.get_visible()][-1].set_xlabel(xlabel, fontsize=7)
    figure.suptitle(heading, fontsize=10, parse_math=False)
    return figure, plots


def legend_below(figure: Figure, handles: Sequence[Line2D], columns: int) -> None:
    """Add a legend below all plots of a figure.

    Parameters
    ----------
    figure
        The figure.
    handles
        Lines with their labels.
    columns
        Number of columns; fewer if there are fewer handles.
    """
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)), fontsize=8)


def hide_frame(axes: Axes) -> None:
    """Remove the frame of a plot.

    Parameters
    ----------
    axes
        The plot.
    """
    for spine in axes.spines.values():
        spine.set_visible(False)


def sequential_colours(fields: Iterable[int]) -> dict[int, ColorType]:
    """Return a colour for each receptive field, darker for larger ones.

    Parameters
    ----------
    fields
        Receptive fields, in any order and number.

    Returns
    -------
    dict
        The colours by receptive field, in rising order.
    """
    fields = sorted(set(fields))
    if len(fields) == 1:
        return {fields[0]: BLUE}
    places = np.linspace(0.85, 0.0, len(fields))
    return {field: matplotlib.colormaps["viridis"](place) for field, place in zip(fields, places, strict=True)}
