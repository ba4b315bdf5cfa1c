"""How close an estimate is to the clean image, and what the noise looks like."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.registration import phase_cross_correlation

from dvlae.errors import UserError

if TYPE_CHECKING:
    from dvlae.config import EvaluationSettings

SSIM_WINDOW = 11  # pixels: a Gaussian of sigma 1.5, cut at 3.5 sigma, as Wang et al. 2004


def psnr(image_true: np.ndarray, image_test: np.ndarray, *, data_range: float) -> float:
    """Return the peak signal-to-noise ratio in decibel.

    Parameters
    ----------
    image_true, image_test
        Of equal shape; the error is averaged over all values, channels included.
    data_range
        The peak: what the decibels refer to, in the units of the images.

    Returns
    -------
    float
        ``inf`` where both images are equal.
    """
    if np.array_equal(image_true, image_test):
        return float("inf")
    pair = (np.asarray(image, np.float64) for image in (image_true, image_test))
    return float(peak_signal_noise_ratio(*pair, data_range=data_range))


def ssim(image_true: np.ndarray, image_test: np.ndarray, *, data_range: float) -> float:
    """Return the structural similarity with Gaussian weights (sigma 1.5 px), averaged over pixels and channels.

    Parameters
    ----------
    image_true, image_test
        (C, Y, X), at least 11 x 11 pixels.
    data_range
        Largest difference of values, in the units of the images.

    References
    ----------
    Wang, Bovik, Sheikh, Simoncelli: Image quality assessment, IEEE Transactions on Image Processing 13 (2004).
    """
    return float(
        structural_similarity(
            np.asarray(image_true, np.float64),
            np.asarray(image_test, np.float64),
            data_range=data_range,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def find_shift(noisy: np.ndarray, clean: np.ndarray) -> tuple[float, float]:
    """Find the drift between two images of one object, in steps of a fiftieth of a pixel.

    It is the place of the maximum of the plain cross-correlation. The phase-normalised kind weighs all frequencies
    alike, and with noise that is correlated along a row it misses by up to a pixel. The correlation is circular: what
    drifted out at one side pulls the result a little towards 0.

    Parameters
    ----------
    noisy, clean
        (C, Y, X); their exposures may differ.

    Returns
    -------
    tuple of float
        (dy, dx) in pixels, with clean(i) = noisy(i - d): ``shift_image(clean, (-dy, -dx))`` lies on ``noisy``.
    """
    # The mean over the channels, less its own mean: else the images' borders would outweigh what is in them.
    clean_grey, noisy_grey = (image.mean(axis=0) - image.mean() for image in (clean, noisy))
    shift, *_ = phase_cross_correlation(clean_grey, noisy_grey, normalization=None, upsample_factor=50)
    return float(shift[0]), float(shift[1])


def shift_image(image: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    """Move an image by a part of a pixel, by cubic splines; its border pixels are repeated.

    Parameters
    ----------
    image
        (C, Y, X).
    shift
        (dy, dx) in pixels: what was at i comes to i + d.

    Returns
    -------
    numpy.ndarray
        (C, Y, X), float32.
    """
    return ndimage.shift(image.astype(np.float32), (0, *shift), order=3, mode="nearest")


def fit_affine(estimate: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Find a and b that minimise the sum of (a * estimate + b - target)^2.

    Parameters
    ----------
    estimate, target
        Of equal shape.

    Returns
    -------
    tuple of float
        (a, b); a is 0 where the estimate is constant.
    """
    estimate, target = estimate.astype(np.float64), target.astype(np.float64)
    centred = estimate - estimate.mean()
    variance = np.mean(centred**2)
    a = float(np.mean(centred * target) / variance) if variance > 0 else 0.0
    return a, float(target.mean() - a * estimate.mean())


def autocorrelation(image: np.ndarray, max_lag: int) -> dict[str, np.ndarray]:
    """Return the normalised autocorrelation of an image (of noise) along both axes.

    Parameters
    ----------
    image
        (C, Y, X). The mean of each channel is taken off.
    max_lag
        Largest lag, in pixels; less than either side of the image.

    Returns
    -------
    dict of numpy.ndarray
        ``"x"`` and ``"y"``: correlation at lags 0 to ``max_lag``, 1 at lag 0.
    """
    centred = image - image.mean(axis=(1, 2), keepdims=True, dtype=np.float64)  # (C, Y, X)
    variance = np.mean(centred**2)
    result = {}
    for name, axis in (("x", 2), ("y", 1)):
        lines = np.moveaxis(centred, axis, -1)
        length = lines.shape[-1]
        products = [np.mean(lines[..., : length - lag] * lines[..., lag:]) for lag in range(max_lag + 1)]
        result[name] = np.array(products) / (variance if variance > 0 else 1.0)
    return result


@dataclass(frozen=True)
class Target:
    """What every method's estimate of one image is compared to.

    Built once an image from the noisy and the clean image alone, so that all methods meet the same target.

    Attributes
    ----------
    clean
        (C, Y, X), registered, fitted and cut to the region.
    noisy
        (C, Y, X), cut to the region.
    region
        The rows and columns of the whole image that count.
    data_range
        In the units of ``clean``.
    fit_estimate
        Whether gain and offset of an estimate are fitted to ``clean`` first.
    """

    clean: np.ndarray
    noisy: np.ndarray
    region: tuple[slice, slice]
    data_range: float
    fit_estimate: bool

    @classmethod
    def build(cls, noisy: np.ndarray, clean: np.ndarray, settings: "EvaluationSettings") -> "Target":
        """Register, cut and fit the clean image.

        Parameters
        ----------
        noisy, clean
            (C, Y, X), whole images.
        settings
            How the dataset is evaluated.

        Raises
        ------
        UserError
            Where crop and border leave less than 11 x 11 pixels, or the clean image is constant there.
        """
        if settings.register:
            dy, dx = find_shift(noisy, clean)
            clean = shift_image(clean, (-dy, -dx))
        region = find_region(noisy.shape[1:], settings)
        clean, noisy = clean[:, *region], noisy[:, *region]
        if settings.fit == "clean_to_noisy":
            a, b = fit_affine(clean, noisy)
            clean = a * clean + b
        data_range = settings.data_range
        if data_range == "auto":
            data_range = float(clean.max() - clean.min())
            if data_range == 0:
                raise UserError(
                    "evaluation.data_range: found 'auto', but the clean image is constant where it is evaluated"
                )
        return cls(clean, noisy, region, float(data_range), settings.fit == "estimate_to_clean")

    def prepare(self, estimate: np.ndarray) -> np.ndarray:
        """Cut a whole estimate (C, Y, X) to the region and, where the dataset asks for it, fit it to ``clean``."""
        a, b = self.gain_and_offset(estimate)
        return a * estimate[:, *self.region] + b

    def gain_and_offset(self, estimate: np.ndarray) -> tuple[float, float]:
        """Return what turns the units of a whole estimate (C, Y, X) into those of ``clean``; (1, 0) without a fit."""
        return fit_affine(estimate[:, *self.region], self.clean) if self.fit_estimate else (1.0, 0.0)

    def score(self, estimate: np.ndarray) -> tuple[float, float]:
        """Return PSNR in decibel and SSIM of a whole estimate (C, Y, X)."""
        prepared = self.prepare(estimate)
        return (
            psnr(self.clean, prepared, data_range=self.data_range),
            ssim(self.clean, prepared, data_range=self.data_range),
        )

    def noise(self) -> np.ndarray:
        """Return the noise in the region (C, Y, X): noisy less clean, in the units of the noisy image."""
        if self.fit_estimate:  # recorded at another exposure: bring the clean image to the noisy one's
            a, b = fit_affine(self.clean, self.noisy)
            return self.noisy - (a * self.clean + b)
        return self.noisy - self.clean


def find_region(shape: tuple[int, int], settings: "EvaluationSettings") -> tuple[slice, slice]:
    """Return the rows and columns of an image that are evaluated: the crop, less the border.

    Parameters
    ----------
    shape
        (Y, X) of the whole image.
    settings
        Its ``crop`` and ``border`` count.

    Raises
    ------
    UserError
        Where less than 11 x 11 pixels are left.
    """
    region = []
    for axis, length in zip("yx", shape, strict=True):
        interval = getattr(settings.crop, axis, None) if settings.crop is not None else None
        first, last, _ = slice(*(interval or (0, length))).indices(length)
        region.append(slice(first + settings.border, last - settings.border))
    rows, columns = (max(0, s.stop - s.start) for s in region)
    if min(rows, columns) < SSIM_WINDOW:
        raise UserError(
            f"evaluation: crop and border leave {rows} x {columns} of {shape[0]} x {shape[1]} pixels, "
            f"but {SSIM_WINDOW} x {SSIM_WINDOW} are needed"
        )
    return region[0], region[1]
