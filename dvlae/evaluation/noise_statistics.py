"""What noise looks like: how it is correlated along each axis, and how its variance depends on the signal."""

import numpy as np

from dvlae.evaluation.metrics import autocorrelation

MAX_LAG = 15  # pixels
# Pixels are grouped by their signal; all groups are equally large.
SIGNAL_GROUPS = 16
# The groups are put together from these bins.
FINE_BINS = 1200
# The fine bins reach this many standard deviations of the images from their mean.
MAX_DEVIATIONS = 6.0


class NoiseStatistics:
    """Statistics of the noise of any number of images, in memory that does not grow with them.

    Parameters
    ----------
    mean, std
        Of each channel of the images, (C,), in their units.
    """

    def __init__(self, mean: np.ndarray, std: np.ndarray):
        self.mean, self.std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        self.correlations: list[dict[str, np.ndarray]] = []
        # Of each fine bin of each channel: number of pixels, sums of their signal, noise, and noise squared.
        self.sums = np.zeros((4, len(self.mean), FINE_BINS))

    def update(self, noise: np.ndarray, signal: np.ndarray) -> None:
        """Take the noise of one image, and the signal that it is around, each (C, ...) in the images' units."""
        self.correlations.append(autocorrelation(noise, MAX_LAG))
        for channel, (n, s) in enumerate(zip(noise.astype(np.float64), signal.astype(np.float64), strict=True)):
            place = (s - self.mean[channel]) / (MAX_DEVIATIONS * self.std[channel])  # -1 to 1
            bins = np.clip((place + 1) / 2 * FINE_BINS, 0, FINE_BINS - 1).astype(int).ravel()
            for row, weights in enumerate((None, s, n, n**2)):
                values = None if weights is None else weights.ravel()
                self.sums[row, channel] += np.bincount(bins, values, minlength=FINE_BINS)

    def autocorrelation(self) -> dict[str, np.ndarray]:
        """Return the mean over images of the noise's autocorrelation along each axis, from lag 0, 1 there."""
        return {
            axis: np.mean([lags[axis][: self._shortest(axis)] for lags in self.correlations], axis=0)
            for axis in self.correlations[0]
        }

    def _shortest(self, axis: str) -> int:
        return min(len(lags[axis]) for lags in self.correlations)

    def variance_by_signal(self, channel: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean signal and the variance of the noise in each group of pixels of equal signal."""
        counts = self.sums[0, channel]
        middle = (np.cumsum(counts) - counts / 2) / counts.sum()
        group = np.minimum((middle * SIGNAL_GROUPS).astype(int), SIGNAL_GROUPS - 1)
        grouped = np.array([np.bincount(group, row, minlength=SIGNAL_GROUPS) for row in self.sums[:, channel]])
        number, signal, noise, squares = grouped[:, grouped[0] > 1]
        return signal / number, squares / number - (noise / number) ** 2

    def variance_slope(self, channel: int) -> float:
        """Return the slope of the straight line through variance against signal; not a number where all is one grey."""
        signal, variance = self.variance_by_signal(channel)
        return float(np.polyfit(signal, variance, 1)[0]) if len(signal) > 1 else float("nan")
