"""The power spectrum of noise, by way of its autocovariance, which does not depend on the size of an image."""

import numpy as np
from scipy import fft

# At lags at which fewer than this part of the pixels have a partner, the autocovariance is not known.
MIN_PAIRS = 0.25


def autocovariance(noise: np.ndarray, counts: np.ndarray, max_lag: int) -> np.ndarray:
    """Return the autocovariance of noise in a plane, or in several.

    Parameters
    ----------
    noise
        (..., Y, X). The mean of the pixels that count is subtracted.
    counts
        Which of them count, bool, of the same shape.
    max_lag
        Largest lag along each axis, in pixels.

    Returns
    -------
    numpy.ndarray
        By lags along y and x, both from the most negative to the largest, so the middle is the variance. 0 at lags that
        few pairs of pixels have.
    """
    number = max(1, int(counts.sum()))
    centred = np.where(counts, noise - noise.sum(where=counts, dtype=np.float64) / number, 0.0)
    products, pairs = (_correlate(values, max_lag) for values in (centred, counts.astype(np.float64)))
    return np.where(pairs > MIN_PAIRS * number, products / np.maximum(pairs, 1.0), 0.0)


def _correlate(values: np.ndarray, max_lag: int) -> np.ndarray:
    """Sum the products of all pairs of pixels at each lag."""
    # Zeros keep the ends of an axis from meeting.
    sides = [fft.next_fast_len(side + max_lag, real=True) for side in values.shape[-2:]]
    power = np.abs(fft.rfft2(values, sides)) ** 2
    products = fft.irfft2(power.reshape(-1, *power.shape[-2:]).sum(axis=0), sides)
    lags = np.arange(-max_lag, max_lag + 1)
    return products[np.ix_(lags, lags)]


def variance(covariance: np.ndarray) -> float:
    """Return the variance of noise.

    Parameters
    ----------
    covariance
        As :func:`autocovariance` returns it.

    Returns
    -------
    float
        Its value at lag 0.
    """
    y, x = (length // 2 for length in covariance.shape)
    return float(covariance[y, x])


def spectrum(covariance: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the power spectrum that noise has in an image.

    Parameters
    ----------
    covariance
        As :func:`autocovariance` returns it. Lags of half an image and more are left out.
    shape
        Sides of the image, y and x.

    Returns
    -------
    numpy.ndarray
        The expected squared modulus of the discrete Fourier transform of the noise, of that shape. Its mean is the
        variance times the number of pixels. Where the spectrum of an estimated covariance is negative, it is 0.
    """
    placed = np.zeros(shape)
    lags = [
        np.arange(-reach, reach + 1)
        for reach in (min(length, side - 1) // 2 for length, side in zip(covariance.shape, shape, strict=True))
    ]
    inner = [along + length // 2 for along, length in zip(lags, covariance.shape, strict=True)]
    placed[np.ix_(*lags)] = covariance[np.ix_(*inner)]
    power = np.maximum(fft.fft2(placed).real, 0.0)
    return power * (placed.size * variance(covariance) / power.mean())
