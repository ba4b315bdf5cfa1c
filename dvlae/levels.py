"""The level-by-level picture: what each level of the ladder decides in one image.

All latents above a level are fixed to one sample of the posterior, those of the level itself are drawn again and again,
and those below take the mean of their posterior given what is above. What then differs between the denoised images is
what this level leaves open. Pictures of this kind go back to Sonderby et al., "Ladder variational autoencoders" (arXiv
1602.02282, 2016).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dvlae.data.images import read_canonical, read_manifest, select
from dvlae.errors import UserError
from dvlae.figures import BLUE, STYLE, save
from dvlae.models.dvlae import DVLAE
from dvlae.models.files import load_to
from dvlae.posterior import batches, check_image, draw_samples, encode, repeat
from dvlae.progress import progress

SAMPLES = 16  # of each level, of which the standard deviation is taken
SHOWN = 4  # of them
CONTEXT = 256  # pixels around a crop that are computed with it, where the image has them


@torch.inference_mode()
def vary_levels(
    model: DVLAE, image: np.ndarray, *, name: str, seed: int, samples: int = SAMPLES, on_progress=lambda samples: None
) -> Iterator[tuple[int, np.ndarray]]:
    """Draw one level after the other again, with those above it fixed and those below it at their mean.

    Parameters
    ----------
    model
        A trained model, in evaluation mode, on the device that shall compute.
    image
        Noisy image, (C, ...), in the units of the training images.
    name
        The image's name: with the seed it fixes the samples.
    seed
        Fixes the samples.
    samples
        Of each level.
    on_progress
        Called with the number of samples that were drawn since the last call.

    Yields
    ------
    level, drawn
        The level's number, coarsest first, and denoised images (samples, C, ...) in the units of the image.
    """
    _, features = encode(model, image)
    own = (..., *(slice(side) for side in image.shape[1:]))
    for level in reversed(range(len(features))):
        drawn = []
        for numbers in batches(model, image[0].size, samples):
            state, _ = model.ladder_vae.descend(
                None, repeat(features, len(numbers)), _draw_one_level(level, seed, name, numbers)
            )
            drawn.append(model.denormalise(model.signal_decoder(model.ladder_vae.last_block(state)))[own].cpu().numpy())
            on_progress(len(numbers))
        yield level, np.concatenate(drawn)


def _draw_one_level(varied: int, seed: int, name: str, numbers: Sequence[int]):
    """Return a function that draws samples of one level, one and the same above it, and takes the mean below it."""
    fixed = draw_samples(seed, name, [0] * len(numbers))
    varying = draw_samples(seed, name, [number + 1 for number in numbers])

    def draw(level: int, mean: Tensor, std: Tensor) -> Tensor:
        if level < varied:
            return mean
        return (varying if level == varied else fixed)(level, mean, std)

    return draw


def picture(levels: Sequence[tuple[int, np.ndarray]], strides: Sequence[int], title: str) -> Figure:
    """Draw a row for each level: some of its samples, and the standard deviation of all.

    Parameters
    ----------
    levels
        What :func:`vary_levels` yields. Several channels are shown as their mean, of a volume the middle plane.
    strides
        Pixels to a position of each level's grid, finest first.
    title
        Above the picture.
    """
    images = [_plane(drawn.mean(axis=1)) for _, drawn in levels]  # (samples, Y, X) each, or (samples, X)
    deviations = [_plane(np.sqrt(drawn.var(axis=0, ddof=1).mean(axis=0))[None])[0] for _, drawn in levels]
    limits = np.percentile(images[-1], [0.2, 99.8])
    height, width = images[0].shape[-2:] if images[0].ndim == 3 else (1, 2)
    tall = 1.7 * float(np.clip(height / width, 0.4, 1.8))  # inches
    figure = Figure(figsize=(1.75 * (SHOWN + 1) + 0.5, tall * len(levels) + 0.7))
    grid = figure.subplots(len(levels), SHOWN + 1, squeeze=False)
    for (level, _), drawn, deviation, row in zip(levels, images, deviations, grid, strict=True):
        for axes, sample in zip(row[:SHOWN], drawn[:SHOWN], strict=True):
            _show(axes, sample, cmap="gray", vmin=limits[0], vmax=limits[1])
        shown = _show(row[-1], deviation, cmap="viridis", vmin=0, vmax=np.percentile(deviation, 99.8) or 1)
        if shown is not None:
            bar = figure.colorbar(shown, ax=row[-1], fraction=0.05, pad=0.02)
            bar.ax.tick_params(labelsize=6)
            bar.outline.set_visible(False)
        row[0].set_ylabel(f"level {level}\n(grid of {strides[level]} px)", fontsize=8)
    for number, axes in enumerate(grid[0, :SHOWN], start=1):
        axes.set_title(f"sample {number}")
    grid[0, -1].set_title(f"standard deviation\n({levels[0][1].shape[0]} samples, grey values)")
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def _plane(values: np.ndarray) -> np.ndarray:
    """Return the middle plane of volumes (N, Z, Y, X), images (N, Y, X) and traces (N, X) as they are."""
    return values[:, values.shape[1] // 2] if values.ndim == 4 else values


def _show(axes, values: np.ndarray, **options):
    """Draw an image (Y, X), or a trace (X,) as a line; return what a colour bar can describe, if anything."""
    axes.set_xticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if values.ndim == 1:
        axes.plot(values, color=BLUE, linewidth=0.8)
        axes.tick_params(labelsize=6)
        return None
    axes.set_yticks([])
    return axes.imshow(values, **options)


def draw_levels(
    model: Path,
    images: Path,
    output: Path,
    *,
    image: str,
    crop: Sequence[tuple[int, int]] | None = None,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Write the level-by-level picture of one image, as PNG and as SVG beside it.

    Parameters
    ----------
    model
        Folder of a trained model.
    images
        Folder with ``manifest.csv``.
    output
        The PNG to make.
    image
        The image's name.
    crop
        Part that is shown: first pixel and the one after the last along each axis, in the order of the file. It is
        computed with what surrounds it.
    seed
        Fixes the samples.
    device
        Where to compute.

    Raises
    ------
    UserError
        Where the model or the image cannot be used, the device is missing, or the crop is not within the image.
    """
    if output.suffix.lower() != ".png":
        raise UserError(f"output: found {str(output)!r}, allowed: a name that ends in .png; an SVG is made beside it")
    network = load_to(device, model)
    manifest = {row.name: row for row in read_manifest(images)}
    chosen = manifest[select(list(manifest), [image])[0]]
    noisy = read_canonical(chosen.noisy)
    crop = [(0, side) for side in noisy.shape[1:]] if crop is None else crop
    computed, shown = _surround(crop, noisy.shape[1:], network.stride, image)
    part = np.ascontiguousarray(noisy[:, *computed])
    check_image(network, part.shape, image, "; show a part of it with --crop")
    total = SAMPLES * len(network.ladder_vae.levels)
    with progress(total=total, description="levels", unit="sample") as bar:
        varied = vary_levels(network, part, name=image, seed=seed, on_progress=bar.update)
        rows = [(level, drawn[:, :, *shown]) for level, drawn in varied]
    with matplotlib.rc_context(STYLE):
        title = f"“{image}”: each level drawn again, those above fixed, those below at their mean"
        save(picture(rows, network.ladder_vae.strides, title), output.with_suffix(""))


def _surround(crop: Sequence[tuple[int, int]], sides: Sequence[int], stride: int, name: str):
    """Return what is computed for a crop, cut on the model's grid, and where in it the crop is."""
    inside = all(0 <= first < stop <= side for (first, stop), side in zip(crop, sides, strict=False))
    if len(crop) != len(sides) or not inside:
        found = " ".join(f"{first}:{stop}" for first, stop in crop)
        raise UserError(
            f"crop: found {found}, allowed: first:stop for each axis of {name}, within {tuple(sides)} pixels"
        )
    computed, shown = [], []
    for (first, stop), side in zip(crop, sides, strict=True):
        start = max(0, first - CONTEXT) // stride * stride
        computed.append(slice(start, min(side, stop + CONTEXT)))
        shown.append(slice(first - start, stop - start))
    return computed, shown
