"""Find where the grey values of a recording end, from the pixels of all its images.

Noise is cut off at a limit of the recording: the distribution of the grey values reaches it, and piles up there. Hot
pixels lie far from all others, and the brightest values of images that are not clipped are rare. Counted photons pile
up at 0, too, where most pixels have none, but then the next values become rarer and rarer.
"""

import logging
from dataclasses import dataclass, field

import numpy as np

from dvlae.data.defects.finding import MIN_LEVELS, MIN_PILE_UP, NEAR_LEVELS

logger = logging.getLogger(__name__)

# Of all pixels: with fewer at a limit, nothing changes.
MIN_SHARE = 1e-4
# The value next to a lower limit is at most this many times as frequent as is usual near the limit.
MAX_RISE = 2.0


@dataclass
class _End:
    """The outermost values of a channel on one side, and how many pixels have each; the outermost first."""

    sign: int
    values: np.ndarray = field(default_factory=lambda: np.empty(0))
    counts: np.ndarray = field(default_factory=lambda: np.empty(0, int))

    def update(self, pixels: np.ndarray) -> None:
        if len(self.values) > MIN_LEVELS:
            pixels = pixels[self.sign * pixels >= self.sign * self.values[-1]]
        values, counts = np.unique(pixels, return_counts=True)
        every, places = np.unique(np.concatenate([self.values, values]), return_inverse=True)
        total = np.zeros(len(every), int)
        np.add.at(total, places, np.concatenate([self.counts, counts]))
        outermost = np.argsort(-self.sign * every)[: MIN_LEVELS + 1]
        self.values, self.counts = every[outermost], total[outermost]

    def limit(self, pixels: int) -> float | None:
        """Return the value at which the recording ends; None: it does not end on this side."""
        # Few grey values are those of counted photons, or of black and white.
        if len(self.values) <= MIN_LEVELS or self.counts[0] < MIN_SHARE * pixels:
            return None
        near, spacing = self.counts[1 : NEAR_LEVELS + 1], np.abs(np.diff(self.values[: NEAR_LEVELS + 1]))
        reaches = spacing[0] <= spacing[1:].sum()
        rises = self.sign < 0 and near[0] > MAX_RISE * np.median(near)
        piles_up = self.counts[0] > MIN_PILE_UP * near.max()
        return float(self.values[0]) if reaches and piles_up and not rises else None


class LimitFinder:
    """Finds the smallest and the largest grey value that a recording can have, channel by channel.

    Parameters
    ----------
    channels
        Number of channels.
    """

    def __init__(self, channels: int):
        self.pixels = np.zeros(channels, int)
        self.ends = [(_End(-1), _End(1)) for _ in range(channels)]

    def update(self, patch: np.ndarray, counts: np.ndarray) -> None:
        """Add a patch.

        Parameters
        ----------
        patch
            (C, ...), in grey values.
        counts
            True where a value counts, (C, ...). Saturated values do.
        """
        for channel in range(len(patch)):
            pixels = patch[channel][counts[channel]]
            self.pixels[channel] += pixels.size
            for end in self.ends[channel]:
                end.update(pixels)

    def limits(self) -> list[tuple[float | None, float | None]]:
        """Return the limits of the patches so far, and say them in one line.

        Returns
        -------
        list of tuple
            The smallest and the largest grey value of each channel; None where the recording does not end.
        """
        found = [
            (lower.limit(size), upper.limit(size))
            for (lower, upper), size in zip(self.ends, self.pixels.tolist(), strict=True)
        ]
        if values := sorted({limit for limits in found for limit in limits if limit is not None}):
            logger.info(
                f"patches: grey values are cut off at {' and '.join(f'{value:g}' for value in values)}: the noise is "
                "taken to go on beyond"
            )
        return found
