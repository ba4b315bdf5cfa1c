"""A Gaussian filter with the best sigma for the dataset, chosen with the clean images."""

import logging

import numpy as np
from scipy import ndimage

from dvlae.data.canonical import read_noisy
from dvlae.data.manifest import Image
from dvlae.evaluation.each_image import map_images
from dvlae.evaluation.register import Targets
from dvlae.methods.task import Fitted, Task, images_with_clean

logger = logging.getLogger(__name__)

SIGMAS = np.arange(0.5, 3.01, 0.25)  # pixels
SIGMA_WITHOUT_CLEAN = 1.0  # pixels


def fit(task: Task) -> Fitted:
    """Choose sigma by the mean PSNR over the evaluated images. It is an oracle, because it uses the clean images.

    Parameters
    ----------
    task
        The images, and what the estimates are compared with.

    Returns
    -------
    Fitted
        Its description: ``sigma`` in pixels, ``oracle``, and the mean
        ``psnr`` in decibels at each sigma. Without clean images, sigma is 1.0 and ``oracle`` is false.
    """
    evaluated = images_with_clean(task)
    if not evaluated:
        logger.info("gaussian: no clean image to choose sigma by; sigma is %s px", SIGMA_WITHOUT_CLEAN)
        return Fitted(
            lambda image: smooth(read_noisy(image), SIGMA_WITHOUT_CLEAN),
            {"oracle": False, "sigma": SIGMA_WITHOUT_CLEAN},
        )
    found_psnr = map_images(
        lambda image: _psnr_at_each_sigma(image, task.targets), evaluated, task.workers, description="choose sigma"
    )
    table = np.mean(found_psnr, axis=0)
    sigma = float(SIGMAS[np.argmax(table)])
    for candidate, value in zip(SIGMAS, table, strict=True):
        best = "  <- best" if candidate == sigma else ""
        logger.info("gaussian: sigma %.2f px  %6.2f dB%s", candidate, value, best)
    found = {f"{candidate:.2f}": round(float(value), 3) for candidate, value in zip(SIGMAS, table, strict=True)}
    return Fitted(lambda image: smooth(read_noisy(image), sigma), {"oracle": True, "sigma": sigma, "psnr": found})


def smooth(image: np.ndarray, sigma: float) -> np.ndarray:
    """Filter each channel of an image (C, ...) with a Gaussian of standard deviation ``sigma``, in pixels.

    Parameters
    ----------
    image
        The noisy image (C, ...).
    sigma
        In pixels, the same along all spatial axes.

    Returns
    -------
    numpy.ndarray
        The filtered image, of the same shape.
    """
    return ndimage.gaussian_filter(image, sigma, axes=range(1, image.ndim))


def _psnr_at_each_sigma(image: Image, targets: Targets) -> list[float]:
    noisy = read_noisy(image)
    target = targets.target(image, noisy)
    return [target.psnr(smooth(noisy, sigma)) for sigma in SIGMAS]
