"""Draw noise along x, along y and along no axis: ``python docs/pictures/noise_directions.py``."""

from pathlib import Path

import matplotlib
import numpy as np
import skimage.data
from matplotlib.figure import Figure
from scipy import ndimage

from dvlae.reporting.style import BLUE, ORANGE, STYLE

GUIDES = Path(__file__).parents[1]
PHOTONS, DECAY, DISTANCES = 50, 0.6, 10
KERNEL = DECAY ** np.arange(8)


def correlation(noise: np.ndarray, axis: int) -> list[float]:
    """Return the correlation of noise with itself at each distance along an axis."""
    lines = np.moveaxis(noise - noise.mean(), axis, -1)
    count = lines.shape[-1]
    return [float(np.mean(lines[:, d:] * lines[:, : count - d]) / lines.var()) for d in range(DISTANCES + 1)]


def main() -> None:
    """Draw the figure."""
    matplotlib.rcParams.update(STYLE)
    clean = skimage.data.camera()[30:230, 130:330] / 255
    white = np.random.default_rng(0).normal(size=clean.shape)
    kernel = KERNEL / np.linalg.norm(KERNEL)
    noises = {
        "along rows: x": ndimage.convolve1d(white, kernel, axis=1, mode="wrap"),
        "along columns: y": ndimage.convolve1d(white, kernel, axis=0, mode="wrap"),
        "independent pixels: none": white,
    }
    figure = Figure(figsize=(7.2, 4.2))
    axes = figure.subplots(2, len(noises), height_ratios=[1.6, 1])
    for (title, noise), (above, below) in zip(noises.items(), axes.T, strict=True):
        above.imshow(clean + noise * np.sqrt(clean / PHOTONS), "gray", vmin=0, vmax=1)
        above.set_title(title)
        above.set_axis_off()
        below.axhspan(-0.05, 0.05, color="0.9")
        below.plot(correlation(noise, 1), "o-", color=BLUE, markersize=4, label="along x")
        below.plot(correlation(noise, 0), "s--", color=ORANGE, markersize=4, label="along y")
        below.set(xlabel="distance (px)", ylim=(-0.12, 1.05))
    axes[1, 0].set_ylabel("correlation")
    axes[1, 0].legend()
    figure.savefig(GUIDES / "noise_directions.png", dpi=130)


if __name__ == "__main__":
    main()
