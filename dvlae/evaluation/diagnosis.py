"""What the noise of a dataset looks like: its direction, its correlation length, how it grows with the signal.

With clean images the noise is known. Without, it is estimated from the noisy images alone: noise along one axis is left
as it is by a filter across that axis, which takes nearly all of the signal away, and medians do not see the edges that
stay.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import ndimage

from dvlae.axes import AXES
from dvlae.config.receptive_field import reachable
from dvlae.evaluation.metrics import autocorrelation
from dvlae.evaluation.noise_statistics import Curves, KeptPixels, NoiseStatistics, robust_variance, variance_slope
from dvlae.evaluation.target import Target

MAX_IMAGES = 16
MEDIAN_SAMPLE_PIXELS = 2**17
# In pixels along each axis, from the middle of an image.
MAX_SIDES = {"x": 512, "y": 512, "z": 16}
MAX_LAG = 40  # pixels

# Neighbours along an axis that correlate less are taken for independent.
MIN_CORRELATION = 0.1
# The correlation length is where the correlation first falls below.
NEGLIGIBLE_CORRELATION = 0.05
# It has unit energy, and is orthogonal to a mean of five.
FOURTH_DIFFERENCE = np.array([1, -4, 6, -4, 1]) / math.sqrt(70)
PERPENDICULAR_AXIS = {"x": "y", "y": "x", "z": "y"}

Lags = Sequence[float] | np.ndarray  # correlations from lag 0
VarianceCurve = tuple[np.ndarray, np.ndarray]  # signal and variance of groups of pixels


@dataclass(frozen=True)
class NoiseSample:
    """The noise in the middle of one image, and the signal under it.

    Attributes
    ----------
    noise
        By the axis along which it is looked at, each (C, ...), in the units of the noisy image.
    signal
        (C, ...), in the same units.
    limits
        Smallest and largest value of the noisy image in each channel, (2, C).
    known
        Whether it is the noise itself, the same array for each axis, and not an estimate.
    """

    noise: Mapping[str, np.ndarray]
    signal: np.ndarray
    limits: np.ndarray
    known: bool


def known_noise(noisy: np.ndarray, target: Target) -> NoiseSample:
    """Take the noise of an image that has a clean one.

    Parameters
    ----------
    noisy
        The whole image, (C, ...).
    target
        How the clean image lies on it.

    Returns
    -------
    NoiseSample
        The noise, and the signal under it.
    """
    noise = target.noise()
    middle = _middle(noise.shape)
    axes = list(AXES)[: noisy.ndim - 1]
    signal = (target.noisy - noise)[middle]
    return NoiseSample(dict.fromkeys(axes, noise[middle]), signal, _limits(noisy), known=True)


def estimate_noise(noisy: np.ndarray) -> NoiseSample:
    """Estimate the noise of an image (C, ...) without a clean one; of a trace it cannot be told from the signal.

    Parameters
    ----------
    noisy
        The whole image, (C, ...).

    Returns
    -------
    NoiseSample
        The estimated noise, and the estimated signal under it.
    """
    limits = _limits(noisy)
    noisy = noisy[_middle(noisy.shape)].astype(np.float64)
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
        Of some of its images: all from :func:`known_noise`, or all from :func:`estimate_noise`.
    dataset
        Its name.
    configured_direction
        ``x``, ``y``, ``z``, ``none``, or None where none is configured.

    Returns
    -------
    found
        What :func:`dvlae.reporting.diagnosis.diagnose` writes.
    curves
        Of each channel, the signal and the variance of the noise in groups of pixels of equal signal; empty where noise
        and signal cannot be told apart.
    """
    statistics: dict[str, NoiseStatistics] = {}
    known, limits = True, []
    for sample in samples:
        known = sample.known
        statistics = statistics or _make_statistics(list(sample.noise), known)
        for axis in ["x"] if known else sample.noise:
            statistics[axis].update(sample.noise[axis], sample.signal)
        limits.append(sample.limits)
    correlation = {axis: found.autocorrelation()[axis] for axis, found in statistics.items()}
    direction = find_direction(correlation)
    length = None if direction is None else correlation_length(correlation.get(direction, [1.0]))
    curves, slopes = [], []
    if direction is not None:
        along = statistics["x" if direction == "none" else direction]
        for channel, extremes in enumerate(_extremes(limits)):
            curves.append(along.variance_by_signal(channel))
            slopes.append(variance_slope(*curves[-1], extremes))
    found = {
        "dataset": dataset,
        "basis": "residuals" if known else "estimate",
        "images": len(limits),
        "direction": direction,
        "configured_direction": configured_direction,
        "correlation_length": length,
        "receptive_field": None if length is None else suggest_receptive_field(length),
        "autocorrelation": {axis: [round(float(value), 4) for value in lags] for axis, lags in correlation.items()},
        "variance_slope": [None if math.isnan(slope) else round(slope, 6) for slope in slopes],
        "warning": find_contradiction(correlation, direction, configured_direction),
    }
    return found, curves


def _make_statistics(axes: Sequence[str], known: bool) -> dict[str, NoiseStatistics]:
    """Return what gathers the noise along each axis: the same for all axes where the noise is known.

    One odd image turns no direction, as the median is taken over images.
    """
    if known:
        correlate = partial(autocorrelation, max_lag=MAX_LAG)
        return dict.fromkeys(axes, NoiseStatistics(KeptPixels(), correlate=correlate, average=np.median))
    return {
        axis: NoiseStatistics(
            KeptPixels(robust_variance), correlate=partial(_robust_autocorrelation_by_axis, axis), average=np.median
        )
        for axis in axes
    }


def _robust_autocorrelation_by_axis(axis: str, noise: np.ndarray) -> Curves:
    return {axis: robust_autocorrelation(noise, axis)}


def _extremes(limits: Sequence[np.ndarray]) -> np.ndarray:
    """Return the smallest and the largest value in each channel of all noisy images, (C, 2)."""
    lowest, highest = np.moveaxis(np.array(limits), 1, 0)
    return np.stack([lowest.min(axis=0), highest.max(axis=0)], axis=1)


def find_direction(correlation: Mapping[str, Lags]) -> str | None:
    """Return the axis along which neighbours are correlated most; ``none`` where they hardly are, None without axes.

    Parameters
    ----------
    correlation
        The correlation along each axis.

    Returns
    -------
    str or None
        An axis or ``none``.
    """
    if not correlation:
        return None
    axis = max(correlation, key=lambda axis: abs(_neighbours(correlation[axis])))
    return axis if abs(_neighbours(correlation[axis])) >= MIN_CORRELATION else "none"


def correlation_length(lags: Lags) -> int:
    """Return how many pixels the correlation reaches: those before it first is less than 0.05, from lag 1.

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
    """Return the smallest receptive field that can be had and is twice the correlation length, in pixels; 0 for 0.

    A pixel beyond the noise's reach still tells what part of a nearer one is noise.

    Parameters
    ----------
    length
        The correlation length, in pixels.

    Returns
    -------
    int
        In pixels.
    """
    return next((field for field in reachable() if field >= 2 * length), reachable()[-1])


def find_contradiction(correlation: Mapping[str, Lags], direction: str | None, configured: str | None) -> str | None:
    """Say in one line where the noise contradicts the configured direction, or goes in several; else None.

    Parameters
    ----------
    correlation
        The correlation along each axis.
    direction
        The axis along which neighbours are correlated most, as :func:`find_direction` returns it.
    configured
        The direction in the dataset's file; None where there is no such file.

    Returns
    -------
    str or None
        The sentence, for a warning.
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


def _middle(shape: Sequence[int]) -> tuple[slice, ...]:
    """Return what cuts the middle out of (C, ...)."""
    parts = [slice(None)]
    for axis, side in zip("zyx"[-(len(shape) - 1) :], shape[1:], strict=True):
        start = max(0, (side - MAX_SIDES[axis]) // 2)
        parts.append(slice(start, start + MAX_SIDES[axis]))
    return tuple(parts)


def robust_autocorrelation(noise: np.ndarray, axis: str) -> np.ndarray:
    """Return the autocorrelation of noise along one axis, from medians, which do not see a few edges.

    Sum and difference of two pixels of correlation r have variances in the ratio (1 + r) / (1 - r), and so have the
    squares of the medians of their absolute values, even where the variance of the noise changes from place to place.

    Parameters
    ----------
    noise
        (C, ...), around 0.
    axis
        ``"x"``, ``"y"`` or ``"z"``.

    Returns
    -------
    numpy.ndarray
        From lag 0, 1 there; 0 at lags where most pixels are 0.

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
