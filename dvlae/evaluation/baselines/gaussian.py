"""A Gaussian filter, at its best: one sigma for the whole dataset, chosen with the clean images."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from dvlae.system.progress import progress

if TYPE_CHECKING:
    from dvlae.config.dataset import EvaluationSettings
    from dvlae.data.manifest import Image

SIGMAS = np.arange(0.5, 3.01, 0.25)  # pixels
SIGMA_WITHOUT_CLEAN = 1.0  # pixels


def fit(images: list["Image"], settings: "EvaluationSettings") -> tuple[Callable[[np.ndarray], np.ndarray], dict]:
    """Choose sigma by the mean PSNR over the evaluated images: an oracle, as it takes the clean images.

    Parameters
    ----------
    images
        Of the dataset.
    settings
        How it is evaluated, and on which images.

    Returns
    -------
    tuple
        A function that filters one image (C, ...), and a description: ``sigma`` in pixels, ``oracle``, and the mean
        ``psnr`` in decibel at each sigma. Without clean images sigma is 1.0, and ``oracle`` false.
    """
    from dvlae.data.manifest import select_images

    evaluated = [image for image in select_images(images, settings.images) if image.clean is not None]
    if not evaluated:
        print(f"gaussian: no clean image to choose sigma by; sigma is {SIGMA_WITHOUT_CLEAN} px")
        return lambda noisy: smooth(noisy, SIGMA_WITHOUT_CLEAN), {"oracle": False, "sigma": SIGMA_WITHOUT_CLEAN}
    table = np.mean(
        [_psnr_at_each_sigma(image, settings) for image in progress(evaluated, description="choose sigma")], 0
    )
    sigma = float(SIGMAS[np.argmax(table)])
    for candidate, value in zip(SIGMAS, table, strict=True):
        print(f"gaussian: sigma {candidate:.2f} px  {value:6.2f} dB{'  <- best' if candidate == sigma else ''}")
    psnr = {f"{candidate:.2f}": round(float(value), 3) for candidate, value in zip(SIGMAS, table, strict=True)}
    return lambda noisy: smooth(noisy, sigma), {"oracle": True, "sigma": sigma, "psnr": psnr}


def smooth(image: np.ndarray, sigma: float) -> np.ndarray:
    """Filter each channel of an image (C, ...) with a Gaussian of standard deviation ``sigma``, in pixels."""
    return ndimage.gaussian_filter(image, sigma, axes=range(1, image.ndim))


def _psnr_at_each_sigma(image: "Image", settings: "EvaluationSettings") -> list[float]:
    from dvlae.data.canonical import read_canonical
    from dvlae.evaluation.metrics import Target, psnr

    noisy = read_canonical(image.noisy)
    target = Target.build(noisy, read_canonical(image.clean), settings)
    estimates = (target.to_target_units(smooth(noisy, sigma)) for sigma in SIGMAS)
    return [psnr(target.clean, estimate, data_range=target.data_range) for estimate in estimates]
