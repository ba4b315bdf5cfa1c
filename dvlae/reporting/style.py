"""What all figures share: the runs that they show, how they look, how they are written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
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
        The path without its suffix; files that are there are replaced.
    """
    options: dict[str, dict[str, Any]] = {
        "png": {"dpi": RESOLUTION_DPI},
        # Images are embedded in the SVG at this resolution: what is drawn stays lines and text.
        "svg": {"metadata": {"Date": None}, "dpi": 0.6 * RESOLUTION_DPI},
    }
    for suffix in options:
        with atomic_file(stem.with_name(f"{stem.name}.{suffix}")) as path:
            figure.savefig(path, format=suffix, **options[suffix])


def sequential_colours(fields: Sequence[int]) -> dict[int, ColorType]:
    """Return a colour for each receptive field: darker where it is larger.

    Parameters
    ----------
    fields
        Receptive fields, in rising order.

    Returns
    -------
    dict
        By receptive field.
    """
    if len(fields) == 1:
        return {fields[0]: BLUE}
    places = np.linspace(0.85, 0.0, len(fields))
    return {field: matplotlib.colormaps["viridis"](place) for field, place in zip(fields, places, strict=True)}
