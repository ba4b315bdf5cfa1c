"""Panels of the noisy, the denoised and the clean image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from scipy import ndimage

from dvlae.data.canonical import read_noisy
from dvlae.data.manifest import Image
from dvlae.data.outputs.reading import read_output
from dvlae.evaluation.evaluate import read_estimate
from dvlae.evaluation.register import Targets
from dvlae.evaluation.target import Target, find_region
from dvlae.reporting.style import BLACK, BLUE, ORANGE, PURPLE, hide_frame
from dvlae.runs.folder import Run

# In inches. Five pictures side by side fill the width of a page.
MAX_PICTURE_WIDTH = 1.42
MIN_ZOOM_SIDE = 64  # pixels
# In pixels of a trace. More would not be distinguishable.
MAX_ZOOM_LENGTH = 250
# Channels of a trace are plotted side by side.
MAX_SHOWN_CHANNELS = 3


@dataclass(frozen=True)
class Picture:
    """One column of a panel of images, or one line in a panel of traces.

    Attributes
    ----------
    title
        The text above it.
    pixels
        (C, Y, X), or (C, X) for a trace.
    kind
        ``"image"``, ``"deviation"`` or ``"residual"``, which determines the colours.
    caption
        The text below an image. The other kinds have a colour bar.
    """

    title: str
    pixels: np.ndarray
    kind: str
    caption: str = ""


def plot_panel(run: Run, images: Sequence[Image], targets: Targets) -> Figure:
    """Plot one image: noisy, denoised, clean, posterior standard deviation, and residual, each with a magnified part.

    The middle plane of a volume is shown. Traces are lines in one plot.

    Parameters
    ----------
    run
        The run whose estimate is shown.
    images
        The evaluated images of its dataset. The one with the median gain in PSNR is shown, or, without clean images,
        the middle one.
    targets
        What the estimates are compared with. All is shown in the units in which the clean image is compared.

    Returns
    -------
    Figure
        One column per picture.
    """
    image, why = median_image(run, images)
    pictures = _pictures(run, image, targets)
    what = {2: "trace", 3: "image", 4: "middle plane of the volume"}[len(image.shape)]
    figure = _plot_image_panel(pictures) if pictures[0].pixels.ndim == 3 else plot_traces(pictures)
    figure.suptitle(f"{run.dataset}, {what} “{image.name}”{why}", fontsize=10, parse_math=False)
    return figure


def _plot_image_panel(pictures: Sequence[Picture]) -> Figure:
    """Plot pictures (C, Y, X) side by side, each with a magnified part below."""
    height, width = pictures[0].pixels.shape[1:]
    cleanest = next(p for p in reversed(pictures) if p.kind == "image").pixels
    rows, columns = find_detail(cleanest, zoom_sides(cleanest.shape[1:]))

    tall = MAX_PICTURE_WIDTH * float(np.clip(height / width, 0.4, 1.6))
    wide = float(np.clip(tall * width / height, 0.85 * MAX_PICTURE_WIDTH, MAX_PICTURE_WIDTH))
    figure = Figure(figsize=(wide * len(pictures) + 0.2, 2 * tall + 0.85))
    grid = figure.add_gridspec(3, len(pictures), height_ratios=[tall, tall, 0.09])
    limits = grey_limits([p for p in pictures if p.kind == "image"])
    for column, picture in enumerate(pictures):
        whole, zoom, below = (figure.add_subplot(grid[row, column]) for row in range(3))
        whole.set_title(picture.title)
        plot_picture(whole, picture, limits)
        plotted = plot_picture(zoom, replace(picture, pixels=picture.pixels[:, rows, columns]), limits, like=picture)
        corner, size = (columns.start, rows.start), (columns.stop - columns.start, rows.stop - rows.start)
        whole.add_patch(Rectangle(corner, *size, fill=False, edgecolor=ORANGE, linewidth=1.2))
        _frame(zoom)
        below.set_axis_off()
        if picture.kind == "image":
            centre: dict[str, Any] = {"ha": "center", "va": "center", "transform": below.transAxes}
            below.text(0.5, 0.5, picture.caption, fontweight="bold", **centre)
        else:
            # Narrower than the picture, because the labels need room.
            place = below.inset_axes((0.08, 0, 0.84, 1))
            bar = figure.colorbar(plotted, cax=place, orientation="horizontal")
            bar.ax.tick_params(labelsize=7)
            bar.set_label("grey values", fontsize=7)
            bar.outline.set_visible(False)
    return figure


def _frame(zoom: Axes) -> None:
    for spine in zoom.spines.values():
        spine.set(visible=True, edgecolor=ORANGE, linewidth=1.5)


def plot_traces(pictures: Sequence[Picture]) -> Figure:
    """Plot traces as lines, with a magnified part and the residual below, in one column per channel.

    Parameters
    ----------
    pictures
        With pixels (C, X): the noisy one, the denoised one and, if there is one, the clean one, which are images; the
        residual; and the deviation, if there is one.

    Returns
    -------
    Figure
        Three plots per channel, of the first three channels.
    """
    signals = [p for p in pictures if p.kind == "image"]
    residual = next(p for p in pictures if p.kind == "residual")
    deviation = next((p for p in pictures if p.kind == "deviation"), None)
    channels = min(MAX_SHOWN_CHANNELS, len(residual.pixels))
    cleanest = signals[-1].pixels
    (part,) = find_detail(cleanest, zoom_sides(cleanest.shape[1:]))
    looks = [("0.7", 0.6), (BLUE, 1.2), (BLACK, 0.8)]  # colour and width of noisy, denoised, clean
    figure = Figure(figsize=(max(7.2, 4 * channels), 5.6))
    plots = figure.subplots(3, channels, squeeze=False)
    for channel, (whole, zoom, rest) in enumerate(plots.T):
        for axes, window in ((whole, slice(None)), (zoom, part)):
            x = np.arange(residual.pixels.shape[1])[window]
            for signal, (colour, width) in zip(signals, looks, strict=False):
                label = ": ".join(filter(None, [signal.title.replace("\n", " "), signal.caption]))
                axes.plot(x, signal.pixels[channel, window], color=colour, linewidth=width, label=label)
            if deviation is not None:
                middle, half = (p.pixels[channel, window] for p in (signals[1], deviation))
                label = "± posterior standard deviation"
                axes.fill_between(x, middle - half, middle + half, color=BLUE, alpha=0.25, linewidth=0, label=label)
        whole.axvspan(part.start, part.stop, facecolor="none", edgecolor=ORANGE, linewidth=1.2)
        _frame(zoom)
        rest.axhline(0, color="0.8", linewidth=0.8)
        rest.plot(residual.pixels[channel], color=PURPLE, linewidth=0.6)
        rest.set_xlabel("x (px)")
        if len(residual.pixels) > 1:
            whole.set_title(f"channel {channel}")
    for axes, label in zip(plots[:, 0], ("grey values", "grey values", residual.title), strict=True):
        axes.set_ylabel(label)
    figure.legend(*plots[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def median_image(run: Run, images: Sequence[Image]) -> tuple[Image, str]:
    """Choose the image to show.

    Parameters
    ----------
    run
        The run whose gain in PSNR is looked at.
    images
        The evaluated images.

    Returns
    -------
    image
        The one with the median gain or, without clean images, the middle one.
    reason
        Why it was chosen, for a title.
    """
    gain = (run.psnr.psnr - run.psnr.psnr_noisy).set_axis(run.psnr.image).reindex([i.name for i in images])
    if gain.isna().all():
        return images[len(images) // 2], ""
    gain = gain.dropna().sort_values(kind="stable")
    name = gain.index[len(gain) // 2]
    why = f" (median gain of {len(gain)} images)" if len(gain) > 1 else ""
    return next(image for image in images if image.name == name), why


def _pictures(run: Run, image: Image, targets: Targets) -> list[Picture]:
    noisy = read_noisy(image)
    estimate = read_estimate(run.folder.denoised, image)
    region = find_region(noisy.shape[1:], targets.settings)
    deviation = read_output(run.folder.uncertainty, image, deviation=True)
    deviation = None if deviation is None else deviation[:, *region]
    title = f"Denoised: {run.label}".replace(", ", ",\n")
    if image.clean is None:
        noisy, estimate = noisy[:, *region], estimate[:, *region]
        pictures = [Picture("Noisy", noisy, "image"), Picture(title, estimate, "image")]
        residual = Picture("Removed:\nnoisy − denoised", noisy - estimate, "residual")
    else:
        target = targets.target(image, noisy)
        gain, _ = target.gain_and_offset(estimate)
        deviation = None if deviation is None else abs(gain) * deviation
        fitted = target.to_target_units(estimate)
        pictures = [
            Picture("Noisy", target.to_target_units(noisy), "image", _describe_score(target, noisy)),
            Picture(title, fitted, "image", _describe_score(target, estimate)),
            Picture("Clean", target.clean, "image", "reference"),
        ]
        residual = Picture("Residual:\ndenoised − clean", fitted - target.clean, "residual")
    if deviation is not None:
        pictures.append(Picture("Posterior\nstandard deviation", deviation, "deviation"))
    pictures.append(residual)
    if noisy.ndim == 4:
        middle = residual.pixels.shape[1] // 2
        return [replace(picture, pixels=picture.pixels[:, middle]) for picture in pictures]
    return pictures


def _describe_score(target: Target, estimate: np.ndarray) -> str:
    psnr, ssim = target.score(estimate)
    return f"{psnr:.2f} dB" if math.isnan(ssim) else f"{psnr:.2f} dB, SSIM {ssim:.2f}"


def zoom_sides(shape: Sequence[int]) -> list[int]:
    """Return the sides of the magnified part: about a quarter of each side of the picture.

    Parameters
    ----------
    shape
        Sides of the picture, in pixels.

    Returns
    -------
    list of int
        Sides of the part, in pixels.
    """
    part = min(1.0, max(0.25, MIN_ZOOM_SIDE / min(shape)))
    longest = MAX_ZOOM_LENGTH if len(shape) == 1 else max(shape)
    return [min(longest, max(1, round(part * length))) for length in shape]


def find_detail(image: np.ndarray, sides: Sequence[int]) -> tuple[slice, ...]:
    """Return the most structured part of an image.

    Parameters
    ----------
    image
        An image (C, Y, X) or a trace (C, X).
    sides
        The sides of the part, in pixels.

    Returns
    -------
    tuple of slice
        One per spatial axis.
    """
    grey = ndimage.gaussian_filter(image.mean(axis=0, dtype=np.float64), 2)
    # The smallest slope over the axes prefers detail in both directions to one long edge.
    slopes = [np.abs(np.gradient(grey, axis=axis)) for axis, length in enumerate(grey.shape) if length > 1]
    slope = np.min(slopes or [grey], axis=0)
    mean = ndimage.uniform_filter(slope, sides)
    inside = mean[tuple(slice(n // 2, n // 2 + length - n + 1) for n, length in zip(sides, grey.shape, strict=True))]
    corner = np.unravel_index(np.argmax(inside), inside.shape)
    return tuple(slice(int(first), int(first) + side) for first, side in zip(corner, sides, strict=True))


def grey_limits(pictures: Sequence[Picture]) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of black and white in each channel, from the cleanest picture.

    Parameters
    ----------
    pictures
        The pictures, the cleanest last.

    Returns
    -------
    tuple of numpy.ndarray
        Black and white, each (C, 1, 1). They are (1, 1, 1) for colour images, whose channels share them.
    """
    pixels = pictures[-1].pixels
    axis = None if len(pixels) == 3 else (1, 2)
    black, white = np.percentile(pixels, [0.2, 99.8], axis=axis, keepdims=True)
    return black, np.where(white > black, white, black + 1)


def plot_picture(
    axes: Axes, picture: Picture, limits: tuple[np.ndarray, np.ndarray], like: Picture | None = None
) -> AxesImage:
    """Plot a picture.

    Parameters
    ----------
    axes
        Where to plot it.
    picture
        With its pixels, (C, Y, X), and what they are.
    limits
        The values of black and white in an image, as returned by :func:`grey_limits`.
    like
        The complete picture, if ``picture`` is a part of it. It determines the range of colours.

    Returns
    -------
    AxesImage
        The input of a colour bar.
    """
    axes.set(xticks=[], yticks=[])
    hide_frame(axes)
    reference = (like or picture).pixels
    if picture.kind == "deviation":
        value = np.sqrt(np.mean(picture.pixels**2, axis=0))
        top = np.percentile(np.sqrt(np.mean(reference**2, axis=0)), 99.8)
        return axes.imshow(value, cmap="viridis", vmin=0, vmax=top or 1)
    if picture.kind == "residual":
        top = np.percentile(np.abs(reference.mean(axis=0)), 99.5)
        return axes.imshow(picture.pixels.mean(axis=0), cmap="PuOr", vmin=-(top or 1), vmax=top or 1)
    black, white = limits
    return axes.imshow(colours(np.clip((picture.pixels - black) / (white - black), 0, 1)), cmap="gray", vmin=0, vmax=1)


def colours(pixels: np.ndarray) -> np.ndarray:
    """Return the colours of channels: three are red, green, blue; two are green, magenta; of others the first is grey.

    Parameters
    ----------
    pixels
        (C, Y, X).

    Returns
    -------
    numpy.ndarray
        (Y, X, 3), or (Y, X) for grey.
    """
    if len(pixels) == 3:
        return np.moveaxis(pixels, 0, -1)
    if len(pixels) == 2:
        return np.stack([pixels[1], pixels[0], pixels[1]], axis=-1)
    return pixels[0]
