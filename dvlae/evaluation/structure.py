"""What a PSNR does not show: how fine the details are that an estimate keeps, and whether some were taken for noise."""

import numpy as np
from scipy import fft, ndimage

# A band of frequencies holds at least this many waves along the shortest axis.
MIN_WAVES_OF_BAND = 2
MAX_BANDS = 32
# Cycles per pixel; finer details cannot be recorded.
HIGHEST_FREQUENCY = 0.5
# The power of a detail that counts as kept.
KEPT_POWER = 0.5
# In pixels. What a Gaussian of this width removes from a clean image is its details.
DETAIL_SIGMA = 2.0


def band_power(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the power that two images share, averaged over all directions, in bands of equal width up to 0.5 / px.

    Parameters
    ----------
    one, other
        (C, X), (C, Y, X) or (C, Z, Y, X). They fade towards the borders, and volumes are taken plane by plane. The same
        image twice gives its power.

    Returns
    -------
    numpy.ndarray
        The real part of the cross spectrum, relative to that of white noise of variance 1; empty for images of fewer
        than eight pixels along x or y.
    """
    axes = tuple(range(-min(2, one.ndim - 1), 0))
    sides = [one.shape[axis] for axis in axes]
    bands = min(MAX_BANDS, min(sides) // (2 * MIN_WAVES_OF_BAND))
    if bands < MIN_WAVES_OF_BAND:
        return np.empty(0)
    spectra = [_spectrum(image, axes) for image in ((one,) if one is other else (one, other))]
    power = np.real(spectra[0] * np.conj(spectra[-1])).reshape(-1, *spectra[0].shape[-len(axes) :]).mean(axis=0)
    squares = [fft.fftfreq(side)[:length] ** 2 for side, length in zip(sides, power.shape, strict=True)]
    frequency = np.sqrt(sum(np.meshgrid(*squares, indexing="ij")))
    band = (frequency / HIGHEST_FREQUENCY * bands).astype(int).ravel()
    sums, numbers = (np.bincount(band, weights, minlength=bands)[:bands] for weights in (power.ravel(), None))
    return sums / numbers


def _spectrum(image: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return the Fourier transform along some axes, of white noise of variance 1 with mean square 1."""
    faded = image - image.mean(axis=axes, keepdims=True, dtype=np.float64)
    for axis in axes:
        window = np.hanning(image.shape[axis] + 2)[1:-1]
        window /= np.sqrt(np.sum(window**2))
        faded = faded * np.expand_dims(window, tuple(range(1, -axis)))
    return fft.rfftn(faded, axes=axes)


def band_centres(bands: int) -> np.ndarray:
    """Return the frequencies in the middle of the bands of :func:`band_power`.

    Parameters
    ----------
    bands
        Number of bands.

    Returns
    -------
    numpy.ndarray
        In cycles per pixel.
    """
    return (np.arange(bands) + 0.5) * HIGHEST_FREQUENCY / bands


def kept_power(estimate: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Return which part of the power of a clean image an estimate keeps, in the bands of :func:`band_power`.

    Noise in the estimate adds nothing to it, as it shares nothing with the clean image.

    Parameters
    ----------
    estimate, clean
        Images of equal shape. Their exposures may differ: the first band counts as kept.

    Returns
    -------
    numpy.ndarray
        The square of the amplitude that is kept; 0 if the estimate keeps nothing in the first band.
    """
    shared, power = band_power(estimate, clean), band_power(clean, clean)
    amplitude = np.divide(np.maximum(shared, 0), power, out=np.zeros_like(power), where=power > 0)
    return (amplitude / amplitude[0]) ** 2 if len(amplitude) and amplitude[0] > 0 else np.zeros_like(amplitude)


def kept_band(estimate: np.ndarray, clean: np.ndarray) -> float:
    """Return the frequency up to which an estimate keeps at least half of the power of the clean image.

    Parameters
    ----------
    estimate, clean
        Images of equal shape, as for :func:`kept_power`.

    Returns
    -------
    float
        In cycles per pixel, at most 0.5, where all is kept; details of half its inverse, in pixels, are still there.
        NaN for images that are too small or clean images that are constant.
    """
    kept = kept_power(estimate, clean)
    if not len(kept) or np.ptp(clean) == 0:
        return float("nan")
    lost = np.flatnonzero(kept < KEPT_POWER)
    if not len(lost):
        return HIGHEST_FREQUENCY
    if lost[0] == 0:
        return 0.0
    last, first = lost[0] - 1, lost[0]
    fraction = (kept[last] - KEPT_POWER) / (kept[last] - kept[first])
    return float(np.interp(last + fraction, np.arange(len(kept)), band_centres(len(kept))))


def removed_details(residual: np.ndarray, clean: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Return the correlation of what was removed with the details of the clean image.

    Parameters
    ----------
    residual
        The noisy image minus the estimate, (C, ...).
    clean
        The clean image, of the same shape.
    mask
        True where a pixel counts, with the spatial axes of the images; None: everywhere.

    Returns
    -------
    float
        0 if only noise was removed, 1 if only details. Below 0, details are stronger than they should be. NaN if
        nothing was removed, or there are no details.
    """
    details = clean - ndimage.gaussian_filter(clean.astype(np.float64), DETAIL_SIGMA, axes=range(1, clean.ndim))
    counts = ... if mask is None else mask
    pair = [image[:, counts].reshape(len(image), -1).astype(np.float64) for image in (residual, details)]
    removed, details = (values - values.mean(axis=1, keepdims=True) for values in pair)
    scale = np.sqrt(np.sum(removed**2) * np.sum(details**2))
    return float(np.sum(removed * details) / scale) if scale > 0 else float("nan")
