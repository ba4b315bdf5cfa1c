"""Which of several denoisers makes the smaller squared error, without clean images.

Let x = s + n be the noisy image, and D(x) the estimate of the signal s. Then

    E (D(x) - s)^2 = E (D(x) - x)^2 + 2 E [n D(x)] - E n^2

The last term is the same for all denoisers. For Gaussian noise with covariance S, Stein's identity gives the one before
it [1]_, and a second noise z of the same kind its value [2]_:

    E [n D(x)] = E trace(S dD/dx) = E [z (D(x + e z) - D(x - e z))] / 2e

No model's own noise enters, as it would prefer its own denoiser. S is measured in the noisy images
(:mod:`dvlae.evaluation.noise_samples`): the correlation along the noise direction, and the variance by signal.

References
----------
.. [1] Stein: Estimation of the mean of a multivariate normal distribution, The Annals of Statistics 9 (1981) 1135.
.. [2] Ramani, Blu, Unser: Monte-Carlo SURE, IEEE Transactions on Image Processing 17 (2008) 1540.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dvlae.axes import AXES
from dvlae.evaluation.diagnosis import NEGLIGIBLE_CORRELATION, variance_curve
from dvlae.evaluation.noise_samples import NoiseSample
from dvlae.evaluation.noise_statistics import VarianceCurve

# Of the second noise, relative to the noise of the image: a derivative asks for little, and rounding for more.
STEP = 0.1
# A correlation is measured at lags up to this one.
MAX_LAG = 20
# Second noises of each image.
DRAWS = 2

Denoise = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class MeasuredNoise:
    """The noise of a dataset.

    Attributes
    ----------
    direction
        The axis along which it is correlated, or ``none``.
    lags
        For each channel, its correlation along this axis from lag 0.
    curves
        For each channel, the variance of the noise by the signal.
    """

    direction: str
    lags: Sequence[np.ndarray]
    curves: Sequence[VarianceCurve]

    @classmethod
    def of(cls, samples: Sequence[Sequence[NoiseSample]], direction: str) -> "MeasuredNoise | None":
        """Join what was measured in some images.

        Parameters
        ----------
        samples
            For each image, a sample of each channel.
        direction
            ``x``, ``y``, ``z`` or ``none``.

        Returns
        -------
        MeasuredNoise or None
            The noise; None if that of a channel cannot be told from its signal.
        """
        axis = "x" if direction == "none" else direction
        lags, curves = [], []
        for channel in zip(*samples, strict=True):
            if not any(np.isfinite(one.noise[axis]).any() for one in channel if axis in one.noise):
                return None
            measured = [one.correlation[axis] for one in channel if axis in one.correlation]
            correlation = np.ones(1) if direction == "none" else _significant(measured)
            if len(correlation) == 0:
                return None
            lags.append(correlation)
            curves.append(variance_curve(channel, axis))
        return cls(direction, lags, curves)

    def draw(self, signal: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Draw Gaussian noise.

        Parameters
        ----------
        signal
            The signal that it is the noise of, (C, ...), in grey values.
        generator
            The source of random numbers.

        Returns
        -------
        numpy.ndarray
            The noise, of the same shape.
        """
        noise = generator.standard_normal(signal.shape)
        for channel, (lags, (levels, variances)) in enumerate(zip(self.lags, self.curves, strict=True)):
            if self.direction != "none":
                axis = AXES[self.direction]
                noise[channel] = _correlated(noise[channel], lags, axis)
            noise[channel] *= np.sqrt(np.interp(signal[channel], levels, variances))
        return noise


def _significant(measured: Sequence[np.ndarray]) -> np.ndarray:
    """Return the median correlation up to the lag before it is first negligible or unknown."""
    length = min(MAX_LAG + 1, *(len(lags) for lags in measured))
    each = np.array([lags[:length] for lags in measured])
    known = np.isfinite(each).any(axis=0)
    lags = np.nanmedian(each[:, : length if known.all() else known.argmin()], axis=0)
    small = np.flatnonzero(~(np.abs(lags) >= NEGLIGIBLE_CORRELATION))
    return lags[: small[0]] if len(small) else lags


def _correlated(white: np.ndarray, lags: np.ndarray, axis: int) -> np.ndarray:
    """Filter white noise so that it has this correlation along an axis."""
    ring = np.concatenate([lags, np.zeros(6 * len(lags) - 3), lags[:0:-1]])
    # What was measured need not be a correlation: its spectrum can be negative.
    kernel = np.fft.irfft(np.sqrt(np.clip(np.fft.rfft(ring).real, 0, None)), len(ring))
    kernel = np.fft.fftshift(kernel / np.linalg.norm(kernel))
    return ndimage.convolve1d(white, kernel, axis=axis, mode="reflect")


def estimate_risks(noisy: np.ndarray, denoisers: Mapping[str, Denoise], noise: MeasuredNoise) -> dict[str, float]:
    """Estimate the squared errors of denoisers on one image, up to a number that is the same for all.

    Parameters
    ----------
    noisy
        The image, (C, ...).
    denoisers
        Functions that return the denoised image, (C, ...), by name. One that draws random numbers draws the same ones
        for each image.
    noise
        The noise of the image.

    Returns
    -------
    dict
        By name, in squared grey values.
    """
    estimates = {name: denoise(noisy) for name, denoise in denoisers.items()}
    signal = np.mean(list(estimates.values()), axis=0)
    # Squares of large grey values are too large for 32 bits.
    risks = {name: float(np.mean((estimate - noisy.astype(float)) ** 2)) for name, estimate in estimates.items()}
    generator = np.random.default_rng(0)
    for _ in range(DRAWS):
        drawn = noise.draw(signal, generator)
        more, less = ((noisy + sign * STEP * drawn).astype(np.float32) for sign in (1, -1))
        for name, denoise in denoisers.items():
            risks[name] += float(np.mean(drawn * (denoise(more) - denoise(less)))) / STEP / DRAWS
    return risks
