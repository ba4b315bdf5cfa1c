"""The filters of scikit-image, each calibrated without clean images or, as an oracle, with them.

Calibrated without them, the estimate is that of the J-invariant version of the filter. The settings of a method are
``filter``, one of ``FILTERS``, and ``calibration``: ``noisy`` or ``clean``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from skimage.filters import gaussian, median
from skimage.restoration import cycle_spin, denoise_nl_means, denoise_tv_chambolle, denoise_wavelet

from dvlae.data.canonical import read_noisy
from dvlae.methods.filters.calibration import (
    Filter,
    Grid,
    apply,
    calibrate,
    choose_with_clean,
    images_for_oracle,
    make_invariant,
    read_word,
)
from dvlae.methods.task import Fitted, NotApplicableError, Task

# Strengths are multiples of the noise level. Correlated noise needs more than one.
STRENGTHS = [round(2 ** (exponent / 4), 2) for exponent in range(-4, 13)]
# Shorter axes are extended to this side, on which the longest wavelet fits twice. Volumes of fewer planes are filtered
# plane by plane.
MIN_WAVELET_SIDE = 16


def smooth(image: np.ndarray, sigma: float) -> np.ndarray:
    """Filter with a Gaussian.

    Parameters
    ----------
    image
        One to three spatial axes.
    sigma
        In pixels.

    Returns
    -------
    numpy.ndarray
        Of the same shape.
    """
    return gaussian(image, sigma, mode="reflect", preserve_range=True)


def take_median(image: np.ndarray, radius: float) -> np.ndarray:
    """Take the median of all pixels at most so far away.

    Parameters
    ----------
    image
        One to three spatial axes.
    radius
        In pixels.

    Returns
    -------
    numpy.ndarray
        Of the same shape.
    """
    reach = int(radius)
    distances = np.ogrid[(slice(-reach, reach + 1),) * image.ndim]
    return median(image, sum(distance**2 for distance in distances) <= radius**2, mode="reflect")


def average_patches(image: np.ndarray, strength: float) -> np.ndarray:
    """Filter by non-local means, with the relation of its two parameters that scikit-image recommends.

    Parameters
    ----------
    image
        Two or three spatial axes, in units of the noise level.
    strength
        Standard deviation of the noise.

    Returns
    -------
    numpy.ndarray
        Of the same shape.
    """
    # A volume is searched at about as many positions as an image.
    size, distance = (7, 11) if image.ndim == 2 else (5, 3)
    return denoise_nl_means(image, size, distance, h=0.8 * strength, sigma=strength, preserve_range=True)


def reduce_variation(image: np.ndarray, strength: float) -> np.ndarray:
    """Reduce the total variation by the algorithm of Chambolle.

    Parameters
    ----------
    image
        One to three spatial axes, in units of the noise level.
    strength
        Weight of the total variation.

    Returns
    -------
    numpy.ndarray
        Of the same shape.
    """
    return denoise_tv_chambolle(image, strength)


def shrink_wavelets(image: np.ndarray, strength: float, wavelet: str) -> np.ndarray:
    """Shrink wavelet coefficients, and average over shifts of the image.

    Parameters
    ----------
    image
        One to three spatial axes, in units of the noise level.
    strength
        Standard deviation of the noise.
    wavelet
        Name of an orthogonal wavelet.

    Returns
    -------
    numpy.ndarray
        Of the same shape.
    """
    if image.ndim > 2 and len(image) < MIN_WAVELET_SIDE:
        return np.stack([shrink_wavelets(plane, strength, wavelet) for plane in image])
    shifts = 1 if image.ndim > 2 else 3
    how = {"sigma": strength, "wavelet": wavelet}
    extended = np.pad(image, [(0, max(0, MIN_WAVELET_SIDE - side)) for side in image.shape], mode="symmetric")
    result = cycle_spin(extended, denoise_wavelet, shifts, func_kw=how, workers=1)
    return result[tuple(slice(side) for side in image.shape)]


@dataclass(frozen=True)
class Kind:
    """A kind of filter.

    Attributes
    ----------
    function
        It filters one channel.
    grid
        The values that are tried.
    axes
        The smallest number of spatial axes.
    """

    function: Filter
    grid: Grid
    axes: int = 1


FILTERS: Mapping[str, Kind] = {
    "gaussian": Kind(smooth, {"sigma": [*np.arange(0.5, 3.01, 0.25).tolist(), 3.5, 4.0, 5.0, 6.0, 8.0]}),
    "median": Kind(take_median, {"radius": [1.0, 1.5, 2.0, 3.0, 4.0, 5.0]}),
    "nlm": Kind(average_patches, {"strength": STRENGTHS}, axes=2),
    "tv": Kind(reduce_variation, {"strength": STRENGTHS}),
    "wavelet": Kind(shrink_wavelets, {"wavelet": ["db1", "db2", "sym4"], "strength": STRENGTHS}),
}


def fit(task: Task) -> Fitted:
    """Choose the parameters of a filter for a dataset.

    Parameters
    ----------
    task
        The images, and what the estimates are compared with. Its settings are ``filter`` and ``calibration``.

    Returns
    -------
    Fitted
        Its description is that of :func:`dvlae.methods.filters.calibration.calibrate`.

    Raises
    ------
    UserError
        If there is no such filter or calibration.
    NotApplicableError
        If the filter needs more spatial axes, or an oracle has no clean images.
    """
    name = read_word(task, "filter", list(FILTERS))
    kind = FILTERS[name]
    if min(sum(side > 1 for side in image.shape[1:]) for image in task.images) < kind.axes:
        raise NotApplicableError(f"{name} filters images and volumes, and there are traces")
    if read_word(task, "calibration", ["noisy", "clean"]) == "noisy":
        parameters, description = calibrate(task, kind.function, kind.grid)
        function = make_invariant(kind.function)
    else:
        function, images = kind.function, images_for_oracle(task)
        parameters, description = choose_with_clean(task, partial(apply, function), kind.grid, images)
    return Fitted(lambda image: apply(function, read_noisy(image), parameters), description)
