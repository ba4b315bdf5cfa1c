"""A transform after which the noise is equally strong at every signal, for filters that assume so.

With the standard deviation S(s) of the noise at signal s, a value x becomes the integral of 1 / S from a fixed signal
up to x. What was measured takes the place of the square root that Anscombe derived for Poisson noise. The way back is
not the inverse of this function, which would make estimates darker, but that of the mean of transformed noisy values
[1]_. The third moment of this noise is the slope of its variance times the variance, as that of Poisson noise of any
gain.

References
----------
.. [1] Mäkitalo and Foi: Optimal inversion of the generalized Anscombe transformation for Poisson-Gaussian noise, IEEE
   Transactions on Image Processing 22 (2013) 91.
"""

import numpy as np
from scipy import stats

from dvlae.evaluation.noise_statistics import VarianceCurve

# Signals for which the functions are tabulated.
POINTS = 1001
# Values of the noise for which a mean is taken.
QUANTILES = 64
# The table goes this many standard deviations of the noise beyond the signals that were measured.
BEYOND = 6.0
# Of the slope of the variance, squared: what Anscombe adds to a count, so that few photons have a variance of 1, too.
SHIFT = 3 / 8
# Where values are saturated, their noise has no variance, and the transform would have no limit.
MIN_RATIO = 0.1


class Stabiliser:
    """The transform of one channel, and the way back.

    Parameters
    ----------
    curve
        Signals in increasing order, and the variance of the noise at each of them, as
        :func:`dvlae.evaluation.noise_statistics.variance_by_signal` returns them: at least one.
    """

    def __init__(self, curve: VarianceCurve):
        signals, variances = curve
        known = variances[variances > 0]
        std = np.sqrt(np.maximum(variances, MIN_RATIO**2 * np.median(known) if len(known) else 1.0))
        self._signals = np.linspace(signals[0] - BEYOND * std[0], signals[-1] + BEYOND * std[-1], POINTS)
        each = np.interp(self._signals, signals, std)
        # From one standard deviation below to one above: groups of nearly the same signal have variances by chance.
        below, above = (np.interp(self._signals + side * each, signals, std**2) for side in (-1, 1))
        slope = (above - below) / (2 * each)
        used = np.sqrt(each**2 + SHIFT * slope**2)
        middle = (used[1:] + used[:-1]) / 2
        self._values = np.append(0.0, np.cumsum(np.diff(self._signals) / middle))
        quantiles = (np.arange(QUANTILES) + 0.5) / QUANTILES
        noise = each[:, np.newaxis] * stats.pearson3.ppf(quantiles, (slope / each)[:, np.newaxis])
        means = self.transform(self._signals[:, np.newaxis] + noise).mean(axis=1)
        self._means = np.maximum.accumulate(means)

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Return values that have noise of variance 1.

        Parameters
        ----------
        values
            Of a noisy image, in grey values, of any shape.

        Returns
        -------
        numpy.ndarray
            Of the same shape, float64.
        """
        return _follow(values, self._signals, self._values)

    def signal(self, means: np.ndarray) -> np.ndarray:
        """Return the signal that transformed noisy values have this mean for.

        Parameters
        ----------
        means
            What a filter made of transformed values, of any shape.

        Returns
        -------
        numpy.ndarray
            In grey values, of the same shape, float64.
        """
        return _follow(means, self._means, self._signals)


def _follow(x: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Interpolate linearly, and go on beyond the ends as straight as there."""
    below, above = ((ys[i + 1] - ys[i]) / (xs[i + 1] - xs[i]) for i in (0, -2))
    return np.interp(x, xs, ys) + below * np.minimum(x - xs[0], 0) + above * np.maximum(x - xs[-1], 0)
