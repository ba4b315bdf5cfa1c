"""The noise that is left in a clean image, and the PSNR that it allows.

A clean image is a recording, too, with less noise than the noisy one. What differs between them is noise of the one or
of the other, and only that of the clean image is correlated with the clean image itself. So its variance is

    mean of F(clean) * (F(clean) - gain * F(noisy)),

where F is a difference of neighbouring lines, which removes nearly all of the signal and keeps all noise that is
independent from line to line. What little signal F leaves is in both images, and cancels.

Where the clean image is the mean of the noisy ones, their noise is in it. It is then known from their differences.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from dvlae.axes import AXES
from dvlae.data.canonical import read_clean, read_noisy
from dvlae.data.defects import fill, find_defects
from dvlae.data.manifest import Image
from dvlae.evaluation.metrics import shift_image
from dvlae.evaluation.noise_samples import FOURTH_DIFFERENCE, WINDOW
from dvlae.evaluation.noise_statistics import robust_variance, variance_by_signal
from dvlae.evaluation.target import Alignment

# In dB. A PSNR within it of the limit: at least half of the squared error is noise of the clean image.
NEAR_LIMIT = 3.0
# Side of the neighbourhood over which images are smoothed before their exposures are compared.
SMOOTHING = 9  # pixels
# With a smaller squared correlation, the smoothed images have nothing in common that could cancel.
MIN_SHARED = 0.25
# A value of F is independent of those this many lines away.
DEPENDENT_VALUES = len(FOURTH_DIFFERENCE)
# By more standard errors than this, the clean image alone shows more than both together: it has fine structure.
MAX_DEVIATIONS = 2.0
# A clean image is the mean of noisy ones if it differs from it by less than this fraction of the noise of the mean.
MAX_DIFFERENCE = 0.5

# For a clean image, by its file and frame, of how many noisy ones it is the mean.
Exposures = Mapping[tuple[Path, int], int]


def count_exposures(images: Sequence[Image]) -> Exposures:
    """Find the clean images that are the mean of their own noisy ones, as with ``clean: mean``.

    Parameters
    ----------
    images
        All images of a dataset. Those that share a clean image are read.

    Returns
    -------
    dict
        The number of noisy images that such a clean image is the mean of.
    """
    number = Counter((image.clean, image.clean_frame) for image in images if image.clean is not None)
    found = {}
    for (path, frame), count in number.items():
        if count > 1:
            noisy = [image for image in images if (image.clean, image.clean_frame) == (path, frame)]
            clean = read_clean(noisy[0]).astype(np.float64)
            total, squares = np.zeros(clean.shape), 0.0
            for image in noisy:
                difference = read_noisy(image) - clean
                total += difference
                squares += float(np.nanmean(difference**2))
            # Without the clean image's part, the mean of so many differences would have this mean square.
            if float(np.nanmean((total / count) ** 2)) < MAX_DIFFERENCE**2 * squares / count**2:
                found[path, frame] = count
    return found


def estimate_reference_noise(
    noisy: np.ndarray,
    clean: np.ndarray,
    alignment: Alignment,
    mask: np.ndarray | None = None,
    exposures: int = 1,
) -> float:
    """Estimate the noise in a clean image, as it is after registration and in the units in which it is compared.

    Parameters
    ----------
    noisy, clean
        The complete images, (C, ...).
    alignment
        How the clean image lies on the noisy one.
    mask
        True where a pixel counts, with the spatial axes of the images; None: everywhere.
    exposures
        Of how many noisy images the clean one is the mean; 1: of none, and its noise is independent of theirs.

    Returns
    -------
    float
        Standard deviation, in grey values; where there is less than can be seen, the least that would have been seen.
        NaN where there are fewer than five lines.

    Notes
    -----
    The noise of traces is taken for white. Each channel counts the same. Of two axes, the one along which the noise is
    independent finds more. Where the clean image alone, without its edges, shows no more noise, that is the estimate,
    as it is more precise. Registration smooths the noise by interpolation, and the estimate is what is left.
    """
    noisy, clean = (fill(image, find_defects(image)) for image in (noisy, clean))
    gain = 1.0 if alignment.gain_and_offset is None else abs(alignment.gain_and_offset[0])
    if exposures > 1:
        difference = (noisy - clean)[:, *alignment.region]
        counted = difference if mask is None else difference[:, mask[alignment.region]]
        return gain * float(counted.std(dtype=np.float64)) / math.sqrt(exposures - 1)
    shape = noisy.shape[1:]
    axes = [axis for axis in list(AXES.values())[: min(2, len(shape))] if shape[axis] >= len(FOURTH_DIFFERENCE)]
    variances = [_variance(noisy, clean, alignment, mask, axis) for axis in axes]
    return gain * math.sqrt(max(variances)) if variances else math.nan


def reference_limit(noise: float, data_range: float) -> float:
    """Return the PSNR against a clean image of an estimate without any error.

    Parameters
    ----------
    noise
        Standard deviation of the noise in the clean image.
    data_range
        The range of the PSNR, in the same units.

    Returns
    -------
    float
        In decibels; ``inf`` without noise, NaN if it is NaN.

    Examples
    --------
    >>> reference_limit(2.55, data_range=255)
    40.0
    """
    return math.inf if noise == 0 else 20 * math.log10(data_range / noise)


def _variance(noisy: np.ndarray, clean: np.ndarray, alignment: Alignment, mask: np.ndarray | None, axis: int) -> float:
    """Estimate the variance of the noise of a clean image, which is independent from line to line of an axis."""
    smoothed = 1.0
    if alignment.shift is not None:
        # Across the lines, the noise of the clean image must stay as it is for F. Only whole pixels leave it so; by the
        # rest, the noisy image moves.
        shift = [-drift for drift in alignment.shift]
        rest = shift[axis] - round(shift[axis])
        shift[axis] -= rest
        clean = shift_image(clean, tuple(shift))
        noisy = shift_image(noisy, tuple(-rest if i == len(shift) + axis else 0.0 for i in range(len(shift))))
        smoothed = _energy(rest)
    region = alignment.region
    counts = np.ones(clean[0][region].shape, bool) if mask is None else mask[region]
    clear = ndimage.minimum_filter1d(counts, len(FOURTH_DIFFERENCE), axis=axis)
    if not clear.any():
        return 0.0
    pairs = zip(noisy[:, *region].astype(np.float64), clean[:, *region].astype(np.float64), strict=True)
    return smoothed * float(np.mean([_channel_variance(*pair, counts, clear, axis) for pair in pairs]))


def _channel_variance(noisy: np.ndarray, clean: np.ndarray, counts: np.ndarray, clear: np.ndarray, axis: int) -> float:
    signal = ndimage.uniform_filter(clean, WINDOW)[clear]
    fine, of_noisy = (ndimage.correlate1d(image, FOURTH_DIFFERENCE, axis=axis)[clear] for image in (clean, noisy))
    products = fine * (fine - _gain(noisy, clean, counts) * of_noisy)
    error = products.std() * math.sqrt(DEPENDENT_VALUES / len(products))
    alone = float(np.mean(variance_by_signal(fine, signal, robust_variance)[1]))
    both = float(products.mean())
    return alone if alone < both + MAX_DEVIATIONS * error else max(both, error)


def _gain(noisy: np.ndarray, clean: np.ndarray, counts: np.ndarray) -> float:
    """Return how many units of the clean image one of the noisy image is; 0 if they have nothing in common."""
    pair = np.stack([ndimage.uniform_filter(image, SMOOTHING)[counts] for image in (noisy, clean)])
    (of_noisy, common), (_, of_clean) = np.cov(pair)
    # A line through the noisy values against the clean ones: those have less noise, by which lines become too flat.
    return float(of_clean / common) if common**2 > MIN_SHARED * of_noisy * of_clean else 0.0


def _energy(shift: float) -> float:
    """Return what :func:`shift_image` leaves of the variance of white noise along an axis."""
    line = np.zeros((1, 65))
    line[0, 32] = 1.0
    return float(np.sum(shift_image(line, (shift,)) ** 2))
