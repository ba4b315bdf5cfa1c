"""What noise looks like: how it is correlated along each axis, and how its variance depends on the signal.

Pixels are put into groups of equal size by their signal. For shot noise, the variance in each group against the mean
signal there is a straight line. Its slope is the variance per grey value of signal.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dvlae.axes import AXES
from dvlae.evaluation.metrics import autocorrelation
from dvlae.evaluation.target import Target

MAX_LAG = 15  # pixels
SIGNAL_GROUPS = 16
# A straight line through fewer groups means little.
MIN_GROUPS_FOR_SLOPE = 3
# :class:`NoiseStatistics` forms its groups from these bins.
FINE_BINS = 1200
MEDIAN_SAMPLE_PIXELS = 2**17
# With a larger fraction of zeros, moments take the place of medians.
MAX_ZEROS = 0.25
# The fine bins reach this many standard deviations of the images from their mean.
MAX_DEVIATIONS = 6.0

Curves = dict[str, np.ndarray]  # by axis
VarianceCurve = tuple[np.ndarray, np.ndarray]  # signal and variance of groups of pixels


def average_curves(curves: Sequence[Mapping[str, np.ndarray]]) -> Curves:
    """Average curves along each axis, up to the length of the shortest.

    Parameters
    ----------
    curves
        The curves of each image, by axis.

    Returns
    -------
    dict
        The average curve, by axis.
    """
    shortest = {axis: min(len(curve[axis]) for curve in curves) for axis in curves[0]}
    return {axis: np.mean([curve[axis][:n] for curve in curves], axis=0) for axis, n in shortest.items()}


def robust_variance(noise: np.ndarray) -> float:
    """Return the variance of normal noise around 0 from the median of its absolute values, which few edges change.

    Parameters
    ----------
    noise
        The noise, of any shape. NaN is left out.

    Returns
    -------
    float
        In squared units of the noise; the mean square where many values are 0, as in images of few photons, whose
        medians say little. 0 without any values.
    """
    return _choose_variance(noise)(noise)


def _choose_variance(noise: np.ndarray) -> Callable[[np.ndarray], float]:
    zeros, values = np.count_nonzero(noise == 0), np.count_nonzero(np.isfinite(noise))
    return _mean_square if zeros > MAX_ZEROS * values else _middle_square


def _mean_square(noise: np.ndarray) -> float:
    values = noise[np.isfinite(noise)]
    return float(np.mean(values**2)) if len(values) else 0.0


def _middle_square(noise: np.ndarray) -> float:
    # For normal noise, the middle fifth of the absolute values has a mean of 0.6772 standard deviations.
    return (middle_mean(noise, 0.2) / 0.6772) ** 2


def middle_mean(noise: np.ndarray, fraction: float) -> float:
    """Return the mean of the middle part of the absolute values: like the median, but rounding moves it less.

    Parameters
    ----------
    noise
        The noise, of any shape. NaN is left out.
    fraction
        The fraction of the values that counts.

    Returns
    -------
    float
        In units of the noise; 0 without any values.
    """
    values = np.abs(noise[np.isfinite(noise)])
    if not len(values):
        return 0.0
    start = int((1 - fraction) / 2 * len(values))
    stop = max(start + 1, len(values) - start)
    return float(np.partition(values, (start, stop - 1))[start:stop].mean())


def robust_autocorrelation(noise: np.ndarray, axis: str, max_lag: int) -> np.ndarray:
    """Return the autocorrelation of noise along one axis, estimated from medians, which ignore a few edges.

    The sum and the difference of two pixels of correlation r have variances in the ratio (1 + r) / (1 - r). The squared
    medians of their absolute values have the same ratio, even if the variance of the noise differs from place to place.

    Parameters
    ----------
    noise
        Spatial axes last, around 0. Pairs with a NaN are left out.
    axis
        ``"x"``, ``"y"`` or ``"z"``.
    max_lag
        Largest lag, in pixels. It is limited to half an axis.

    Returns
    -------
    numpy.ndarray
        The correlation from lag 0, where it is 1; NaN at lags without noise.

    References
    ----------
    Gnanadesikan, Kettenring: Robust estimates, residuals, and outlier detection, Biometrics 28 (1972).
    """
    length = noise.shape[AXES[axis]]
    lines = np.moveaxis(noise, AXES[axis], -1).reshape(-1, length)
    lines = lines[:: math.ceil(lines.size / MEDIAN_SAMPLE_PIXELS)]
    variance = _choose_variance(lines)
    lags = [1.0]
    for lag in range(1, min(max_lag, length // 2) + 1):
        before, after = lines[:, : length - lag], lines[:, lag:]
        of_sum, of_difference = (variance(pair) for pair in (before + after, before - after))
        total = of_sum + of_difference
        lags.append((of_sum - of_difference) / total if total > 0 else float("nan"))
    return np.array(lags)


def masked_autocorrelation(noise: np.ndarray, max_lag: int) -> Curves:
    """Return the normalised autocorrelation of noise along every axis, without the pixels that are left out.

    Parameters
    ----------
    noise
        One to three spatial axes; NaN where a pixel is left out. The mean is subtracted.
    max_lag
        Largest lag, in pixels. It is limited to half an axis.

    Returns
    -------
    dict
        By axis, the correlation from lag 0, where it is 1; NaN at lags without noise.
    """
    there = np.isfinite(noise)
    number = max(1, np.count_nonzero(there))
    centred = np.where(there, noise - noise.sum(where=there, dtype=np.float64) / number, 0.0)
    variance = np.sum(centred**2) / number
    curves = {}
    for axis in list(AXES)[: noise.ndim]:
        lines, counted = (np.moveaxis(values, AXES[axis], -1) for values in (centred, there))
        length = lines.shape[-1]
        lags = []
        for lag in range(min(max_lag, length // 2) + 1):
            before, after = slice(length - lag), slice(lag, None)
            pairs = np.count_nonzero(counted[..., before] & counted[..., after])
            product = np.sum(lines[..., before] * lines[..., after])
            lags.append(product / (pairs * variance) if pairs and variance > 0 else float("nan"))
        curves[axis] = np.array(lags)
    return curves


def variance_by_signal(
    noise: np.ndarray, signal: np.ndarray, variance: Callable[[np.ndarray], float] = np.var
) -> VarianceCurve:
    """Group pixels by their signal, and return the mean signal and the variance of the noise in each group.

    All groups are of equal size; few pixels are one group, and none are no group.
    :meth:`NoiseStatistics.variance_by_signal` needs less memory, but its groups are only nearly equal, and it cannot
    use the median.

    Parameters
    ----------
    noise, signal
        The noise of each pixel and the signal below it, (pixels,).
    variance
        The variance of the noise in a group, ``numpy.var`` or :func:`robust_variance`; or what else is asked of it.

    Returns
    -------
    tuple of numpy.ndarray
        Mean signal and variance of each group, in order of increasing signal.
    """
    number = SIGNAL_GROUPS if len(signal) >= SIGNAL_GROUPS else 1
    groups = np.array_split(np.argsort(signal, kind="stable"), number) if len(signal) else []
    return np.array([signal[g].mean() for g in groups]), np.array([variance(noise[g]) for g in groups])


def unbiased(noise: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """Subtract what noise is on average at each signal, where it is not 0: beside values that are clipped, for example.

    This mean follows the structures of the image, so that it would seem to be noise that is correlated along all axes.

    Parameters
    ----------
    noise, signal
        The noise of each pixel and the signal below it, (pixels,).

    Returns
    -------
    numpy.ndarray
        The noise, (pixels,). The mean is that of groups of equal size, and a straight line between them.
    """
    return noise - np.interp(signal, *variance_by_signal(noise, signal, np.mean)) if len(noise) else noise


def variance_slope(signal: np.ndarray, variance: np.ndarray, limits: Sequence[float] | None = None) -> float:
    """Return the slope of the straight line through variance against signal.

    Parameters
    ----------
    signal, variance
        The values of each group of pixels.
    limits
        Smallest and largest value of the noisy images. Groups within two standard deviations of them are left out,
        because saturation reduces their variance. None: no value is saturated.

    Returns
    -------
    float
        In grey values. NaN if fewer than three groups are left, or all have the same signal.
    """
    if limits is not None:
        # Saturation reduces the variance of the last groups, so the largest of those before counts.
        down, up = 2 * np.sqrt(variance), 2 * np.sqrt(np.maximum.accumulate(variance))
        unsaturated = (signal - down > limits[0]) & (signal + up < limits[1])
        signal, variance = signal[unsaturated], variance[unsaturated]
    if len(signal) < MIN_GROUPS_FOR_SLOPE or np.ptp(signal) == 0:
        return float("nan")
    return float(np.polyfit(signal, variance, 1)[0])


class NoiseStatistics:
    """Statistics of the noise of any number of images, in constant memory.

    Pixels are counted in fine bins of their signal.

    Parameters
    ----------
    mean, std
        The mean and standard deviation of each channel of the images, (C,), in their units.
    """

    def __init__(self, mean: np.ndarray | Sequence[float], std: np.ndarray | Sequence[float]):
        self.mean, self.std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        self.channels = len(self.mean)
        # For each fine bin of each channel: number of pixels, sums of their signal, noise, and squared noise.
        self.sums = np.zeros((4, self.channels, FINE_BINS))
        self._correlations: list[Curves] = []

    def update(self, noise: np.ndarray, signal: np.ndarray) -> None:
        """Add one image.

        Parameters
        ----------
        noise
            The noise of the image, (C, ...), in the units of the images.
        signal
            The signal below the noise, of the same shape and in the same units.
        """
        self._correlations.append(autocorrelation(noise, MAX_LAG))
        for channel, (n, s) in enumerate(zip(noise.astype(np.float64), signal.astype(np.float64), strict=True)):
            place = (s - self.mean[channel]) / (MAX_DEVIATIONS * self.std[channel])  # -1 to 1
            bins = np.clip((place + 1) / 2 * FINE_BINS, 0, FINE_BINS - 1).astype(int).ravel()
            for row, weights in enumerate((None, s, n, n**2)):
                values = None if weights is None else weights.ravel()
                self.sums[row, channel] += np.bincount(bins, values, minlength=FINE_BINS)

    def autocorrelation(self) -> Curves:
        """Return the autocorrelation of the noise along each axis, averaged over images.

        Returns
        -------
        dict
            By axis, the autocorrelation at each lag; 1 at lag 0.
        """
        return average_curves(self._correlations)

    def variance_by_signal(self, channel: int) -> VarianceCurve:
        """Return the mean signal and the variance of the noise in each group of pixels; empty groups are left out.

        Parameters
        ----------
        channel
            Number of the channel.

        Returns
        -------
        tuple of numpy.ndarray
            Mean signal and variance of each group, in order of increasing signal.
        """
        counts = self.sums[0, channel]
        middle = (np.cumsum(counts) - counts / 2) / counts.sum()
        group = np.minimum((middle * SIGNAL_GROUPS).astype(int), SIGNAL_GROUPS - 1)
        grouped = np.array([np.bincount(group, row, minlength=SIGNAL_GROUPS) for row in self.sums[:, channel]])
        number, signal, noise, squares = grouped[:, grouped[0] > 1]
        return signal / number, squares / number - (noise / number) ** 2


class NoiseComparison:
    """Real noise and generated noise on the same content.

    Parameters
    ----------
    mean, std
        The mean and standard deviation of each channel of the images, (C,), in their units.
    """

    def __init__(self, mean: np.ndarray, std: np.ndarray):
        self.real, self.generated = NoiseStatistics(mean, std), NoiseStatistics(mean, std)

    def update(self, noisy: np.ndarray, generated: np.ndarray, content: np.ndarray, target: Target | None) -> None:
        """Add one image.

        Parameters
        ----------
        noisy, generated
            The real and the generated image, (C, ...).
        content
            The clean image that the model found in the real one, from which the other was generated, (C, ...).
        target
            How the clean image lies on the real one: the real noise is the noisy image minus the clean one. If None, it
            is the noisy image minus the content.
        """
        if target is None:
            region: tuple[slice, ...] = (slice(None),)
            self.real.update(noisy - content, content)
        else:
            region, noise = (slice(None), *target.region), target.noise()
            self.real.update(noise, target.noisy - noise)
        self.generated.update((generated - content)[region], content[region])

    def quantities(self) -> dict[str, tuple[float, float]]:
        """Return the statistics of the real and of the generated noise by name.

        The names are ``autocorrelation_{axis}_{lag}`` and ``variance_slope_channel_{channel}``.

        Returns
        -------
        dict
            Pairs of the real and the generated value.
        """
        quantities = {}
        real, generated = self.real.autocorrelation(), self.generated.autocorrelation()
        for axis in real:
            for lag, pair in enumerate(zip(real[axis], generated[axis], strict=True)):
                if lag > 0:
                    quantities[f"autocorrelation_{axis}_{lag}"] = pair
        for channel in range(self.real.channels):
            real_slope, generated_slope = (
                variance_slope(*noise.variance_by_signal(channel)) for noise in (self.real, self.generated)
            )
            quantities[f"variance_slope_channel_{channel}"] = (real_slope, generated_slope)
        return quantities
