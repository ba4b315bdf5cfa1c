"""What the noise of a dataset looks like: its direction, its correlation length, how it grows with the signal.

Each channel is judged by itself. Where the pixels do not suffice, or something else than noise along one axis explains
what is found, the direction is None, and the reason says why.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dvlae.config.sizes.receptive_field import reachable
from dvlae.evaluation.noise_samples import NoiseSample, noise_level
from dvlae.evaluation.noise_statistics import VarianceCurve, robust_variance, variance_by_signal, variance_slope

MAX_IMAGES = 16

# Neighbours along an axis that correlate less are considered independent.
MIN_CORRELATION = 0.1
# Images of which fewer pixels count are left out, relative to the median of all images.
MIN_SHARE = 0.1
# A correlation counts if it is this many times its standard error.
MIN_SIGNIFICANCE = 3.0
# Standard error of a correlation times the square root of the number of pixels: of moments, and of medians of filtered
# values. Both hold for white noise.
ERROR_OF_ONE_PIXEL = {True: 1.0, False: 2.4}
# With a larger error, the absence of a correlation says nothing.
MAX_ERROR = 0.05
# Blur and interpolation correlate neighbours alike along two axes: the smaller correlation over the larger.
ALIKE = 0.75
# Second differences of noise have the variance of fourth differences. More than this is texture. Less takes from the
# correlation what texture may have added to it: on photographs with known noise, 1.5 times the excess.
MAX_EXCESS = 0.25
TEXTURE_OF_EXCESS = 1.5
# Less noise, relative to the span of grey values, or to their step and their span, is rounding.
MIN_NOISE = 5e-4
MIN_NOISE_OF_STEP = 0.6
MIN_ROUNDED_NOISE = 0.02
# The correlation length is the lag before the correlation first falls below this.
NEGLIGIBLE_CORRELATION = 0.05
BLUR = "blur"  # in the place of a direction

Lags = Sequence[float] | np.ndarray  # correlations from lag 0


@dataclass(frozen=True)
class Verdict:
    """What the noise of one channel looks like.

    Attributes
    ----------
    direction
        An axis, ``none``, or None if it cannot be told.
    reason
        Why the direction, or how far the noise is correlated, cannot be told; None if both can.
    correlation
        By axis, from lag 0.
    """

    direction: str | None
    reason: str | None
    correlation: Mapping[str, np.ndarray]

    @property
    def length(self) -> int | None:
        """The correlation length in pixels; None if it cannot be told."""
        if self.reason is not None or self.direction is None:
            return None
        return correlation_length(self.correlation.get(self.direction, [1.0]))

    def summary(self) -> dict[str, Any]:
        """Return what is written into the JSON file.

        Returns
        -------
        dict
            Plain values.
        """
        return {
            "direction": self.direction,
            "reason": self.reason,
            "correlation_length": self.length,
            "receptive_field": None if self.length is None else suggest_receptive_field(self.length),
            "autocorrelation": {
                axis: [None if math.isnan(value) else round(float(value), 4) for value in lags]
                for axis, lags in self.correlation.items()
            },
        }


def measure_noise(
    samples: Sequence[Sequence[NoiseSample]],
    *,
    dataset: str,
    configured_direction: str | None,
    images: int | None = None,
) -> tuple[dict[str, Any], list[VarianceCurve]]:
    """Describe the noise of a dataset.

    Parameters
    ----------
    samples
        For each of some of its images, or of their parts, a sample of each channel, all known or all estimated.
    dataset
        Name of the dataset.
    configured_direction
        ``x``, ``y``, ``z``, ``none``, or None if no direction is configured.
    images
        Number of the images; None: each sample is of one.

    Returns
    -------
    found
        The description that :func:`dvlae.reporting.diagnosis.diagnose` writes.
    curves
        For each channel, the signal and the variance of the noise in groups of pixels of equal signal. Empty if noise
        and signal cannot be separated.
    """
    channels = list(zip(*samples, strict=True))
    images = len(samples) if images is None else images
    verdicts = [judge(channel, "images" if images == len(samples) else "parts of the images") for channel in channels]
    verdict = combine(verdicts)
    curves, slopes = [], []
    if verdict.direction is not None:
        axis = "x" if verdict.direction == "none" else verdict.direction
        for channel in channels:
            curve = variance_curve(channel, axis)
            if len(curve[0]):
                curves.append(curve)
            limits = min(sample.limits[0] for sample in channel), max(sample.limits[1] for sample in channel)
            slopes.append(variance_slope(*curve, limits))
    found = {
        "dataset": dataset,
        "basis": "residuals" if samples[0][0].known else "estimate",
        "images": images,
        **verdict.summary(),
        "noise_level": noise_level([sample for image in samples for sample in image], verdict.direction),
        "configured_direction": configured_direction,
        "variance_slope": [None if math.isnan(slope) else round(slope, 6) for slope in slopes],
        "warning": find_contradiction(verdict.correlation, verdict.direction, configured_direction),
        "channels": [one.summary() for one in verdicts],
    }
    return found, curves


def variance_curve(samples: Sequence[NoiseSample], axis: str) -> VarianceCurve:
    """Return how the variance of the noise of one channel depends on the signal.

    Parameters
    ----------
    samples
        A sample of each image.
    axis
        The axis along which the noise was looked at.

    Returns
    -------
    tuple of numpy.ndarray
        As :func:`dvlae.evaluation.noise_statistics.variance_by_signal`.
    """
    noise = np.concatenate([sample.noise[axis] for sample in samples])
    signal = np.concatenate([sample.signal for sample in samples])
    counts = np.isfinite(noise)
    return variance_by_signal(noise[counts], signal[counts], np.var if samples[0].known else robust_variance)


def judge(samples: Sequence[NoiseSample], what: str = "images") -> Verdict:
    """Find the direction of the noise of one channel.

    Parameters
    ----------
    samples
        One for each image, or for each part of the images.
    what
        Which of these, in the plural.

    Returns
    -------
    Verdict
        What its noise looks like. The correlation is the median over the images, which an outlier hardly changes.
    """
    if not samples[0].correlation:
        return Verdict(None, "of traces without clean ones, noise and signal cannot be told apart", {})
    counts = np.array([_neighbouring_pairs(sample.pairs) for sample in samples])
    # Of a nearly blank image, what little counts is not noise alone.
    least = MIN_SHARE * np.median(counts)
    used = [one for one, count in zip(samples, counts, strict=True) if count > least and _has_lags(one)]
    if not used:
        return Verdict(None, "no pixel counts: all are constant, saturated or masked, or too few for the filter", {})
    correlation = {axis: _middle_curve([sample.correlation[axis] for sample in used]) for axis in used[0].correlation}
    pairs = {axis: _total([sample.pairs[axis] for sample in used]) for axis in correlation}
    pixels = _neighbouring_pairs(pairs)
    found = classify(correlation, _error(used[0].known, pixels))
    axis = found if found is not None and found in correlation else "x"
    votes = Counter(classify(one.correlation, _error(one.known, _neighbouring_pairs(one.pairs))) for one in used)
    reason = (
        _too_clean(used, axis)
        or _contradiction([(vote, number) for vote, number in votes.most_common() if vote in correlation], what)
        or _blurred(correlation, found)
        or _textured(used, correlation, found)
        or (None if found is not None else f"{pixels} pixels are too few")
    )
    if reason is None and found in correlation:
        told = pairs[axis] >= (ERROR_OF_ONE_PIXEL[used[0].known] / MAX_ERROR) ** 2
        correlation[axis] = np.where(told, correlation[axis], np.nan)
        return Verdict(found, _endless(correlation[axis], pairs[axis]), correlation)
    return Verdict(None if reason else found, reason, correlation)


def _has_lags(sample: NoiseSample) -> bool:
    return all(np.isfinite(lags[1:2]).all() for lags in sample.correlation.values())


def _neighbouring_pairs(pairs: Mapping[str, np.ndarray]) -> int:
    """Return the number of pairs of neighbours along the axis that has the fewest."""
    return min(int(numbers[:2][-1]) for numbers in pairs.values())


def _middle_curve(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Return the median of curves at each lag, of those that reach it: an outlier or a small image changes little."""
    padded = _pad(curves, np.nan)
    told = np.isfinite(padded).any(axis=0)
    return np.where(told, np.nanmedian(np.where(told, padded, 0.0), axis=0), np.nan)


def _total(numbers: Sequence[np.ndarray]) -> np.ndarray:
    return _pad(numbers, 0).sum(axis=0)


def _pad(curves: Sequence[np.ndarray], value: float) -> np.ndarray:
    longest = max(map(len, curves))
    return np.array([np.pad(curve, (0, longest - len(curve)), constant_values=value) for curve in curves])


def _error(known: bool, pixels: int) -> float:
    """Return the standard error of a correlation."""
    return ERROR_OF_ONE_PIXEL[known] / math.sqrt(pixels)


def classify(correlation: Mapping[str, Lags], error: float) -> str | None:
    """Return the axis along which neighbours are correlated most.

    Parameters
    ----------
    correlation
        The correlation along each axis.
    error
        Its standard error.

    Returns
    -------
    str or None
        An axis; ``blur`` if the correlation is alike along two; ``none`` if it is negligible along all axes; None if
        the error is too large to say so.
    """
    neighbours = {axis: _neighbours(lags) for axis, lags in correlation.items()}
    first, *others = sorted(neighbours, key=lambda axis: -abs(neighbours[axis]))
    least = max(MIN_CORRELATION, MIN_SIGNIFICANCE * error)
    if abs(neighbours[first]) < least:
        return None if error > MAX_ERROR else "none"
    if others and neighbours[others[0]] / neighbours[first] >= ALIKE:
        return BLUR
    return first


def _too_clean(samples: Sequence[NoiseSample], axis: str) -> str | None:
    std, span, step = (
        float(np.median([value(sample) for sample in samples]))
        for value in (lambda one: one.std[axis], lambda one: one.span, lambda one: one.step)
    )
    rounded = std < MIN_NOISE_OF_STEP * step and std < MIN_ROUNDED_NOISE * span
    if std > MIN_NOISE * span and not rounded:
        return None
    what = f" in steps of {step:.3g}" if rounded else ""
    return f"there is hardly any noise (standard deviation {std:.2g} in a span of {span:.3g}{what})"


def _contradiction(votes: Sequence[tuple[str, int]], what: str) -> str | None:
    if len(votes) < 2 or votes[1][1] <= votes[0][1] / 2:
        return None
    return f"the {what} contradict each other: " + ", ".join(f"{number} along {axis}" for axis, number in votes)


def _blurred(correlation: Mapping[str, Lags], found: str | None) -> str | None:
    if found != BLUR:
        return None
    return (
        f"neighbours correlate alike along all axes ({_numbers(correlation)}), as after blur, interpolation or "
        "registration, or in texture; use the images as the detector gave them"
    )


def _endless(lags: np.ndarray, pairs: np.ndarray) -> str | None:
    """Say that too few pixels count to see where a correlation ends; None if it is seen."""
    end = correlation_length(lags) + 1
    if end == len(lags) or np.isfinite(lags[end]):
        return None
    return (
        f"only {pairs[end]} pairs of pixels at a distance of {end} px count, which are too few, and nearer ones are "
        "still correlated"
    )


def _textured(samples: Sequence[NoiseSample], correlation: Mapping[str, Lags], found: str | None) -> str | None:
    axis = found if found is not None and found in correlation else "x"
    excess = float(np.median([sample.excess[axis] for sample in samples])) - 1
    left = abs(_neighbours(correlation[axis])) - TEXTURE_OF_EXCESS * excess
    if excess <= MAX_EXCESS and (found != axis or left >= MIN_CORRELATION):
        return None
    return (
        f"what looks like noise may be texture: across {axis}, it varies {1 + excess:.2f} times as much as noise "
        f"({_numbers(correlation)})"
    )


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """Judge all channels together.

    Parameters
    ----------
    verdicts
        One for each channel.

    Returns
    -------
    Verdict
        That of the channel with the longest correlation among those with a direction. Channels without direction do
        not contradict it, as a receptive field covers them, too.
    """
    told = [verdict for verdict in verdicts if verdict.direction is not None]
    if not told:
        return verdicts[0]
    chosen = max(told, key=lambda one: (one.direction != "none", math.inf if one.length is None else one.length))
    votes = Counter(one.direction for one in told if one.direction not in (None, "none"))
    if len(votes) < 2:
        return chosen
    each = ", ".join(f"{number} along {one.direction}" for number, one in enumerate(verdicts) if one.direction)
    return Verdict(None, f"the channels contradict each other: {each}; `channel` keeps one of them", chosen.correlation)


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
    return next((lag - 1 for lag in range(1, len(lags)) if not abs(lags[lag]) >= NEGLIGIBLE_CORRELATION), len(lags) - 1)


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
        The axis along which neighbours are correlated most, ``none``, or None if it cannot be told.
    configured
        The configured direction; None if there is none.

    Returns
    -------
    str or None
        A warning of one line if the directions differ or the noise is correlated along several axes, else None.
    """
    if direction is None or configured is None:
        return None
    numbers = _numbers(correlation)
    if direction != configured:
        return (
            f"noise_direction: found {configured}, but the noise suggests {direction} (neighbours correlate {numbers})"
        )
    neighbours = {axis: _neighbours(lags) for axis, lags in correlation.items()}
    others = [axis for axis, value in neighbours.items() if axis != direction and abs(value) >= MIN_CORRELATION]
    if others:
        return f"the noise is correlated along more than {direction}, which no receptive field covers ({numbers})"
    return None


def _neighbours(lags: Lags) -> float:
    return float(lags[1]) if len(lags) > 1 else 0.0


def _numbers(correlation: Mapping[str, Lags]) -> str:
    return ", ".join(f"{_neighbours(lags):z.2f} along {axis}" for axis, lags in correlation.items())
