"""What a user of an exported model has to know: its documentation, and its picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dvlae.axes import format_sides
from dvlae.inference.export.example import TOLERANCE, Example
from dvlae.inference.export.network import ExportedDenoiser

PAPERS = {
    "10.48550/arXiv.2310.07887": "Salmon and Krull, Unsupervised denoising for signal-dependent and row-correlated "
    "imaging noise, 2023",
    "10.48550/arXiv.2310.18116": "Salmon and Krull, Direct unsupervised denoising, 2023",
}
# Quantiles of the grey values that the picture shows as black and as white.
SHOWN = (0.005, 0.995)


def left_out(network: ExportedDenoiser) -> list[str]:
    """Say what an exported model does not do.

    Parameters
    ----------
    network
        The exported network.

    Returns
    -------
    list of str
        Sentences.
    """
    halo, reach, stride = (format_sides(sides) for sides in (network.halo, network.reach, network.stride))
    tiles = f"Tiles equal the complete image only with an overlap of {reach} pixels to each side"
    if network.halo != network.reach:
        tiles += f"; {halo} are asked for, and seams may be seen"
    return [
        "It gives neither an uncertainty nor samples.",
        f"{tiles}. They have to begin at multiples of {stride} pixels.",
        "It does not look for hot, dead or masked pixels and values that are no numbers: they spread to neighbours.",
        "It does not notice images of another gain, offset or noise than those of its training, and is wrong there.",
    ]


def describe(
    name: str,
    network: ExportedDenoiser,
    example: Example,
    differences: Mapping[str, float],
    record: Mapping[str, Any],
    seen: Mapping[str, Any] | None,
) -> str:
    """Write the documentation of an exported model.

    Parameters
    ----------
    name
        Name of the model.
    network, example
        The exported network, and the image on which it was tried.
    differences
        For each kind of file, the largest difference from our own numbers, in standard deviations of the noise.
    record
        The record of the training; empty: unknown.
    seen
        The scales of the images of the training, as in the description of the model; None: unknown.

    Returns
    -------
    str
        Markdown.
    """
    architecture = example.model.architecture
    statistic, axes = architecture.direct_denoiser, " ".join("zyx"[-architecture.dimensions :])
    noise = {
        "none": "independent from pixel to pixel",
        **{axis: f"correlated along {axis}; do not rotate or transpose the images" for axis in "xyz"},
    }[architecture.noise_direction]
    lines = [
        f"# {name}",
        "",
        "Removes noise from images of the microscope and the settings that it was trained on. It was trained on noisy "
        "images alone, with [dvlae](https://arxiv.org/abs/2310.07887).",
        "",
        "## Input and output",
        "",
        f"- Axes: batch, channel, {axes}. Channels, chosen as for the training: {architecture.image_channels}.",
        "- Grey values as they are in the file, as float32: the network normalises them itself, and gives grey values "
        "of the same scale.",
        f"- The estimate is the {statistic} of the posterior of the clean image.",
        f"- The noise is {noise}.",
        f"- Any number of images, of any size: they are mirrored to sides that are multiples of "
        f"{format_sides(network.stride)} pixels, at least half of which they need.",
        *_seen_lines(seen),
        "",
        "## What it leaves out",
        "",
        *(f"- {sentence}" for sentence in left_out(network)),
        "",
        "The command `dvlae predict` does all of this.",
        "",
        *_training_lines(record),
        "## Validation",
        "",
        f"The example is {_origin(example)}. On it, and on smaller parts of it, the numbers were compared with those "
        f"of dvlae; allowed is a difference of {TOLERANCE:g} standard deviations of the noise:",
        "",
        *(f"- {kind}: {difference:.1g}" for kind, difference in differences.items()),
        "",
        "How good the estimates are, `dvlae evaluate` says.",
        "",
        "## To be cited",
        "",
        *(f"- {text}, doi {doi}" for doi, text in PAPERS.items()),
    ]
    return "\n".join(lines) + "\n"


def _origin(example: Example) -> str:
    if example.recorded is None:
        return "a sample of the model itself, not a recorded image"
    return f"part of the recorded image {example.recorded}"


def _seen_lines(seen: Mapping[str, Any] | None) -> list[str]:
    """Say which grey values and which noise the model has seen, one line for each channel."""
    if seen is None:
        return []
    return [
        f"- Images of the training{f', channel {number}' if len(seen['levels']) > 1 else ''}: grey values {low:.4g} to "
        f"{high:.4g}, standard deviation of the noise {least:.3g} to {most:.3g}."
        for number, ((low, high), (least, most)) in enumerate(zip(seen["levels"], seen["noise"], strict=True))
    ]


def _training_lines(record: Mapping[str, Any]) -> list[str]:
    """Say how the model was trained."""
    if not record:
        return []
    return [
        "## Training",
        "",
        f"{record['steps']} steps, seed {record['seed']}, receptive field {record['receptive_field']} pixels, dvlae "
        f"{record['versions']['dvlae']}.",
        "",
    ]


def save_cover(example: Example, path: Path) -> None:
    """Draw the example before and after.

    Parameters
    ----------
    example
        The image on which the model was tried.
    path
        The PNG to write.
    """
    figure = Figure(figsize=(8, 4.3), layout="constrained")
    title = "noisy" if example.recorded is not None else "noisy, sampled by the model"
    pictures = {title: example.noisy, "denoised": example.denoised}
    for axes, (title, picture) in zip(figure.subplots(1, 2, sharex=True, sharey=True), pictures.items(), strict=True):
        _draw(axes, picture, example.noisy)
        axes.set_title(title)
    figure.savefig(path, dpi=100)


def _draw(axes: Axes, picture: np.ndarray, noisy: np.ndarray) -> None:
    """Draw the first channel of a trace, an image, or the middle plane of a volume, (C, ...)."""
    if picture.ndim == 2:
        axes.plot(picture[0], linewidth=0.5)
        axes.set_ylim(noisy[0].min(), noisy[0].max())
        return
    plane = picture[0] if picture.ndim == 3 else picture[0, picture.shape[1] // 2]
    darkest, brightest = np.quantile(noisy[0], SHOWN)
    axes.imshow(plane, cmap="gray", vmin=darkest, vmax=brightest, interpolation="nearest")
    axes.set_axis_off()
