"""The description of the noise of a dataset, and its figure."""

import logging
import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dvlae.axes import format_sides
from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_info, read_mask, read_noisy
from dvlae.data.defects.frames import ExaminedFrame
from dvlae.data.manifest import Image, spread_evenly
from dvlae.evaluation.diagnosis import MAX_IMAGES, NEGLIGIBLE_CORRELATION, measure_noise
from dvlae.evaluation.each_image import choose_image_workers, map_images
from dvlae.evaluation.findings.advice import advise
from dvlae.evaluation.findings.drift import compare_drifts, measure_drift
from dvlae.evaluation.findings.finding import Finding
from dvlae.evaluation.findings.frames import FrameCheck, check_frame, compare_frames
from dvlae.evaluation.findings.sequence import compare_sequence, identify_frame
from dvlae.evaluation.noise_samples import NoiseSample, choose_parts, estimate_noise, known_noise
from dvlae.evaluation.noise_statistics import VarianceCurve
from dvlae.evaluation.register import Targets, evaluated_images
from dvlae.evaluation.target import find_region
from dvlae.reporting.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, STYLE, save_figure
from dvlae.system.errors import UserError
from dvlae.system.files import write_json
from dvlae.system.wording import count

logger = logging.getLogger(__name__)

# Frames of which mean and hash are compared: pairs of neighbours, evenly spread if there are more.
MAX_FRAMES = 256
MIN_SHOWN_LAGS = 15  # pixels
COLOURS = (BLACK, BLUE, GREEN, PURPLE)  # of channels
WARNING_COLOUR = "#B03A00"
# Of the title, and of the notes below the plots.
CHARACTERS_PER_INCH = (15, 17)

BASIS_LABELS = {"residuals": "noisy − clean", "estimate": "an estimate: no clean images"}


def diagnose(
    images: Path,
    output: Path,
    *,
    dataset: str,
    noise_direction: str | None,
    settings: EvaluationSettings,
    targets: Path | None = None,
    cores: int | None = None,
) -> None:
    """Describe the noise of a dataset in a JSON file, and in a figure as PNG and SVG.

    Parameters
    ----------
    images
        Folder of canonical images, with ``manifest.csv``.
    output
        The JSON file to write: ``basis`` (``residuals``, noisy minus clean, or ``estimate``), number of ``images``,
        ``direction``, ``correlation_length`` and the suggested ``receptive_field`` in pixels, ``reason`` (why the
        direction, or how far the noise is correlated, cannot be told, or null; what cannot be told is null, too),
        ``autocorrelation`` along each axis from lag 0, ``channels`` (the same for each channel), ``variance_slope`` of
        each channel (variance per grey value of signal), ``noise_level`` (standard deviation relative to the span of
        grey values), ``configured_direction``, ``warning`` (one line, or null), ``advice`` (which method a comparison
        on similar noise found best, in one line, or null), and ``findings``: what is odd in the images, each with
        ``kind``, ``number`` and ``line``.
    dataset
        Name of the dataset, for the figure.
    noise_direction
        The configured direction. There is a warning if the noise contradicts it. If None, there is no warning.
    settings
        How the dataset is evaluated: which images, which region, how the clean images are registered and fitted.
    targets
        The output of ``dvlae register`` for the same images and settings. If None, each clean image is registered here.
    cores
        Cores that the step may use; None: all that this process may use.

    Raises
    ------
    UserError
        If the output has the name of one of the pictures, or the images or targets cannot be used.
    """
    if output.suffix.lower() in (".png", ".svg"):
        raise UserError(
            f"output: found {str(output)!r}, allowed: a name that ends in .json; pictures get the same name"
        )
    frames = evaluated_images(images, settings)
    chosen = [frames[i] for i in spread_evenly(len(frames), MAX_IMAGES)]
    known = all(image.clean is not None for image in chosen)
    examine = partial(
        _examine,
        first=_read(chosen[0]),
        targets=Targets(settings, targets),
        known=known,
        most_parts=MAX_IMAGES // len(chosen),
    )
    workers = choose_image_workers("diagnose", chosen, cores)
    examined = map_images(examine, chosen, workers, description="diagnose")
    samples = [sample for of_image, _ in examined for sample in of_image]
    checks = [check for _, check in examined]
    sequence = map_images(
        lambda image: identify_frame(image.name, _read(image)),
        [frames[i] for i in _neighbours(len(frames), MAX_FRAMES)],
        workers,
        description="diagnose: frames",
    )
    found, curves = measure_noise(samples, dataset=dataset, configured_direction=noise_direction, images=len(chosen))
    findings = _units(chosen[0]) + compare_frames(checks) + compare_sequence(sequence, len(frames))
    if known and not settings.register and not settings.noise_free:
        drifts = map_images(
            lambda image: measure_drift(image, settings), chosen, workers, description="diagnose: drift"
        )
        findings += compare_drifts(drifts)
    found |= {"advice": advise(found), "findings": [vars(finding) for finding in findings]}
    with matplotlib.rc_context(STYLE):
        save_figure(plot_diagnosis(found, curves), Path(output).with_suffix(""))
    write_json(output, found)
    logger.info("diagnose: %s", describe(found))
    if found["advice"]:
        logger.info("diagnose: %s", found["advice"])
    for line in list_notes(found):
        logger.warning("diagnose: %s", line)


def _units(image: Image) -> list[Finding]:
    """Say in which units grey values are given, if not in those of the files."""
    units = read_info(image.noisy).units
    if units == {"offset": 0, "scale": 1}:
        return []
    offset, scale = units["offset"], units["scale"]
    line = f"grey values are so large or so small that they are given less {offset:.17g}, as multiples of {scale:g}"
    return [Finding("units", scale, line)]


def _neighbours(count: int, most: int) -> list[int]:
    """Choose indices, all or pairs of neighbours that are evenly spread."""
    if count <= most:
        return list(range(count))
    firsts = spread_evenly(count - 1, most // 2)
    return sorted({int(index) for first in firsts for index in (first, first + 1)})


def _read(image: Image) -> ExaminedFrame:
    return ExaminedFrame.examine(read_noisy(image), read_mask(image))


def _examine(
    image: Image, first: ExaminedFrame, targets: Targets, known: bool, most_parts: int
) -> tuple[list[list[NoiseSample]], FrameCheck]:
    """Return the noise in parts of the evaluated region of an image, known or estimated, and what is odd in it."""
    frame = _read(image)
    noisy, measured = frame.noisy, frame.measured
    check = check_frame(frame, first)

    def counts(part: tuple[slice, ...]) -> np.ndarray:
        numbers = np.isfinite(noisy[:, *part])
        return numbers if measured is None else numbers & measured[:, *part]

    if known:
        everything = tuple(slice(0, side) for side in noisy.shape[1:])
        return [known_noise(noisy, counts(everything), targets.target(image, noisy))], check
    parts = choose_parts(find_region(noisy.shape[1:], targets.settings), most_parts)
    if len(parts) > 1:
        sides = format_sides([side.stop - side.start for side in parts[0]])
        logger.info(f"diagnose: {image.name} is very large: looks at {len(parts)} parts of {sides} pixels")
    return [estimate_noise(noisy[:, *part], counts(part)) for part in parts], check


def plot_diagnosis(found: Mapping[str, Any], curves: Sequence[VarianceCurve]) -> Figure:
    """Plot the correlation along each axis, and the variance against the signal, of each channel.

    Parameters
    ----------
    found, curves
        The results of :func:`dvlae.evaluation.diagnosis.measure_noise`, with ``findings``.

    Returns
    -------
    Figure
        One plot per axis, and one of the variance if a direction was found.
    """
    correlation = found["autocorrelation"]
    width = max(7.2, 2.4 * (len(correlation) + 1))
    longest_title, longest_note = (int(number * width) for number in CHARACTERS_PER_INCH)
    notes = [part for note in list_notes(found) for part in textwrap.wrap(note, longest_note)]
    figure = Figure(figsize=(width, 3.2 + 0.15 * len(notes)))
    title = textwrap.wrap(f"{found['dataset']}: {describe(found)}", longest_title)
    figure.suptitle("\n".join(title), fontsize=9, parse_math=False)
    if notes:
        figure.supxlabel("\n".join(notes), fontsize=8, color=WARNING_COLOUR, parse_math=False)
    if not correlation:
        return figure
    plots = figure.subplots(1, len(correlation) + bool(curves), squeeze=False)[0]
    points: dict[str, Any] = {"marker": "o", "markersize": 3.5, "linewidth": 1.2}
    length = found["correlation_length"]
    for axes, axis in zip(plots, correlation, strict=False):
        axes.axhspan(-NEGLIGIBLE_CORRELATION, NEGLIGIBLE_CORRELATION, color="0.9", linewidth=0)
        lowest = 0.0
        for number, channel in enumerate(found["channels"]):
            lags = np.array(channel["autocorrelation"].get(axis, []), float)[
                : max(MIN_SHOWN_LAGS, 2 * (length or 0)) + 1
            ]
            axes.plot(lags, color=COLOURS[number % len(COLOURS)], label=f"channel {number}", **points)
            lowest = min(lowest, np.nanmin(lags, initial=0.0))
        if axis == found["direction"] and length is not None:
            axes.axvline(length, color=ORANGE, linestyle="--")
            axes.text(length + 0.4, 0.9, f"{length} px", fontsize=8)
        axes.set(title=f"correlation along {axis}", xlabel="distance (px)", ylim=(min(-0.1, lowest) - 0.05, 1.05))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    if len(found["channels"]) > 1:
        plots[0].legend(fontsize=8)
    for number, (signal, variance) in enumerate(curves):
        plots[-1].plot(signal, variance, color=COLOURS[number % len(COLOURS)], **points)
    if curves:
        plots[-1].set(title="variance of the noise", xlabel="signal (grey values)", ylim=(0, None))
    return figure


def describe(found: Mapping[str, Any]) -> str:
    """Describe the noise of a dataset.

    Parameters
    ----------
    found
        What :func:`diagnose` writes into its JSON file.

    Returns
    -------
    str
        One line.
    """
    basis = f"from {count(found['images'], 'image')} ({BASIS_LABELS[found['basis']]})"
    return f"{_describe_noise(found)}, {basis}"


def _describe_noise(verdict: Mapping[str, Any]) -> str:
    if verdict["direction"] is None:
        return f"the direction of the noise cannot be told: {verdict['reason']}"
    if verdict["direction"] == "none":
        return "noise without direction, suggested receptive field 0 px"
    if verdict["correlation_length"] is None:
        return f"noise along {verdict['direction']}; how far it is correlated cannot be told: {verdict['reason']}"
    return (
        f"noise along {verdict['direction']}, correlation length {verdict['correlation_length']} px, "
        f"suggested receptive field {verdict['receptive_field']} px"
    )


def list_notes(found: Mapping[str, Any]) -> list[str]:
    """Return the warning, what is odd in the images, and what the channels look like if they differ.

    Parameters
    ----------
    found
        What :func:`diagnose` writes into its JSON file.

    Returns
    -------
    list of str
        One line each.
    """
    notes = [f"warning: {found['warning']}"] if found["warning"] else []
    notes += [f"{finding['kind']}: {finding['line']}" for finding in found["findings"]]
    channels = [_describe_noise(channel) for channel in found["channels"]]
    if len(set(channels)) > 1:
        notes += [f"channel {number}: {text}" for number, text in enumerate(channels)]
    return notes
