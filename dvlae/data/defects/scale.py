"""The scale of frames: their grey values, contrast and noise."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dvlae.system.arrays import bands, mean_and_std, spread_sample

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
        parts = partial(_parts, channel, None if counts is None else counts[number])
        size = channel.size if counts is None else sum(part.size for part in parts())
        sample = spread_sample(parts(), size, MAX_SAMPLE)
        quantiles = np.quantile(sample, sorted(FRAME_QUANTILES + SEEN_QUANTILES))
        least, low, median, high, most = quantiles
        noise = _noise(channel, None if counts is None else counts[number])
        columns.append([*mean_and_std(parts), low, median, high, least, most, noise])
    return FrameScale(*np.array(columns, dtype=np.float64).T)


def _parts(channel: np.ndarray, counts: np.ndarray | None) -> Iterator[np.ndarray]:
    for band, _ in bands(channel.shape, channel, counts):
        yield channel[band].ravel() if counts is None else channel[band][counts[band]]


def _noise(channel: np.ndarray, counts: np.ndarray | None) -> float:
    """Return the standard deviation of white noise with the same second differences, along each axis of a plane."""
    found = []
    for axis in range(-min(channel.ndim, 2), 0):
        total, number = 0.0, 0
        # Along the axis of the bands, those of the first and of the last row of a band need the rows around it.
        for _, outer in bands(channel.shape, channel, counts, margin=1 if axis == -channel.ndim else 0):
            lines = np.moveaxis(channel[outer], axis, -1)
            differences = np.abs(lines[..., 2:] - 2 * lines[..., 1:-1] + lines[..., :-2])
            if counts is not None:
                used = np.moveaxis(counts[outer], axis, -1)
                differences = differences[used[..., 2:] & used[..., 1:-1] & used[..., :-2]]
            total, number = total + float(differences.sum(dtype=np.float64)), number + differences.size
        if number:
            # The mean of the absolute value of a normal number is sqrt(2 / pi); the squared weights add up to 6.
            found.append(total / number * np.sqrt(np.pi / 2 / 6))
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
