"""The noise of one image, as far as it can be told from the signal, and how it is correlated.

With a clean image the noise is known. Without one it is estimated from the noisy image. A filter perpendicular to an
axis removes nearly all of the signal and keeps noise that is correlated along that axis. Medians ignore the edges that
remain.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dvlae.axes import AXES, middle
from dvlae.data.patches import quantisation_step
from dvlae.evaluation.noise_statistics import (
    masked_autocorrelation,
    middle_mean,
    robust_autocorrelation,
    robust_variance,
    unbiased,
)
from dvlae.evaluation.target import Target

# In pixels along each axis, around the middle of an image.
MAX_SIDES = {"x": 512, "y": 512, "z": 16}
# The values of an image that are kept for the variance by signal.
MAX_KEPT_VALUES = 2**19
# Of a larger image, several parts are looked at, as there may be nothing in its middle.
MAX_WHOLE_PIXELS = 2**26
MAX_LAG = 40  # pixels

# They have unit energy. The fourth difference is orthogonal to the mean of five.
SECOND_DIFFERENCE = np.array([1, -2, 1]) / math.sqrt(6)
FOURTH_DIFFERENCE = np.array([1, -4, 6, -4, 1]) / math.sqrt(70)
# Side of the neighbourhood for the signal; a pixel with equal values around it holds no noise.
WINDOW = 5
PERPENDICULAR_AXIS = {"x": "y", "y": "x", "z": "y"}


@dataclass(frozen=True)
class NoiseSample:
    """The noise in the middle of one channel of an image, and the signal under it.

    Attributes
    ----------
    correlation
        The correlation of the noise from lag 0, by axis. Empty if noise and signal cannot be separated.
    pairs
        Number of pairs of pixels that it was measured at, from lag 0, by axis.
    std
        Standard deviation of the noise, by axis, in grey values; the same for each axis if the noise is known.
    excess
        By axis, the variance that second differences perpendicular to it find, relative to fourth differences: 1 where
        the noise is independent from line to line, more where signal is left in it. Always 1 if the noise is known.
    noise, signal
        Values of the noise (NaN where a pixel is left out), by axis, and of the signal, (pixels,), in grey values.
    limits
        Smallest and largest value of the channel.
    span
        Difference of the 99th and the first percentile of the values that count, in grey values; 0 if none do.
    step
        Spacing of the grey values; 0 if they are continuous.
    commonest
        Share of the values that have the most frequent one, where not all around them have it: large where few photons
        are counted, or grey values are clipped.
    known
        Whether it is the noise itself, which is the same array for each axis, or an estimate.
    """

    correlation: Mapping[str, np.ndarray]
    pairs: Mapping[str, np.ndarray]
    std: Mapping[str, float]
    excess: Mapping[str, float]
    noise: Mapping[str, np.ndarray]
    signal: np.ndarray
    limits: tuple[float, float]
    span: float
    step: float
    commonest: float
    known: bool


def choose_parts(region: Sequence[slice], most: int) -> list[tuple[slice, ...]]:
    """Choose the parts of an image in which noise is estimated.

    Parameters
    ----------
    region
        The part of the image that is evaluated, one slice per spatial axis.
    most
        The largest number of parts.

    Returns
    -------
    list of tuple of slice
        The region itself, or parts of a very large one, spread evenly over its planes.
    """
    shape = [side.stop - side.start for side in region]
    if math.prod(shape) <= MAX_WHOLE_PIXELS:
        return [tuple(region)]
    axes = min(len(shape), 2)
    number = max(1, math.floor(most ** (1 / axes)))
    parts = []
    for place in np.ndindex(*[number] * axes):
        middles = [0.5] * (len(shape) - axes) + [(index + 0.5) / number for index in place]
        sides = []
        for side, middle_, axis in zip(region, middles, "zyx"[-len(shape) :], strict=True):
            length = side.stop - side.start
            kept = min(length, MAX_SIDES[axis])
            start = side.start + min(max(0, round(middle_ * length) - kept // 2), length - kept)
            sides.append(slice(start, start + kept))
        parts.append(tuple(sides))
    return parts


def known_noise(noisy: np.ndarray, counts: np.ndarray, target: Target) -> list[NoiseSample]:
    """Return the noise of an image that has a clean one.

    Parameters
    ----------
    noisy
        The complete image, (C, ...).
    counts
        Which of its values count, bool, (C, ...).
    target
        How the clean image lies on it.

    Returns
    -------
    list of NoiseSample
        The noise of each channel, and the signal below it.
    """
    noise = target.noise()
    signal = target.noisy - noise
    counts = counts[:, *target.region]
    return [
        _known_sample(
            _middle(noise[channel]),
            _middle(signal[channel]),
            _middle(target.noisy[channel]),
            _middle(counts[channel]),
            _limits(noisy[channel]),
        )
        for channel in range(len(noisy))
    ]


def _known_sample(
    noise: np.ndarray, signal: np.ndarray, noisy: np.ndarray, counts: np.ndarray, limits: tuple[float, float]
) -> NoiseSample:
    axes = list(AXES)[: noise.ndim]
    used = counts & ~flat(np.where(counts, noisy, 0.0))
    masked = np.full(noise.shape, np.nan)
    masked[used] = unbiased(noise[used], signal[used])
    std = float(masked[used].std()) if used.any() else 0.0
    return NoiseSample(
        masked_autocorrelation(masked, MAX_LAG),
        {axis: _count_pairs(masked, axis) for axis in axes},
        dict.fromkeys(axes, std),
        dict.fromkeys(axes, 1.0),
        dict.fromkeys(axes, _kept(masked)),
        _kept(signal),
        limits,
        *_scale(noisy[used]),
        known=True,
    )


def estimate_noise(noisy: np.ndarray, counts: np.ndarray | None = None) -> list[NoiseSample]:
    """Estimate the noise of an image without a clean one.

    Parameters
    ----------
    noisy
        The image, (C, ...).
    counts
        Which of its values count, bool, (C, ...), or the same for each channel; None: all.

    Returns
    -------
    list of NoiseSample
        The estimated noise of each channel, and the estimated signal below it. For a trace there is no estimate of the
        noise, because it cannot be separated from the signal.
    """
    counts = np.broadcast_to(True if counts is None else counts, noisy.shape)
    return [
        _estimated_sample(_middle(channel).astype(np.float64), _middle(used), _limits(channel))
        for channel, used in zip(noisy, counts, strict=True)
    ]


def _estimated_sample(noisy: np.ndarray, counts: np.ndarray, limits: tuple[float, float]) -> NoiseSample:
    axes = [axis for axis in list(AXES)[: noisy.ndim] if noisy.ndim > 1]
    filled = np.where(counts, noisy, np.median(noisy[counts]) if counts.any() else 0.0)
    used = counts & ~flat(filled)
    scale = _scale(noisy[used])
    noise, excess = {}, {}
    for axis in axes:
        across = AXES[PERPENDICULAR_AXIS[axis]]
        clear = used & ndimage.minimum_filter1d(counts, len(FOURTH_DIFFERENCE), axis=across, mode="constant")
        second, fourth = (
            np.where(clear, ndimage.correlate1d(filled, difference, axis=across), np.nan)
            for difference in (SECOND_DIFFERENCE, FOURTH_DIFFERENCE)
        )
        noise[axis] = fourth
        variance = middle_mean(fourth, 0.5) ** 2
        excess[axis] = middle_mean(second, 0.5) ** 2 / variance if variance > 0 else 1.0
    signal = ndimage.uniform_filter(filled, WINDOW, axes=(-2, -1)[-noisy.ndim :])
    return NoiseSample(
        {axis: robust_autocorrelation(values, axis, MAX_LAG) for axis, values in noise.items()},
        {axis: _count_pairs(values, axis) for axis, values in noise.items()},
        {axis: math.sqrt(robust_variance(values)) for axis, values in noise.items()},
        excess,
        {axis: _kept(values) for axis, values in noise.items()},
        _kept(signal),
        limits,
        *scale,
        known=False,
    )


def noise_level(samples: Sequence[NoiseSample], direction: str | None) -> float | None:
    """Return how strong noise is: its standard deviation, relative to the span of grey values.

    Parameters
    ----------
    samples
        All samples of all images.
    direction
        The direction of the noise, an axis, ``none`` or None.

    Returns
    -------
    float or None
        The median over the samples, found in the same way with and without clean images; None if there is no estimate.
    """
    levels = []
    for sample in samples:
        noise = sample.noise.get(direction or "none", sample.noise.get("x"))
        if noise is not None and sample.span > 0:
            levels.append(math.sqrt(robust_variance(noise)) / sample.span)
    return round(float(np.median(levels)), 4) if levels else None


def _count_pairs(noise: np.ndarray, axis: str) -> np.ndarray:
    """Return the number of pairs of values at each distance along an axis, from 0."""
    counts = np.moveaxis(np.isfinite(noise), AXES[axis], -1)
    length = counts.shape[-1]
    return np.array(
        [
            np.count_nonzero(counts[..., : length - lag] & counts[..., lag:])
            for lag in range(min(MAX_LAG, length // 2) + 1)
        ]
    )


def flat(image: np.ndarray) -> np.ndarray:
    """Find the pixels without noise: those of which all neighbours in a plane have the same value.

    Parameters
    ----------
    image
        Any number of axes; planes are the last two, or the only one.

    Returns
    -------
    numpy.ndarray
        Bool, of the same shape.
    """
    plane = (-2, -1)[-image.ndim :]
    lowest, highest = (
        find(image, WINDOW, axes=plane, mode="nearest") for find in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    return lowest == highest


def _scale(values: np.ndarray) -> tuple[float, float, float]:
    """Return the span and the step of grey values, and the share of the most frequent one."""
    if not len(values):
        return 0.0, 0.0, 0.0
    low, high = np.percentile(values, (1, 99))
    different, counts = np.unique(values, return_counts=True)
    return float(high - low), quantisation_step(different), float(counts.max() / counts.sum())


def _limits(channel: np.ndarray) -> tuple[float, float]:
    """Return the smallest and the largest number; an empty range if there is none."""
    numbers = channel[np.isfinite(channel)]
    return float(numbers.min(initial=np.inf)), float(numbers.max(initial=-np.inf))


def _kept(values: np.ndarray) -> np.ndarray:
    """Return evenly spaced values in single precision, so that the samples of many images fit into memory."""
    return values.ravel()[:: math.ceil(values.size / MAX_KEPT_VALUES)].astype(np.float32)


def _middle(channel: np.ndarray) -> np.ndarray:
    return channel[middle(channel.shape, [MAX_SIDES[axis] for axis in "zyx"[-channel.ndim :]])]
