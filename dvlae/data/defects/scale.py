"""The scale of frames: their grey values, contrast and noise, and what a model has seen of them.

A model works with grey values that are shifted and scaled by the mean and standard deviation of all training images.
An image from another camera, or of another exposure, is then beyond all that it has learned.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dvlae.system.arrays import bands, frame_bands, mean_and_std, spread_sample, zeros

# Quantiles of the grey values: the range that a model has seen, and that of one frame.
SEEN_QUANTILES = (0.01, 0.99)
FRAME_QUANTILES = (0.05, 0.5, 0.95)
# In standard deviations of the typical frame: frames whose grey values all lie farther from its mean are left out.
MAX_DISTANCE = 20.0
# More frames than this, of all, are no exception.
MAX_EXCEPTIONS = 1 / 3
# Noise that differs by this factor from what was seen is other noise.
NOISE_FACTOR = 2.0
# Noise and contrast that differ by less, after a change of gain and offset, are explained by that.
EXPLAINED_FACTOR = 1.5
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


@dataclass(frozen=True)
class SeenScale:
    """The scales that a model has seen, as the smallest and the largest of all frames, each (C, 2).

    Attributes
    ----------
    levels
        Grey values.
    means, stds
        Mean and standard deviation of the grey values of a frame.
    noise
        Noise of a frame.
    """

    levels: np.ndarray
    means: np.ndarray
    stds: np.ndarray
    noise: np.ndarray

    @classmethod
    def of(cls, scales: Sequence[FrameScale]) -> "SeenScale":
        """Return the range of the scales of frames.

        Parameters
        ----------
        scales
            The scale of each frame, at least one.

        Returns
        -------
        SeenScale
            Smallest and largest values.
        """

        def ends(lowest: str, highest: str) -> np.ndarray:
            low, high = (np.array([getattr(scale, name) for scale in scales]) for name in (lowest, highest))
            return np.stack([low.min(axis=0), high.max(axis=0)], axis=1)

        return cls(ends("least", "most"), ends("mean", "mean"), ends("std", "std"), ends("noise", "noise"))

    def to_json(self) -> dict[str, list[list[float]]]:
        """Return the ranges as plain values.

        Returns
        -------
        dict
            For JSON.
        """
        return {name: getattr(self, name).tolist() for name in ("levels", "means", "stds", "noise")}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "SeenScale":
        """Return what :meth:`to_json` wrote.

        Parameters
        ----------
        values
            Plain values.

        Returns
        -------
        SeenScale
            Equal to the original.
        """
        return cls(*(np.asarray(values[name], np.float64) for name in ("levels", "means", "stds", "noise")))

    def includes(self, scale: FrameScale) -> bool:
        """Return whether a frame has the grey values and the noise of those that were seen.

        Parameters
        ----------
        scale
            The scale of the frame.

        Returns
        -------
        bool
            False if, in a channel, more than half of the pixels are beyond all grey values, or the noise is less than
            half or more than twice of what was seen.
        """
        (lowest, highest), (least, most) = self.levels.T, self.noise.T
        return bool(
            (
                (lowest <= scale.median)
                & (scale.median <= highest)
                & (least <= NOISE_FACTOR * scale.noise)
                & (scale.noise <= NOISE_FACTOR * most)
            ).all()
        )

    def conversion(self, scale: FrameScale) -> "Conversion | None":
        """Find the gain and the offset of a frame that differs from those that were seen by them alone.

        A gain alone is preferred, then an offset alone.

        Parameters
        ----------
        scale
            The scale of the frame.

        Returns
        -------
        Conversion or None
            None if noise and contrast would still be other than those that were seen.
        """
        gains, offsets = [], []
        for channel in range(len(scale.mean)):
            found = self._conversion(channel, scale)
            if found is None:
                return None
            gains.append(found[0])
            offsets.append(found[1])
        return Conversion(tuple(gains), tuple(offsets))

    def _conversion(self, channel: int, scale: FrameScale) -> tuple[float, float] | None:
        mean, std, noise = (float(values[channel]) for values in (scale.mean, scale.std, scale.noise))
        seen_mean, seen_std, seen_noise = (
            float(np.sqrt(np.prod(ends[channel]))) if (ends[channel] > 0).all() else float(np.mean(ends[channel]))
            for ends in (self.means, self.stds, self.noise)
        )
        if min(std, noise, seen_std, seen_noise) <= 0:
            return None
        candidates = [(1.0, mean - seen_mean), (noise / seen_noise, mean - noise / seen_noise * seen_mean)]
        if mean * seen_mean > 0:
            candidates.insert(0, (mean / seen_mean, 0.0))
        for gain, offset in candidates:
            pairs = ((noise, self.noise[channel]), (std, self.stds[channel]))
            if all(
                least / EXPLAINED_FACTOR <= value / gain <= most * EXPLAINED_FACTOR for value, (least, most) in pairs
            ):
                return gain, offset
        return None


@dataclass(frozen=True)
class Conversion:
    """Gain and offset of the grey values of a frame, for each channel: ``gain * seen + offset``.

    Attributes
    ----------
    gain, offset
        One number for each channel.
    """

    gain: tuple[float, ...]
    offset: tuple[float, ...]

    def to_json(self) -> dict[str, list[float]]:
        """Return the gain and the offset as plain values.

        Returns
        -------
        dict
            For JSON.
        """
        return {"gain": list(self.gain), "offset": list(self.offset)}

    def _convert(self, values: np.ndarray, formula: Callable[..., np.ndarray]) -> np.ndarray:
        converted = zeros(values.shape, values.dtype)
        for channel, band in frame_bands(values.shape, values, converted):
            gain, offset = np.float32(self.gain[channel]), np.float32(self.offset[channel])
            converted[channel, band] = formula(values[channel, band], gain, offset)
        return converted

    def apply(self, frame: np.ndarray) -> np.ndarray:
        """Bring a frame (C, ...) to the scale that was seen.

        Parameters
        ----------
        frame
            (C, ...), in its own units.

        Returns
        -------
        (C, ...) array
            The frame in the units of the images that were seen.
        """
        return self._convert(frame, lambda values, gain, offset: (values - offset) / gain)

    def of_scale(self, scale: FrameScale) -> FrameScale:
        """Return the scale of a frame after the conversion.

        Parameters
        ----------
        scale
            The scale of the frame, in its own units.

        Returns
        -------
        FrameScale
            The scale in the units of the images that were seen.
        """
        gain, offset = np.array(self.gain), np.array(self.offset)
        values = {
            name: value / gain if name in ("std", "noise") else (value - offset) / gain
            for name, value in vars(scale).items()
        }
        return FrameScale(**values)

    def undo(self, estimate: np.ndarray) -> np.ndarray:
        """Bring an estimate (C, ...) back to the units of its frame.

        Parameters
        ----------
        estimate
            (C, ...), in the units of the images that were seen.

        Returns
        -------
        (C, ...) array
            The estimate in the units of the frame.
        """
        return self._convert(estimate, lambda values, gain, offset: gain * values + offset)

    def scale_deviation(self, std: np.ndarray) -> np.ndarray:
        """Bring a standard deviation (C, ...) back to the units of its frame.

        Parameters
        ----------
        std
            (C, ...), in the units of the images that were seen.

        Returns
        -------
        (C, ...) array
            The standard deviation in the units of the frame.
        """
        return self._convert(std, lambda values, gain, offset: gain * values)
