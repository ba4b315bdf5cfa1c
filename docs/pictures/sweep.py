"""Draw where our own method pays: ``python docs/pictures/sweep.py [FOLDER]``.

``FOLDER`` holds the tables of ``config/fair_sweep.yaml``; results/reference/fair_sweep if it is not given.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dvlae.config.dataset import DatasetSettings
from dvlae.config.loading import load_settings
from dvlae.reporting.style import STYLE

REPOSITORY = Path(__file__).parents[2]
DATASET = REPOSITORY / "config/datasets/sweep.yaml"
REFERENCE = REPOSITORY / "results/reference/fair_sweep"
OURS = "dvlae-refined"
# In dB: gains that are much smaller than this have pale colours, even if all of them are.
MIN_SCALE = 0.5


def compare(summary: pd.DataFrame, per_image: pd.DataFrame) -> pd.DataFrame:
    """Return for each dataset our gain over the best other method in dB, the best of all, and on how many images.

    Oracles, the noisy images themselves, and other variants of our own method are left out. ``ahead`` is the number of
    images, of ``images``, on which the best method is ahead of the second one of the two.
    """
    is_other = ~summary.method.str.startswith("dvlae-") & summary.method.ne("noisy")
    rows = summary[summary.oracle.eq(False) & (is_other | summary.method.eq(OURS))]
    psnr = rows.pivot(index="dataset", columns="method", values="psnr")
    found = pd.DataFrame({"gain": psnr[OURS] - psnr.drop(columns=OURS).max(axis=1), "best": psnr.idxmax(axis=1)})
    for dataset, images in per_image.groupby("dataset"):
        best = found.best[dataset]
        other = psnr.loc[dataset].drop(OURS).idxmax() if best == OURS else OURS
        found.loc[dataset, ["ahead", "images"]] = [(images[best] > images[other]).sum(), len(images)]
    return found


def draw(compared: pd.DataFrame, dataset: DatasetSettings) -> Figure:
    """Draw a cell for each kind of noise: the best method, our gain, and on how many images the best is ahead."""
    lengths, photons = dataset.sweep.correlation_length, dataset.sweep.photons
    cells = compared.loc[list(dataset.members(DATASET.stem))]
    gain, best, ahead, images = (
        cells[name].to_numpy().reshape(len(lengths), len(photons)).T for name in ("gain", "best", "ahead", "images")
    )
    figure = Figure(figsize=(6.4, 2.6))
    axes = figure.subplots()
    most = max(MIN_SCALE, np.abs(gain).max())
    image = axes.imshow(gain, "RdBu", vmin=-most, vmax=most, aspect="auto")
    for place, value in np.ndenumerate(gain):
        colour = "white" if abs(value) > 0.6 * most else "black"
        number = f"{value:+.2f} dB".replace("-", "−")
        text = f"{best[place]}\n{number}\nbetter on {ahead[place]:.0f} of {images[place]:.0f}"
        axes.text(*place[::-1], text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(lengths)), map(str, lengths))
    axes.set_yticks(range(len(photons)), map(str, photons))
    axes.set(xlabel="correlation length of the noise (px)", ylabel="photons at white")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(image, label=f"{OURS} over the\nbest other (dB)")
    return figure


def main() -> None:
    """Draw the figure."""
    matplotlib.rcParams.update(STYLE)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else REFERENCE
    compared = compare(*(pd.read_csv(folder / f"{name}.csv") for name in ("summary", "per_image")))
    draw(compared, load_settings(DatasetSettings, DATASET)).savefig(REPOSITORY / "docs/where_it_pays.png", dpi=130)


if __name__ == "__main__":
    main()
