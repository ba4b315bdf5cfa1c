"""The appearance of all figures, and the files that they are written to."""

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
