"""Measures of an estimate, of the drift between images, and of noise."""

from functools import reduce

import numpy as np
from scipy import ndimage
from scipy.signal.windows import tukey
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.registration import phase_cross_correlation

from dvlae.axes import AXES

# Images fade towards their borders before registration, each side by half of this fraction of the axis.
TAPERED_FRACTION = 0.2
SHIFT_RESOLUTION = 0.01  # pixels
MAX_CORRECTIONS = 5
# In pixels. The window is a Gaussian with sigma 1.5, cut at 3.5 sigma, as in Wang et al. (2004).
SSIM_WINDOW = 11
# In pixels. At the coarsest of five scales, of 1/16 of the size, the window must be smaller than the image.
MIN_MS_SSIM_SIDE = 16 * SSIM_WINDOW
# From the finest to the coarsest scale, as in Wang et al. (2003).
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def psnr(image_true: np.ndarray, image_test: np.ndarray, *, data_range: float) -> float:
    """Return the peak signal-to-noise ratio in decibels.

    Parameters
    ----------
    image_true, image_test
        Images of equal shape. The error is averaged over all values, including channels.
    data_range
        The peak value, in the units of the images.

    Returns
    -------
    float
        ``inf`` if both images are equal.

    Examples
    --------
    An error of a tenth of the range everywhere is 20 dB.

    >>> true = np.zeros((1, 4, 4))
    >>> psnr(true, true + 25.5, data_range=255)
    20.0
    """
    if np.array_equal(image_true, image_test):
        return float("inf")
    pair = (np.asarray(image, np.float64) for image in (image_true, image_test))
    return float(peak_signal_noise_ratio(*pair, data_range=data_range))


def ssim(image_true: np.ndarray, image_test: np.ndarray, *, data_range: float, mask: np.ndarray | None = None) -> float:
    """Return the structural similarity with Gaussian weights (sigma 1.5 px), averaged over pixels and channels.

    Volumes are compared plane by plane.

    Parameters
    ----------
    image_true, image_test
        (C, X), (C, Y, X) or (C, Z, Y, X).
    data_range
        The largest possible difference of values, in the units of the images.
    mask
        True where a pixel counts in the average, with the spatial axes of the images; None: everywhere.

    Returns
    -------
    float
        At most 1, for equal images; NaN if there are fewer than 11 pixels along x or y, as the weights need.

    References
    ----------
    Wang, Bovik, Sheikh, Simoncelli: Image quality assessment, IEEE Transactions on Image Processing 13 (2004).
    """
    if min(image_true.shape[1:][-2:]) < SSIM_WINDOW:
        return float("nan")
    planes = [np.asarray(image, np.float64).reshape(-1, *image.shape[1:][-2:]) for image in (image_true, image_test)]
    similarity, of_pixels = structural_similarity(
        *planes,
        data_range=data_range,
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return float(similarity if mask is None else of_pixels.reshape(image_true.shape)[:, mask].mean())


def si_psnr(image_true: np.ndarray, image_test: np.ndarray) -> float:
    """Return the scale-invariant PSNR (SI-PSNR) of CAREamics and of the AI4Life denoising challenge, in decibels.

    The means of both images are subtracted, and the test image is multiplied by the factor with the least squared
    error. The peak is the largest less the smallest value of the true image.

    Parameters
    ----------
    image_true, image_test
        (C, ...) of equal shape. Each channel has its own factor and peak.

    Returns
    -------
    float
        The mean over channels. NaN if a channel of an image is constant; ``inf`` without an error.

    References
    ----------
    Weigert et al.: Content-aware image restoration, Nature Methods 15 (2018).

    Examples
    --------
    Neither the scale nor the offset of an estimate counts.

    >>> true, error = np.array([[0.0, 0.0, 10.0, 10.0]]), np.array([[1.0, -1.0, 1.0, -1.0]])
    >>> [round(si_psnr(true, estimate), 2) for estimate in (true + error, 3 * (true + error) + 7)]
    [20.17, 20.17]
    """
    values = []
    for true, test in zip(image_true, image_test, strict=True):
        peak = float(true.max()) - float(true.min())
        true, test = (image - image.mean(dtype=np.float64) for image in (true, test))
        energy = np.sum(test**2)
        if peak == 0 or energy == 0:
            return float("nan")
        error = np.mean((true - np.sum(true * test) / energy * test) ** 2)
        values.append(10 * np.log10(peak**2 / error) if error > 0 else float("inf"))
    return float(np.mean(values))


def ms_ssim(image_true: np.ndarray, image_test: np.ndarray, *, data_range: float) -> float:
    """Return the multi-scale structural similarity, averaged over channels and the planes of volumes.

    Parameters
    ----------
    image_true, image_test
        (C, X), (C, Y, X) or (C, Z, Y, X).
    data_range
        The largest possible difference of values, in the units of the images.

    Returns
    -------
    float
        At most 1, for equal images; NaN for traces, and if there are fewer than 176 pixels along x or y.

    References
    ----------
    Wang, Simoncelli, Bovik: Multiscale structural similarity for image quality assessment, Asilomar Conference on
    Signals, Systems and Computers (2003).
    """
    if image_true.ndim < 3 or min(image_true.shape[-2:]) < MIN_MS_SSIM_SIDE:
        return float("nan")
    true, test = (np.asarray(image, np.float64).reshape(-1, *image.shape[-2:]) for image in (image_true, image_test))
    product = np.ones(len(true))
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        if scale > 0:
            true, test = (_halve(image) for image in (true, test))
        similarity, contrast = _similarity(true, test, data_range)
        coarsest = scale == len(MS_SSIM_WEIGHTS) - 1
        # Opposite structure counts as none: a negative number has no such power.
        product *= np.maximum(similarity if coarsest else contrast, 0) ** weight
    return float(product.mean())


def _halve(planes: np.ndarray) -> np.ndarray:
    """Average 2 x 2 pixels of planes, (N, Y, X)."""
    height, width = (side // 2 for side in planes.shape[1:])
    return planes[:, : 2 * height, : 2 * width].reshape(-1, height, 2, width, 2).mean(axis=(2, 4))


def _similarity(true: np.ndarray, test: np.ndarray, data_range: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the SSIM of planes (N, Y, X), and their similarity without that of brightness, where the window fits."""
    squares = (true, test, true**2, test**2, true * test)
    mean_true, mean_test, *moments = (
        ndimage.gaussian_filter(image, 1.5, radius=SSIM_WINDOW // 2, mode="mirror", axes=(1, 2)) for image in squares
    )
    variances = np.maximum(moments[0] - mean_true**2, 0) + np.maximum(moments[1] - mean_test**2, 0)
    common = moments[2] - mean_true * mean_test
    stabilisers = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    contrast = (2 * common + stabilisers[1]) / (variances + stabilisers[1])
    brightness = (2 * mean_true * mean_test + stabilisers[0]) / (mean_true**2 + mean_test**2 + stabilisers[0])
    inside = slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2))
    return (brightness * contrast).mean(axis=(1, 2)), contrast[:, inside, inside].mean(axis=(1, 2))


def find_shift(noisy: np.ndarray, clean: np.ndarray) -> tuple[float, ...]:
    """Find the drift between two images of one object, to about a hundredth of a pixel if the noise allows it.

    The drift is the position of the maximum of the plain cross-correlation. With phase normalisation, all frequencies
    have the same weight, and noise that is correlated along a row leads to errors of up to a pixel. The correlation is
    circular: content that enters at one side of the image is compared with content that leaves at the other. This
    biases the result towards 0, on real images by 0.1 to 0.3 px. Therefore the clean image is moved by the result, both
    images fade towards their borders, and the remaining drift is measured, until it is negligible.

    Parameters
    ----------
    noisy, clean
        (C, ...) with one to three spatial axes; their exposures may differ.

    Returns
    -------
    tuple of float
        The drift d along each spatial axis, for images (dy, dx), in pixels, with clean(i) = noisy(i - d). If
        :func:`shift_image` moves the clean image by -d, it lies on ``noisy``.

    Examples
    --------
    The spot of the clean image is one row below that of the noisy one, and three columns to its left.

    >>> clean, noisy = np.zeros((2, 1, 32, 40))
    >>> noisy[0, 10, 20] = 1
    >>> clean[0, 11, 17] = 1
    >>> find_shift(noisy, clean)
    (1.0, -3.0)
    """
    clean, noisy = clean.mean(axis=0, keepdims=True), noisy.mean(axis=0, keepdims=True)
    drift = _cross_correlate(noisy, clean, np.ones(noisy.shape[1:]))
    # The window is nowhere 0.
    fading = reduce(np.multiply.outer, (tukey(length + 2, TAPERED_FRACTION)[1:-1] for length in noisy.shape[1:]))
    for _ in range(MAX_CORRECTIONS):
        correction = _cross_correlate(noisy, shift_image(clean, tuple(-drift)), fading)
        drift += correction
        if np.abs(correction).max() <= SHIFT_RESOLUTION:
            break
    return tuple(float(d) for d in drift)


def _cross_correlate(noisy: np.ndarray, clean: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Return the position of the maximum of the circular cross-correlation of two images, (1, ...), times a window."""
    # Without their means, because the borders would otherwise outweigh the content.
    faded = [window * (image[0] - np.average(image[0], weights=window)) for image in (clean, noisy)]
    shift, *_ = phase_cross_correlation(*faded, normalization=None, upsample_factor=round(1 / SHIFT_RESOLUTION))
    return shift


def shift_image(image: np.ndarray, shift: tuple[float, ...]) -> np.ndarray:
    """Move an image by a fraction of a pixel with cubic splines. Border pixels are repeated.

    Parameters
    ----------
    image
        (C, ...) with one to three spatial axes.
    shift
        The shift d along each spatial axis, in pixels: the value at i moves to i + d.

    Returns
    -------
    numpy.ndarray
        The moved image, float32.
    """
    # Channel by channel: with the channels as another axis it takes ten times as long.
    return np.stack([ndimage.shift(channel.astype(np.float32), shift, order=3, mode="nearest") for channel in image])


def fit_affine(estimate: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Find a and b that minimise the sum of (a * estimate + b - target)^2.

    Parameters
    ----------
    estimate, target
        Images of equal shape.

    Returns
    -------
    tuple of float
        (a, b); a is 0 if the estimate is constant.
    """
    estimate, target = estimate.astype(np.float64), target.astype(np.float64)
    centred = estimate - estimate.mean()
    variance = np.mean(centred**2)
    a = float(np.mean(centred * target) / variance) if variance > 0 else 0.0
    return a, float(target.mean() - a * estimate.mean())


def autocorrelation(image: np.ndarray, max_lag: int) -> dict[str, np.ndarray]:
    """Return the normalised autocorrelation of an image of noise along every spatial axis.

    Parameters
    ----------
    image
        (C, ...) with one to three spatial axes. The mean of each channel is subtracted.
    max_lag
        Largest lag, in pixels. It is limited to half an axis, because there are few pairs at larger distances.

    Returns
    -------
    dict of numpy.ndarray
        For each axis ``"x"``, ``"y"``, ``"z"`` of the image, the correlation at lags 0 to ``max_lag``; 1 at lag 0.

    Examples
    --------
    Stripes along the rows, one pixel wide, are equal along x and alternate along y.

    >>> stripes = np.tile([[1.0], [-1.0]], (4, 8))[np.newaxis]
    >>> {axis: lags.tolist() for axis, lags in autocorrelation(stripes, max_lag=2).items()}
    {'x': [1.0, 1.0, 1.0], 'y': [1.0, -1.0, 1.0]}
    """
    spatial = tuple(range(1, image.ndim))
    centred = image - image.mean(axis=spatial, keepdims=True, dtype=np.float64)
    variance = np.mean(centred**2)
    result = {}
    for name in list(AXES)[: len(spatial)]:
        lines = np.moveaxis(centred, AXES[name], -1)
        length = lines.shape[-1]
        lags = range(min(max_lag, length // 2) + 1)
        products = [np.mean(lines[..., : length - lag] * lines[..., lag:]) for lag in lags]
        result[name] = np.array(products) / (variance if variance > 0 else 1.0)
    return result
