"""What the noise of a dataset looks like: its direction, its correlation length, how it grows with the signal.

With clean images the noise is known. Without them it is estimated from the noisy images. A filter perpendicular to an
axis removes nearly all of the signal and keeps noise that is correlated along that axis. Medians ignore the edges that
remain.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from dvlae.axes import AXES, middle
from dvlae.config.receptive_field import reachable
from dvlae.evaluation.metrics import autocorrelation
from dvlae.evaluation.noise_statistics import (
    VarianceCurve,
    average_curves,
    robust_variance,
    variance_by_signal,
    variance_slope,
)
from dvlae.evaluation.target import Target

MAX_IMAGES = 16
MEDIAN_SAMPLE_PIXELS = 2**17
# In pixels along each axis, around the middle of an image.
MAX_SIDES = {"x": 512, "y": 512, "z": 16}
MAX_LAG = 40  # pixels

# Neighbours along an axis that correlate less are considered independent.
MIN_CORRELATION = 0.1
# The correlation length is the lag before the correlation first falls below this.
NEGLIGIBLE_CORRELATION = 0.05
# It has unit energy and is orthogonal to the mean of five.
FOURTH_DIFFERENCE = np.array([1, -4, 6, -4, 1]) / math.sqrt(70)
PERPENDICULAR_AXIS = {"x": "y", "y": "x", "z": "y"}

Lags = Sequence[float] | np.ndarray  # correlations from lag 0


@dataclass(frozen=True)
class NoiseSample:
    """The noise in the middle of one image, and the signal under it.

    Attributes
    ----------
    noise
        The noise, (C, ...), in the units of the noisy image, by the axis along which its correlation is measured.
    signal
        (C, ...), in the same units.
    limits
        Smallest and largest value of the noisy image in each channel, (2, C).
    known
        Whether it is the noise itself, which is the same array for each axis, or an estimate.
    """

    noise: Mapping[str, np.ndarray]
    signal: np.ndarray
    limits: np.ndarray
    known: bool


def known_noise(noisy: np.ndarray, target: Target) -> NoiseSample:
    """Return the noise of an image that has a clean one.

    Parameters
    ----------
    noisy
        The complete image, (C, ...).
    target
        How the clean image lies on it.

    Returns
    -------
    NoiseSample
        The noise, and the signal below it.
    """
    noise = target.noise()
    axes = list(AXES)[: noisy.ndim - 1]
    signal = _middle(target.noisy - noise)
    return NoiseSample(dict.fromkeys(axes, _middle(noise)), signal, _limits(noisy), known=True)


def estimate_noise(noisy: np.ndarray) -> NoiseSample:
    """Estimate the noise of an image without a clean one.

    Parameters
    ----------
    noisy
        The image, (C, ...).

    Returns
    -------
    NoiseSample
        The estimated noise, and the estimated signal below it. For a trace there is no estimate of the noise, because
        it cannot be separated from the signal.
    """
    limits = _limits(noisy)
    noisy = _middle(noisy).astype(np.float64)
    axes = list(AXES)[: noisy.ndim - 1]
    noise = {
        axis: ndimage.correlate1d(noisy, FOURTH_DIFFERENCE, axis=AXES[PERPENDICULAR_AXIS[axis]])
        for axis in axes
        if len(axes) > 1
    }
    signal = ndimage.uniform_filter(noisy, 5, axes=(-2, -1)[-len(axes) :])
    return NoiseSample(noise, signal, limits, known=False)


def measure_noise(
    samples: Iterable[NoiseSample], *, dataset: str, configured_direction: str | None
) -> tuple[dict[str, Any], list[VarianceCurve]]:
    """Describe the noise of a dataset.

    Parameters
    ----------
    samples
        Samples of some of its images, all from :func:`known_noise` or all from :func:`estimate_noise`.
    dataset
        Name of the dataset.
    configured_direction
        ``x``, ``y``, ``z``, ``none``, or None if no direction is configured.

    Returns
    -------
    found
        The description that :func:`dvlae.reporting.diagnosis.diagnose` writes.
    curves
        For each channel, the signal and the variance of the noise in groups of pixels of equal signal. Empty if noise
        and signal cannot be separated.
    """
    samples = list(samples)
    known = all(sample.known for sample in samples)
    # The median over images is not sensitive to an outlier.
    correlation = average_curves([_correlate(sample) for sample in samples], np.median)
    direction = find_direction(correlation)
    length = None if direction is None else correlation_length(correlation.get(direction, [1.0]))
    curves, slopes = [], []
    if direction is not None:
        axis = "x" if direction == "none" else direction
        lowest, highest = np.moveaxis(np.array([sample.limits for sample in samples]), 1, 0)
        for channel, limits in enumerate(zip(lowest.min(axis=0), highest.max(axis=0), strict=True)):
            noise = np.concatenate([sample.noise[axis][channel].ravel() for sample in samples])
            signal = np.concatenate([sample.signal[channel].ravel() for sample in samples])
            curves.append(variance_by_signal(noise, signal, np.var if known else robust_variance))
            slopes.append(variance_slope(*curves[-1], limits))
    found = {
        "dataset": dataset,
        "basis": "residuals" if known else "estimate",
        "images": len(samples),
        "direction": direction,
        "configured_direction": configured_direction,
        "correlation_length": length,
        "receptive_field": None if length is None else suggest_receptive_field(length),
        "autocorrelation": {axis: [round(float(value), 4) for value in lags] for axis, lags in correlation.items()},
        "variance_slope": [None if math.isnan(slope) else round(slope, 6) for slope in slopes],
        "warning": find_contradiction(correlation, direction, configured_direction),
    }
    return found, curves


def _correlate(sample: NoiseSample) -> dict[str, np.ndarray]:
    """Return the autocorrelation of the noise of one image along each axis."""
    if sample.known:
        return autocorrelation(sample.noise["x"], MAX_LAG)
    return {axis: robust_autocorrelation(noise, axis) for axis, noise in sample.noise.items()}


def find_direction(correlation: Mapping[str, Lags]) -> str | None:
    """Return the axis along which neighbours are correlated most.

    Parameters
    ----------
    correlation
        The correlation along each axis.

    Returns
    -------
    str or None
        An axis, ``none`` if the correlation is negligible along all axes, or None if there are no axes.
    """
    if not correlation:
        return None
    axis = max(correlation, key=lambda axis: abs(_neighbours(correlation[axis])))
    return axis if abs(_neighbours(correlation[axis])) >= MIN_CORRELATION else "none"


def correlation_length(lags: Lags) -> int:
    """Return the largest lag before the correlation first falls below 0.05.

    Parameters
    ----------
    lags
        The correlation at each distance, from lag 0.

    Returns
    -------
    int
        In pixels; 0 for white noise.
    """
    return next((lag - 1 for lag in range(1, len(lags)) if abs(lags[lag]) < NEGLIGIBLE_CORRELATION), len(lags) - 1)


def suggest_receptive_field(length: int) -> int:
    """Return the smallest possible receptive field that is at least twice the correlation length.

    A pixel beyond the correlation length still helps to determine the noise of a nearer one.

    Parameters
    ----------
    length
        The correlation length, in pixels.

    Returns
    -------
    int
        In pixels; 0 for white noise.
    """
    return next((field for field in reachable() if field >= 2 * length), reachable()[-1])


def find_contradiction(correlation: Mapping[str, Lags], direction: str | None, configured: str | None) -> str | None:
    """Compare the direction of the noise with the configured one.

    Parameters
    ----------
    correlation
        The correlation along each axis.
    direction
        The axis along which neighbours are correlated most, as returned by :func:`find_direction`.
    configured
        The configured direction; None if there is none.

    Returns
    -------
    str or None
        A warning of one line if the directions differ or the noise is correlated along several axes, else None.
    """
    if direction is None or configured is None:
        return None
    neighbours = {axis: _neighbours(lags) for axis, lags in correlation.items()}
    numbers = ", ".join(f"{value:z.2f} along {axis}" for axis, value in neighbours.items())
    if direction != configured:
        return (
            f"noise_direction: found {configured}, but the noise suggests {direction} (neighbours correlate {numbers})"
        )
    others = [axis for axis, value in neighbours.items() if axis != direction and abs(value) >= MIN_CORRELATION]
    if others:
        return f"the noise is correlated along more than {direction}, which no receptive field covers ({numbers})"
    return None


def _neighbours(lags: Lags) -> float:
    return float(lags[1]) if len(lags) > 1 else 0.0


def _limits(noisy: np.ndarray) -> np.ndarray:
    spatial = tuple(range(1, noisy.ndim))
    return np.array([noisy.min(spatial), noisy.max(spatial)])


def _middle(image: np.ndarray) -> np.ndarray:
    sides = image.shape[1:]
    return image[:, *middle(sides, [MAX_SIDES[axis] for axis in "zyx"[-len(sides) :]])]


def robust_autocorrelation(noise: np.ndarray, axis: str) -> np.ndarray:
    """Return the autocorrelation of noise along one axis, estimated from medians, which ignore a few edges.

    The sum and the difference of two pixels of correlation r have variances in the ratio (1 + r) / (1 - r). The squared
    medians of their absolute values have the same ratio, even if the variance of the noise differs from place to place.

    Parameters
    ----------
    noise
        (C, ...), around 0.
    axis
        ``"x"``, ``"y"`` or ``"z"``.

    Returns
    -------
    numpy.ndarray
        The correlation from lag 0, where it is 1. It is 0 at lags where most pixels are 0.

    References
    ----------
    Gnanadesikan, Kettenring: Robust estimates, residuals, and outlier detection, Biometrics 28 (1972).
    """
    length = noise.shape[AXES[axis]]
    lines = np.moveaxis(noise, AXES[axis], -1).reshape(-1, length)
    lines = lines[:: math.ceil(lines.size / MEDIAN_SAMPLE_PIXELS)]
    lags = [1.0]
    for lag in range(1, min(MAX_LAG, length // 2) + 1):
        before, after = lines[:, : length - lag], lines[:, lag:]
        spread_of_sum, spread_of_difference = (
            np.median(np.abs(pair)) ** 2 for pair in (before + after, before - after)
        )
        total = spread_of_sum + spread_of_difference
        lags.append((spread_of_sum - spread_of_difference) / total if total > 0 else 0.0)
    return np.array(lags)
