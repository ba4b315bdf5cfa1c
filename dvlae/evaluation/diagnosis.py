"""What the noise of a dataset looks like: its direction, its correlation length, how it grows with the signal.

With clean images the noise is known. Without, it is estimated from the noisy images alone: noise along one axis is left
as it is by a filter across that axis, which takes nearly all of the signal away, and medians do not see the edges that
stay.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dvlae.axes import AXES
from dvlae.config.receptive_field import reachable
from dvlae.data.canonical import read_canonical
from dvlae.data.manifest import Image
from dvlae.evaluation.metrics import autocorrelation
from dvlae.evaluation.target import Targets, find_region

MAX_IMAGES = 16
MEDIAN_SAMPLE_PIXELS = 2**17
# In pixels along each axis, from the middle of an image.
MAX_SIDES = {"x": 512, "y": 512, "z": 16}
MAX_LAG = 40  # pixels

# Neighbours along an axis that correlate less are taken for independent.
MIN_CORRELATION = 0.1
# The correlation length is where the correlation first falls below.
NEGLIGIBLE_CORRELATION = 0.05
# Pixels are grouped by their signal; all groups are equally large.
SIGNAL_GROUPS = 16
# It has unit energy, and is orthogonal to a mean of five.
FOURTH_DIFFERENCE = np.array([1, -4, 6, -4, 1]) / math.sqrt(70)
PERPENDICULAR_AXIS = {"x": "y", "y": "x", "z": "y"}


@dataclass(frozen=True)
class NoiseSample:
    """The noise in a part of one image, and the signal that it is around.

    Attributes
    ----------
    noise
        By the axis along which it is looked at, each (C, ...), in the units of the noisy image.
    signal
        (C, ...), in the same units.
    limits
        Smallest and largest value of the noisy image in each channel, (2, C).
    """

    noise: Mapping[str, np.ndarray]
    signal: np.ndarray
    limits: np.ndarray


def find_direction(correlation: Mapping[str, Sequence[float]]) -> str | None:
    """Return the axis along which neighbours are correlated most; ``none`` where they hardly are, None without axes."""
    if not correlation:
        return None
    axis = max(correlation, key=lambda axis: abs(_neighbours(correlation[axis])))
    return axis if abs(_neighbours(correlation[axis])) >= MIN_CORRELATION else "none"


def correlation_length(lags: Sequence[float]) -> int:
    """Return how many pixels the correlation reaches: those before it first is less than 0.05, from lag 1."""
    return next((lag - 1 for lag in range(1, len(lags)) if abs(lags[lag]) < NEGLIGIBLE_CORRELATION), len(lags) - 1)


def suggest_receptive_field(length: int) -> int:
    """Return the smallest receptive field that can be had and is twice the correlation length, in pixels; 0 for 0.

    A pixel beyond the noise's reach still tells what part of a nearer one is noise.
    """
    return next((field for field in reachable() if field >= 2 * length), reachable()[-1])


def find_contradiction(
    correlation: Mapping[str, Sequence[float]], direction: str | None, configured: str | None
) -> str | None:
    """Say in one line where the noise contradicts the configured direction, or goes in several; else None."""
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


def _neighbours(lags: Sequence[float]) -> float:
    return float(lags[1]) if len(lags) > 1 else 0.0


def _noise_sample(image: Image, targets: Targets, known: bool) -> NoiseSample:
    """Return the noise in the middle of the evaluated region: all of it, or an estimate for each axis."""
    noisy = read_canonical(image.noisy)
    axes = list(AXES)[: noisy.ndim - 1]
    if known:
        target = targets.target(image, noisy)
        noise = target.noise()
        part = _middle(noise.shape)
        return NoiseSample(dict.fromkeys(axes, noise[part]), (target.noisy - noise)[part], _limits(noisy))
    noisy = noisy[:, *find_region(noisy.shape[1:], targets.settings)]
    limits = _limits(noisy)
    noisy = noisy[_middle(noisy.shape)].astype(np.float64)
    noise = {
        axis: ndimage.correlate1d(noisy, FOURTH_DIFFERENCE, axis=AXES[PERPENDICULAR_AXIS[axis]])
        for axis in axes
        if len(axes) > 1
    }
    return NoiseSample(noise, ndimage.uniform_filter(noisy, 5, axes=(-2, -1)[-len(axes) :]), limits)


def _limits(noisy: np.ndarray) -> np.ndarray:
    spatial = tuple(range(1, noisy.ndim))
    return np.array([noisy.min(spatial), noisy.max(spatial)])


def _middle(shape: Sequence[int]) -> tuple[slice, ...]:
    parts = [slice(None)]
    for axis, side in zip("zyx"[-(len(shape) - 1) :], shape[1:], strict=True):
        start = max(0, (side - MAX_SIDES[axis]) // 2)
        parts.append(slice(start, start + MAX_SIDES[axis]))
    return tuple(parts)


def _autocorrelation(sample: NoiseSample, known: bool) -> dict[str, np.ndarray]:
    if known:
        return autocorrelation(next(iter(sample.noise.values())), MAX_LAG)
    return {axis: robust_autocorrelation(noise, axis) for axis, noise in sample.noise.items()}


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


def _average(curves: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Take the median over images, as far as the shortest reaches: one odd image turns no direction."""
    shortest = {axis: min(len(curve[axis]) for curve in curves) for axis in curves[0]}
    return {axis: np.median([curve[axis][:n] for curve in curves], axis=0) for axis, n in shortest.items()}


def _variance_by_signal(
    samples: Sequence[NoiseSample], direction: str | None, known: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return, for each channel, the mean signal and the noise's variance in groups of pixels of equal signal."""
    if direction is None:
        return []
    axis = "x" if direction == "none" else direction
    curves = []
    for channel in range(len(samples[0].signal)):
        signal = np.concatenate([sample.signal[channel].ravel() for sample in samples])
        noise = np.concatenate([sample.noise[axis][channel].ravel() for sample in samples])
        groups = np.array_split(np.argsort(signal, kind="stable"), SIGNAL_GROUPS)
        # The median of the absolute values of normal noise is 0.6745 of its standard deviation.
        variances = [np.var(noise[g]) if known else (np.median(np.abs(noise[g])) / 0.6745) ** 2 for g in groups]
        curves.append((np.array([signal[g].mean() for g in groups]), np.array(variances)))
    return curves


def _all_limits(samples: Sequence[NoiseSample]) -> np.ndarray:
    """Return the smallest and the largest value in each channel of all noisy images, (C, 2)."""
    lowest, highest = np.moveaxis([sample.limits for sample in samples], 1, 0)
    return np.stack([lowest.min(axis=0), highest.max(axis=0)], axis=1)


def variance_slope(signal: np.ndarray, variance: np.ndarray, limits: Sequence[float]) -> float | None:
    """Return the slope of the straight line through variance against signal, where no noise is cut off.

    Parameters
    ----------
    signal, variance
        Of groups of pixels.
    limits
        Smallest and largest value of the noisy images: groups that reach them within two standard deviations are left
        out, as saturation makes their variance smaller.

    Returns
    -------
    float or None
        In grey values; None where fewer than three groups are left, or all are of one grey.
    """
    down, up = 2 * np.sqrt(variance), 2 * np.sqrt(np.maximum.accumulate(variance))  # saturated, the last ones shrink
    whole = (signal - down > limits[0]) & (signal + up < limits[1])
    if np.count_nonzero(whole) < 3 or np.ptp(signal[whole]) == 0:
        return None
    return round(float(np.polyfit(signal[whole], variance[whole], 1)[0]), 6)
