"""What noise looks like: how it is correlated along each axis, and how its variance depends on the signal.

Pixels are put into groups of equal size by their signal. The variance of the noise in each group, against the mean
signal there, is a straight line for shot noise; its slope is the variance per grey value of signal.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dvlae.evaluation.metrics import autocorrelation
from dvlae.evaluation.target import Target

MAX_LAG = 15  # pixels
SIGNAL_GROUPS = 16
# A straight line through fewer groups says little.
MIN_GROUPS_FOR_SLOPE = 3
# The groups of :class:`BinnedPixels` are put together from these bins.
FINE_BINS = 1200
# The fine bins reach this many standard deviations of the images from their mean.
MAX_DEVIATIONS = 6.0

Curves = dict[str, np.ndarray]  # by the axis


def correlate_neighbours(noise: np.ndarray) -> Curves:
    """Return the autocorrelation of noise (C, ...) along each axis, from lag 0 to :data:`MAX_LAG`.

    Parameters
    ----------
    noise
        Of one image, (C, ...).

    Returns
    -------
    dict
        By axis, the autocorrelation at each lag.
    """
    return autocorrelation(noise, MAX_LAG)


def average_curves(curves: Sequence[Mapping[str, np.ndarray]], average: Callable = np.mean) -> Curves:
    """Average curves along each axis, as far as the shortest reaches.

    Parameters
    ----------
    curves
        Of each image, by the axis.
    average
        ``numpy.mean`` or ``numpy.median``, by which one odd image changes little.

    Returns
    -------
    dict
        By axis, the average curve.
    """
    shortest = {axis: min(len(curve[axis]) for curve in curves) for axis in curves[0]}
    return {axis: average([curve[axis][:n] for curve in curves], axis=0) for axis, n in shortest.items()}


def robust_variance(noise: np.ndarray) -> float:
    """Return the variance of normal noise around 0 from the median of its absolute values, which few edges change.

    Parameters
    ----------
    noise
        Of any shape.

    Returns
    -------
    float
        In squared units of the noise.
    """
    # The median of the absolute values of normal noise is 0.6745 of its standard deviation.
    return float((np.median(np.abs(noise)) / 0.6745) ** 2)


def variance_slope(signal: np.ndarray, variance: np.ndarray, limits: Sequence[float] | None = None) -> float:
    """Return the slope of the straight line through variance against signal.

    Parameters
    ----------
    signal, variance
        Of groups of pixels.
    limits
        Smallest and largest value of the noisy images: groups that reach them within two standard deviations are left
        out, as saturation makes their variance smaller. None: no noise is cut off.

    Returns
    -------
    float
        In grey values; not a number where fewer than three groups are left, or all are of one grey.
    """
    if limits is not None:
        # The variance of the last groups shrinks where they are saturated.
        down, up = 2 * np.sqrt(variance), 2 * np.sqrt(np.maximum.accumulate(variance))
        whole = (signal - down > limits[0]) & (signal + up < limits[1])
        signal, variance = signal[whole], variance[whole]
    if len(signal) < MIN_GROUPS_FOR_SLOPE or np.ptp(signal) == 0:
        return float("nan")
    return float(np.polyfit(signal, variance, 1)[0])


class BinnedPixels:
    """Pixels of any number of images, counted in fine bins of their signal: memory does not grow with them.

    Parameters
    ----------
    mean, std
        Of each channel of the images, (C,), in their units.
    """

    def __init__(self, mean: np.ndarray | Sequence[float], std: np.ndarray | Sequence[float]):
        self.mean, self.std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        self.channels = len(self.mean)
        # Of each fine bin of each channel: number of pixels, sums of their signal, noise, and noise squared.
        self.sums = np.zeros((4, self.channels, FINE_BINS))

    def update(self, noise: np.ndarray, signal: np.ndarray) -> None:
        """Count the pixels of one image, each (C, ...).

        Parameters
        ----------
        noise
            Of one image, (C, ...), in the units of the images.
        signal
            The signal under it, of the same shape and in the same units.
        """
        for channel, (n, s) in enumerate(zip(noise.astype(np.float64), signal.astype(np.float64), strict=True)):
            place = (s - self.mean[channel]) / (MAX_DEVIATIONS * self.std[channel])  # -1 to 1
            bins = np.clip((place + 1) / 2 * FINE_BINS, 0, FINE_BINS - 1).astype(int).ravel()
            for row, weights in enumerate((None, s, n, n**2)):
                values = None if weights is None else weights.ravel()
                self.sums[row, channel] += np.bincount(bins, values, minlength=FINE_BINS)

    def variance_by_signal(self, channel: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean signal and the variance of the noise in each group; empty groups are left out.

        Parameters
        ----------
        channel
            Number of the channel.

        Returns
        -------
        tuple of numpy.ndarray
            Mean signal and variance of each group, by rising signal.
        """
        counts = self.sums[0, channel]
        middle = (np.cumsum(counts) - counts / 2) / counts.sum()
        group = np.minimum((middle * SIGNAL_GROUPS).astype(int), SIGNAL_GROUPS - 1)
        grouped = np.array([np.bincount(group, row, minlength=SIGNAL_GROUPS) for row in self.sums[:, channel]])
        number, signal, noise, squares = grouped[:, grouped[0] > 1]
        return signal / number, squares / number - (noise / number) ** 2


class KeptPixels:
    """All pixels of a few images: groups are of equal size to a pixel, and the variance can be any function of them.

    Parameters
    ----------
    variance
        Of the noise (pixels,) in a group: ``numpy.var`` or :func:`robust_variance`.
    """

    def __init__(self, variance: Callable[[np.ndarray], float] = np.var):
        self.variance = variance
        self._noise: list[np.ndarray] = []
        self._signal: list[np.ndarray] = []

    def update(self, noise: np.ndarray, signal: np.ndarray) -> None:
        """Keep the pixels of one image, each (C, ...).

        Parameters
        ----------
        noise
            Of one image, (C, ...), in the units of the images.
        signal
            The signal under it, of the same shape and in the same units.
        """
        self._noise.append(noise)
        self._signal.append(signal)

    def variance_by_signal(self, channel: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean signal and the variance of the noise in each group.

        Parameters
        ----------
        channel
            Number of the channel.

        Returns
        -------
        tuple of numpy.ndarray
            Mean signal and variance of each group, by rising signal.
        """
        signal = np.concatenate([image[channel].ravel() for image in self._signal])
        noise = np.concatenate([image[channel].ravel() for image in self._noise])
        groups = np.array_split(np.argsort(signal, kind="stable"), SIGNAL_GROUPS)
        return np.array([signal[g].mean() for g in groups]), np.array([self.variance(noise[g]) for g in groups])


class NoiseStatistics:
    """Statistics of the noise of a number of images.

    Parameters
    ----------
    pixels
        What groups the pixels by their signal.
    correlate
        Returns the autocorrelation of the noise (C, ...) of one image along each axis, from lag 0.
    average
        Of the autocorrelations of the images: ``numpy.mean`` or ``numpy.median``.
    """

    def __init__(
        self,
        pixels: BinnedPixels | KeptPixels,
        *,
        correlate: Callable[[np.ndarray], Curves] = correlate_neighbours,
        average: Callable = np.mean,
    ):
        self.pixels, self.correlate, self.average = pixels, correlate, average
        self._correlations: list[Curves] = []

    def update(self, noise: np.ndarray, signal: np.ndarray) -> None:
        """Take the noise of one image, and the signal under it, each (C, ...) in the units of the images.

        Parameters
        ----------
        noise
            Of one image, (C, ...), in the units of the images.
        signal
            The signal under it, of the same shape and in the same units.
        """
        self._correlations.append(self.correlate(noise))
        self.pixels.update(noise, signal)

    def autocorrelation(self) -> Curves:
        """Return the average over images of the noise's autocorrelation along each axis, from lag 0, 1 there.

        Returns
        -------
        dict
            By axis, the autocorrelation at each lag.
        """
        return average_curves(self._correlations, self.average)

    def variance_by_signal(self, channel: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean signal and the variance of the noise in each group of pixels of equal signal.

        Parameters
        ----------
        channel
            Number of the channel.

        Returns
        -------
        tuple of numpy.ndarray
            Mean signal and variance of each group, by rising signal.
        """
        return self.pixels.variance_by_signal(channel)

    def variance_slope(self, channel: int, limits: Sequence[float] | None = None) -> float:
        """Return the slope of the variance in a channel as :func:`variance_slope` does.

        Parameters
        ----------
        channel
            Number of the channel.
        limits
            Smallest and largest value of the noisy images; None: no noise is cut off.

        Returns
        -------
        float
            In the units of the images.
        """
        return variance_slope(*self.variance_by_signal(channel), limits)


class NoiseComparison:
    """Real noise beside generated noise on the same content.

    Parameters
    ----------
    mean, std
        Of each channel of the images, (C,), in their units.
    """

    def __init__(self, mean: np.ndarray, std: np.ndarray):
        self.channels = len(mean)
        self.real, self.generated = (NoiseStatistics(BinnedPixels(mean, std)) for _ in range(2))

    def update(self, noisy: np.ndarray, generated: np.ndarray, content: np.ndarray, target: Target | None) -> None:
        """Take one image.

        Parameters
        ----------
        noisy, generated
            The real and the generated image, (C, ...).
        content
            The clean image that the model found in the real one, from which the other was generated, (C, ...).
        target
            How the clean image of the real one lies on it: real noise is noisy less clean. None: it is noisy less
            content.
        """
        if target is None:
            region: tuple[slice, ...] = (slice(None),)
            self.real.update(noisy - content, content)
        else:
            region, noise = (slice(None), *target.region), target.noise()
            self.real.update(noise, target.noisy - noise)
        self.generated.update((generated - content)[region], content[region])

    def quantities(self) -> dict[str, tuple[float, float]]:
        """Return numbers of the real and of the generated noise by name.

        The names are ``autocorrelation_{axis}_{lag}`` and ``variance_slope_channel_{channel}``.

        Returns
        -------
        dict
            Pairs of the real and the generated number.
        """
        quantities = {}
        real, generated = self.real.autocorrelation(), self.generated.autocorrelation()
        for axis in real:
            for lag, pair in enumerate(zip(real[axis], generated[axis], strict=True)):
                if lag > 0:
                    quantities[f"autocorrelation_{axis}_{lag}"] = pair
        for channel in range(self.channels):
            name = f"variance_slope_channel_{channel}"
            quantities[name] = (self.real.variance_slope(channel), self.generated.variance_slope(channel))
        return quantities
