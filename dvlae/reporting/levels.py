"""The figure that shows what each level of the ladder contributes to one image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from dvlae.axes import format_sides
from dvlae.data.defects.frames import read_filled
from dvlae.data.manifest import read_manifest, select
from dvlae.inference.levels import cut_with_context, vary_levels
from dvlae.models.files import load_to
from dvlae.reporting.style import BLUE, STYLE, hide_frame, save_figure
from dvlae.system.errors import UserError
from dvlae.system.progress import progress

# The standard deviation of a level is that of so many samples.
SAMPLES_PER_LEVEL = 16
MAX_SHOWN_SAMPLES = 4


def plot_levels(levels: Sequence[tuple[int, np.ndarray]], strides: Sequence[Sequence[int]], title: str) -> Figure:
    """Plot some samples of each level, and the standard deviation of all samples.

    Parameters
    ----------
    levels
        The output of :func:`dvlae.inference.levels.vary_levels`. Channels are averaged. The middle plane of a volume is
        shown.
    strides
        Pixels per position of each level's grid along each spatial axis, finest level first.
    title
        The title of the figure.

    Returns
    -------
    Figure
        One row per level.
    """
    images = [_plane(sampled.mean(axis=1)) for _, sampled in levels]  # (samples, Y, X) each, or (samples, X)
    deviations = [_plane(np.sqrt(sampled.var(axis=0, ddof=1).mean(axis=0))[None])[0] for _, sampled in levels]
    limits = np.percentile(images[-1], [0.2, 99.8])
    height, width = images[0].shape[-2:] if images[0].ndim == 3 else (1, 2)
    tall = 1.7 * float(np.clip(height / width, 0.4, 1.8))  # inches
    figure = Figure(figsize=(1.75 * (MAX_SHOWN_SAMPLES + 1) + 0.5, tall * len(levels) + 0.7))
    grid = figure.subplots(len(levels), MAX_SHOWN_SAMPLES + 1, squeeze=False)
    for (level, _), sampled, deviation, row in zip(levels, images, deviations, grid, strict=True):
        for axes, sample in zip(row[:MAX_SHOWN_SAMPLES], sampled[:MAX_SHOWN_SAMPLES], strict=True):
            _plot_plane(axes, sample, cmap="gray", vmin=limits[0], vmax=limits[1])
        shown = _plot_plane(row[-1], deviation, cmap="viridis", vmin=0, vmax=np.percentile(deviation, 99.8) or 1)
        if shown is not None:
            bar = figure.colorbar(shown, ax=row[-1], fraction=0.05, pad=0.02)
            bar.ax.tick_params(labelsize=6)
            bar.outline.set_visible(False)
        stride = format_sides(strides[level] if len(set(strides[level])) > 1 else strides[level][:1])
        row[0].set_ylabel(f"level {level}\n(grid of {stride} px)", fontsize=8)
    for number, axes in enumerate(grid[0, :MAX_SHOWN_SAMPLES], start=1):
        axes.set_title(f"sample {number}")
    grid[0, -1].set_title(f"standard deviation\n({levels[0][1].shape[0]} samples, grey values)")
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def _plane(values: np.ndarray) -> np.ndarray:
    """Return the middle plane of volumes (N, Z, Y, X). Return images (N, Y, X) and traces (N, X) unchanged."""
    return values[:, values.shape[1] // 2] if values.ndim == 4 else values


def _plot_plane(axes: Axes, values: np.ndarray, **options: Any) -> AxesImage | None:
    """Plot an image (Y, X), or a trace (X,) as a line. Return the input of a colour bar, if there can be one."""
    axes.set_xticks([])
    hide_frame(axes)
    if values.ndim == 1:
        axes.plot(values, color=BLUE, linewidth=0.8)
        axes.tick_params(labelsize=6)
        return None
    axes.set_yticks([])
    return axes.imshow(values, **options)


def make_levels_figure(
    model: Path,
    images: Path,
    output: Path,
    *,
    image: str,
    crop: Sequence[tuple[int, int]] | None = None,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Write a figure of what each level contributes to one image, as PNG and as SVG.

    Parameters
    ----------
    model
        Folder of a trained model.
    images
        Folder with ``manifest.csv``.
    output
        The PNG file to write. The SVG file is written to the same folder.
    image
        Name of the image.
    crop
        The part to show, start and stop along each axis, in the order of the file. Its surroundings are taken into
        account.
    seed
        Determines the samples.
    device
        Where to compute.

    Raises
    ------
    UserError
        If the model or the image cannot be used, the device is missing, or the crop is not within the image.
    """
    if output.suffix.lower() != ".png":
        raise UserError(
            f"output: found {str(output)!r}, allowed: a name that ends in .png; the SVG file has the same name"
        )
    network = load_to(device, model)
    manifest = {row.name: row for row in read_manifest(images)}
    chosen = manifest[select(list(manifest), [image])[0]]
    part, shown = cut_with_context(network, read_filled(chosen), crop, image)
    total = SAMPLES_PER_LEVEL * len(network.ladder_vae.levels)
    with progress(total=total, description="levels", unit="sample") as bar:
        varied = vary_levels(network, part, name=image, seed=seed, samples=SAMPLES_PER_LEVEL, on_progress=bar.update)
        rows = [(level, sampled[:, :, *shown]) for level, sampled in varied]
    with matplotlib.rc_context(STYLE):
        title = f"“{image}”: each level drawn again, those above fixed, those below at their mean"
        save_figure(plot_levels(rows, network.ladder_vae.strides, title), output.with_suffix(""))
