"""The scale of frames: their grey values, contrast and noise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Quantiles of the grey values: the range that a model has seen, and that of one frame.
SEEN_QUANTILES = (0.01, 0.99)
FRAME_QUANTILES = (0.05, 0.5, 0.95)
# In standard deviations of the typical frame: frames whose grey values all lie farther from its mean are left out.
MAX_DISTANCE = 20.0
# More frames than this, of all, are no exception.
MAX_EXCEPTIONS = 1 / 3
# Frames whose noise differs by this factor from that of the typical frame cannot be learned on one scale.
MIXED_FACTOR = 8.0
MAX_SAMPLE = 2**18


@dataclass(frozen=True)
class FrameScale:
    """Grey values, contrast and noise of the pixels of a frame that count, each (C,).

    Attributes
    ----------
    mean, std
        Of the grey values.
    low, median, high
        Quantiles of 5, 50 and 95 %.
    least, most
        Quantiles of 1 and 99 %.
    noise
        Estimate of the standard deviation of the noise; fine texture counts as noise.
    """

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    median: np.ndarray
    high: np.ndarray
    least: np.ndarray
    most: np.ndarray
    noise: np.ndarray


def measure_scale(frame: np.ndarray, counts: np.ndarray | None = None) -> FrameScale:
    """Measure the scale of a frame.

    Parameters
    ----------
    frame
        (C, ...), without values that are not numbers.
    counts
        True where a value counts, (C, ...), at least once in each channel; None: everywhere.

    Returns
    -------
    FrameScale
        The scale of each channel.
    """
    columns = []
    for number, channel in enumerate(frame):
        chosen = None if counts is None else counts[number]
        values = channel.ravel() if chosen is None else channel[chosen]
        sample = values[:: -(-values.size // MAX_SAMPLE)]
        quantiles = np.quantile(sample, sorted(FRAME_QUANTILES + SEEN_QUANTILES))
        least, low, median, high, most = quantiles
        mean, std = values.mean(dtype=np.float64), values.std(dtype=np.float64)
        columns.append([mean, std, low, median, high, least, most, _noise(channel, chosen)])
    return FrameScale(*np.array(columns, dtype=np.float64).T)


def _noise(channel: np.ndarray, counts: np.ndarray | None) -> float:
    """Return the standard deviation of white noise with the same second differences, along each axis of a plane."""
    found = []
    for axis in range(-min(channel.ndim, 2), 0):
        lines = np.moveaxis(channel, axis, -1)
        differences = np.abs(lines[..., 2:] - 2 * lines[..., 1:-1] + lines[..., :-2])
        if counts is not None:
            used = np.moveaxis(counts, axis, -1)
            differences = differences[used[..., 2:] & used[..., 1:-1] & used[..., :-2]]
        if differences.size:
            # The mean of the absolute value of a normal number is sqrt(2 / pi); the squared weights add up to 6.
            found.append(differences.mean(dtype=np.float64) * np.sqrt(np.pi / 2 / 6))
    return float(np.mean(found)) if found else 0.0


def find_exceptions(scales: Sequence[FrameScale]) -> list[bool]:
    """Find frames that are far brighter or darker than the rest, everywhere: a flash, a light leak, another gain.

    Parameters
    ----------
    scales
        The scale of each frame.

    Returns
    -------
    list of bool
        True for such frames. They are a minority, and there are none among fewer than three frames. A frame that shows
        something bright before the background of the others is not one of them.
    """
    if len(scales) < 3:
        return [False] * len(scales)
    mean, std = (np.median([getattr(scale, name) for scale in scales], axis=0) for name in ("mean", "std"))
    reach = MAX_DISTANCE * std
    found = [bool(((scale.low > mean + reach) | (scale.high < mean - reach)).any()) for scale in scales]
    return found if sum(found) <= MAX_EXCEPTIONS * len(scales) else [False] * len(scales)


def find_mixed(scales: Sequence[FrameScale]) -> list[bool]:
    """Find frames whose noise is far from that of the typical frame, such as 8-bit images among 16-bit ones.

    Parameters
    ----------
    scales
        The scale of each frame.

    Returns
    -------
    list of bool
        True for such frames.
    """
    if not scales:
        return []
    noise = np.array([scale.noise for scale in scales])  # (frames, C)
    typical = noise[typical_frame(scales)]
    # A channel without noise is constant.
    apart = (np.maximum(noise, typical) > MIXED_FACTOR * np.minimum(noise, typical)) & (noise > 0) & (typical > 0)
    return apart.any(axis=1).tolist()


def typical_frame(scales: Sequence[FrameScale]) -> int:
    """Return the number of the frame with the median noise.

    Parameters
    ----------
    scales
        The scale of each frame, at least one.

    Returns
    -------
    int
        An index of ``scales``.
    """
    noise = [float(scale.noise.mean()) for scale in scales]
    return int(np.argsort(noise, kind="stable")[(len(noise) - 1) // 2])
