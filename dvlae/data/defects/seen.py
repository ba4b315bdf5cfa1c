"""What a model has seen of the scales of frames, and how other frames differ.

A model works with grey values that are shifted and scaled by the mean and standard deviation of all training images.
An image from another camera, or of another exposure, is then beyond all that it has learned.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dvlae.data.defects.scale import FrameScale
from dvlae.system.arrays import frame_bands, zeros

# Noise that differs by this factor from what was seen is other noise: a model of the SEM images then loses more than
# 1 dB, and at half the noise 7 dB (docs/notes/experiments.md). Where a change of gain and offset leaves less than this,
# it explains noise and contrast.
OTHER_FACTOR = 1.4
# Only noise that differs by these factors tells another gain from another brightness. A gain multiplies noise and
# contrast by the same factor; more light, or more dye, multiplies the contrast by the square of that factor, or more.
GAIN_FACTOR, BRIGHTNESS_FACTOR = 8.0, 4.0
# The factor of contrast over noise, as a power of that of the noise: 0 for another gain, 1 or more for more light.
GAIN_POWER, BRIGHTNESS_POWER = 1 / 3, 2 / 3
GAIN, BRIGHTNESS, UNTOLD = "gain or bit depth", "brightness", "brightness, gain or offset"


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
    units
        The ``offset`` that was subtracted from the grey values of the files, and the ``scale`` that the rest was
        divided by; None: unknown.
    """

    levels: np.ndarray
    means: np.ndarray
    stds: np.ndarray
    noise: np.ndarray
    units: Mapping[str, float] | None = None

    @classmethod
    def of(cls, scales: Sequence[FrameScale], units: Mapping[str, float] | None = None) -> "SeenScale":
        """Return the range of the scales of frames.

        Parameters
        ----------
        scales
            The scale of each frame, at least one.
        units
            The units of all frames.

        Returns
        -------
        SeenScale
            Smallest and largest values.
        """

        def ends(lowest: str, highest: str) -> np.ndarray:
            low, high = (np.array([getattr(scale, name) for scale in scales]) for name in (lowest, highest))
            return np.stack([low.min(axis=0), high.max(axis=0)], axis=1)

        return cls(ends("least", "most"), ends("mean", "mean"), ends("std", "std"), ends("noise", "noise"), units)

    def to_json(self) -> dict[str, Any]:
        """Return the ranges as plain values.

        Returns
        -------
        dict
            For JSON.
        """
        ranges = {name: getattr(self, name).tolist() for name in ("levels", "means", "stds", "noise")}
        return ranges | ({} if self.units is None else {"units": self.units})

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
        ranges = {name: np.asarray(values[name], np.float64) for name in ("levels", "means", "stds", "noise")}
        return cls(**ranges, units=values.get("units"))

    def includes(self, scale: FrameScale) -> bool:
        """Return whether a frame has the grey values and the noise of those that were seen.

        Parameters
        ----------
        scale
            The scale of the frame.

        Returns
        -------
        bool
            False if, in a channel, more than half of the pixels are beyond all grey values, or the noise is weaker or
            stronger by :data:`OTHER_FACTOR` than what was seen.
        """
        return bool(self._included(scale).all())

    def _included(self, scale: FrameScale) -> np.ndarray:
        (lowest, highest), (least, most) = self.levels.T, self.noise.T
        return (
            (lowest <= scale.median)
            & (scale.median <= highest)
            & (least <= OTHER_FACTOR * scale.noise)
            & (scale.noise <= OTHER_FACTOR * most)
        )

    def difference(self, scale: FrameScale) -> str:
        """Say in what a frame differs from those that were seen, as far as its noise and contrast tell.

        Parameters
        ----------
        scale
            The scale of the frame.

        Returns
        -------
        str
            ``gain or bit depth``, ``brightness``, or ``brightness, gain or offset`` where it cannot be told; empty if
            the frame is like those that were seen.
        """
        others = np.flatnonzero(~self._included(scale))
        found = {self._difference(int(channel), scale) for channel in others}
        return "" if not found else found.pop() if len(found) == 1 else UNTOLD

    def _difference(self, channel: int, scale: FrameScale) -> str:
        noise = np.array([scale.noise[channel], *_middles(self.noise, channel=channel)])
        std = np.array([scale.std[channel], *_middles(self.stds, channel=channel)])
        contrast = np.sqrt(np.maximum(0, std**2 - noise**2))
        # A frame of noise alone says nothing of the contrast.
        if (noise <= 0).any() or (contrast < noise).any():
            return UNTOLD
        factor, ratio = np.log(noise[0] / noise[1]), np.log(contrast[0] / contrast[1])
        if abs(factor) > np.log(GAIN_FACTOR) and abs(ratio / factor - 1) < GAIN_POWER:
            return GAIN
        if abs(factor) > np.log(BRIGHTNESS_FACTOR) and ratio / factor - 1 > BRIGHTNESS_POWER:
            return BRIGHTNESS
        return UNTOLD

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
            None if noise and contrast would still be other than those that were seen, or its brightness differs.
        """
        if self.difference(scale) == BRIGHTNESS:
            return None
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
        seen_mean, seen_std, seen_noise = _middles(self.means, self.stds, self.noise, channel=channel)
        if min(std, noise, seen_std, seen_noise) <= 0:
            return None
        candidates = [(1.0, mean - seen_mean), (noise / seen_noise, mean - noise / seen_noise * seen_mean)]
        if mean * seen_mean > 0:
            candidates.insert(0, (mean / seen_mean, 0.0))
        for gain, offset in candidates:
            pairs = ((noise, self.noise[channel]), (std, self.stds[channel]))
            if all(least / OTHER_FACTOR <= value / gain <= most * OTHER_FACTOR for value, (least, most) in pairs):
                return gain, offset
        return None


def _middles(*ranges: np.ndarray, channel: int) -> list[float]:
    """Return the geometric middle of each range (C, 2) of a channel; the arithmetic one if an end is not positive."""
    return [
        float(np.sqrt(np.prod(ends[channel]))) if (ends[channel] > 0).all() else float(np.mean(ends[channel]))
        for ends in ranges
    ]


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

    @classmethod
    def between(cls, units: Mapping[str, float], seen: Mapping[str, float] | None, channels: int) -> "Conversion":
        """Return how grey values in some units are converted to those in the units that were seen.

        Parameters
        ----------
        units, seen
            The ``offset`` that was subtracted from the grey values of the files, and the ``scale`` that the rest was
            divided by: of a frame, and of the images that were seen; None: they are taken for the same.
        channels
            Number of channels.

        Returns
        -------
        Conversion
            The same for all channels.
        """
        seen = units if seen is None else seen
        gain, offset = seen["scale"] / units["scale"], (seen["offset"] - units["offset"]) / units["scale"]
        return cls((gain,) * channels, (offset,) * channels)

    def then(self, other: "Conversion") -> "Conversion":
        """Return both conversions as one, so that no digits are lost between them.

        Parameters
        ----------
        other
            A conversion of what this one gives.

        Returns
        -------
        Conversion
            One number for each channel.
        """
        each = zip(self.gain, self.offset, other.gain, other.offset, strict=True)
        gains, offsets = zip(*((gain * more, offset + gain * shift) for gain, offset, more, shift in each), strict=True)
        return Conversion(gains, offsets)

    @property
    def changes(self) -> bool:
        """Whether a grey value is another one after the conversion."""
        return set(self.gain) != {1} or set(self.offset) != {0}

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
