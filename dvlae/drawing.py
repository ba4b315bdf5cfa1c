"""What all figures share: the runs that they show, how they look, how they are written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dvlae.files import atomic_file
from dvlae.provenance import read_psnr

DOTS_PER_INCH = 300
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "legend.frameon": False,
    "svg.hashsalt": "dvlae",  # equal runs give equal files
}
BLACK, BLUE, ORANGE, GREEN, PURPLE = "#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7"  # Okabe and Ito


@dataclass(frozen=True)
class Run:
    """One method on one dataset with one seed.

    Attributes
    ----------
    folder
        Holds ``psnr.csv``, ``denoised/`` and, for a trained model, ``uncertainty/`` and ``model/``.
    psnr
        One row an image.
    """

    folder: Path
    dataset: str
    method: str
    receptive_field: int | None
    seed: int
    psnr: pd.DataFrame

    @classmethod
    def read(cls, psnr_csv: Path) -> "Run":
        """Read the table of :func:`dvlae.evaluation.evaluate`, and remember where it stood."""
        table = read_psnr(psnr_csv)
        first = table.iloc[0]
        field = None if pd.isna(first.receptive_field) else int(first.receptive_field)
        return cls(Path(psnr_csv).parent, first.dataset, first.method, field, int(first.seed), table)

    @property
    def short_label(self) -> str:
        """The method, in a word or two."""
        if self.receptive_field is not None:
            return f"DVLAE {self.receptive_field} px"
        return {"gaussian": "Gaussian", "bm3d": "BM3D"}.get(self.method, self.method)

    @property
    def label(self) -> str:
        """The method, in words."""
        if self.receptive_field is not None:
            return f"DVLAE, receptive field {self.receptive_field} px"
        return {"noisy": "noisy image", "gaussian": "Gaussian filter", "bm3d": "BM3D"}.get(self.method, self.method)


def save(figure: Figure, stem: Path) -> None:
    """Write a figure as PNG and SVG."""
    for suffix in ("png", "svg"):
        # Images are embedded in the SVG at this resolution: what is drawn stays lines and text.
        options = (
            {"metadata": {"Date": None}, "dpi": 0.6 * DOTS_PER_INCH} if suffix == "svg" else {"dpi": DOTS_PER_INCH}
        )
        with atomic_file(stem.with_name(f"{stem.name}.{suffix}")) as path:
            figure.savefig(path, format=suffix, **options)


def best_run(runs: Sequence[Run]) -> Run:
    """Choose the run to show: DVLAE before baselines, then the best PSNR, then the larger receptive field."""

    def rank(run: Run) -> tuple:
        psnr = run.psnr.psnr.mean()
        return (
            run.receptive_field is not None,
            run.method != "noisy",
            -math.inf if math.isnan(psnr) else psnr,
            run.receptive_field or 0,
            -run.seed,
        )

    return max(runs, key=rank)


def rising_colours(fields: Sequence[int]) -> dict[int, object]:
    """Return a colour for each receptive field: darker where it is larger."""
    if len(fields) == 1:
        return {fields[0]: BLUE}
    places = np.linspace(0.85, 0.0, len(fields))
    return {field: matplotlib.colormaps["viridis"](place) for field, place in zip(fields, places, strict=True)}
