"""The description of the noise of a dataset, and its figure."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_noisy
from dvlae.data.manifest import Image, spread_evenly
from dvlae.evaluation.diagnosis import (
    MAX_IMAGES,
    NEGLIGIBLE_CORRELATION,
    NoiseSample,
    estimate_noise,
    known_noise,
    measure_noise,
)
from dvlae.evaluation.each_image import choose_image_workers, map_images
from dvlae.evaluation.noise_statistics import VarianceCurve
from dvlae.evaluation.register import Targets, evaluated_images
from dvlae.evaluation.target import find_region
from dvlae.reporting.style import BLACK, BLUE, ORANGE, STYLE, save_figure
from dvlae.system.files import write_json

logger = logging.getLogger(__name__)

MIN_SHOWN_LAGS = 15  # pixels

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
        ``autocorrelation`` along each axis from lag 0, ``variance_slope`` of each channel (variance per grey value of
        signal), ``direction``, ``correlation_length`` and the suggested ``receptive_field`` in pixels,
        ``configured_direction`` and ``warning`` (one line, or null). For traces without clean ones, in which noise and
        signal share their only axis, the results are null or empty.
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
    """
    chosen = evaluated_images(images, settings)
    chosen = [chosen[i] for i in spread_evenly(len(chosen), MAX_IMAGES)]
    known = all(image.clean is not None for image in chosen)
    aligned = Targets(settings, targets)
    workers = choose_image_workers("diagnose", chosen, cores)
    samples = map_images(lambda image: _noise_sample(image, aligned, known), chosen, workers, description="diagnose")
    found, curves = measure_noise(samples, dataset=dataset, configured_direction=noise_direction)
    with matplotlib.rc_context(STYLE):
        save_figure(plot_diagnosis(found, curves), Path(output).with_suffix(""))
    write_json(output, found)
    logger.info("diagnose: %s", _describe(found))
    if found["warning"]:
        logger.warning("diagnose: warning: %s", found["warning"])


def _noise_sample(image: Image, targets: Targets, known: bool) -> NoiseSample:
    """Return the noise in the evaluated region of an image: the noise itself if it is known, else an estimate."""
    noisy = read_noisy(image)
    if known:
        return known_noise(noisy, targets.target(image, noisy))
    return estimate_noise(noisy[:, *find_region(noisy.shape[1:], targets.settings)])


def plot_diagnosis(found: Mapping[str, Any], curves: Sequence[VarianceCurve]) -> Figure:
    """Plot the correlation along each axis, and the variance against the signal.

    Parameters
    ----------
    found, curves
        The results of :func:`dvlae.evaluation.diagnosis.measure_noise`.

    Returns
    -------
    Figure
        One plot per axis, and one of the variance.
    """
    correlation = found["autocorrelation"]
    figure = Figure(figsize=(max(7.2, 2.4 * (len(correlation) + 1)), 3.2))
    text = _describe(found).replace(", from", ",\nfrom")
    figure.suptitle(f"{found['dataset']}: {text}", fontsize=9, parse_math=False)
    if found["warning"]:
        figure.supxlabel(f"Warning: {found['warning']}", fontsize=8, color="#B03A00", parse_math=False)
    if not correlation:
        return figure
    plots = figure.subplots(1, len(correlation) + 1)
    points: dict[str, Any] = {"marker": "o", "markersize": 3.5, "linewidth": 1.2}
    for axes, (axis, lags) in zip(plots, correlation.items(), strict=False):
        axes.axhspan(-NEGLIGIBLE_CORRELATION, NEGLIGIBLE_CORRELATION, color="0.9", linewidth=0)
        shown = lags[: max(MIN_SHOWN_LAGS, 2 * found["correlation_length"]) + 1]
        axes.plot(shown, color=BLACK, **points)
        if axis == found["direction"]:
            axes.axvline(found["correlation_length"], color=ORANGE, linestyle="--")
            axes.text(found["correlation_length"] + 0.4, 0.9, f"{found['correlation_length']} px", fontsize=8)
        axes.set(title=f"correlation along {axis}", xlabel="distance (px)", ylim=(min(-0.1, *shown) - 0.05, 1.05))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for signal, variance in curves:
        plots[-1].plot(signal, variance, color=BLUE, **points)
    plots[-1].set(title="variance of the noise", xlabel="signal (grey values)", ylim=(0, None))
    return figure


def _describe(found: Mapping[str, Any]) -> str:
    """Return one line that describes the noise."""
    if found["direction"] is None:
        return "of traces without clean ones, noise and signal cannot be told apart"
    basis = f"from {found['images']} image{'s' if found['images'] > 1 else ''} ({BASIS_LABELS[found['basis']]})"
    if found["direction"] == "none":
        return f"noise without direction, suggested receptive field 0 px, {basis}"
    return (
        f"noise along {found['direction']}, correlation length {found['correlation_length']} px, "
        f"suggested receptive field {found['receptive_field']} px, {basis}"
    )
