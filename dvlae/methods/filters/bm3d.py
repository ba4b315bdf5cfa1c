"""BM3D for white noise, with the best sigma for the dataset, chosen with the clean images.

The package `bm3d` is that of its authors (Tampere University). It is an optional extra, because it is free for
non-commercial use only. Published results must cite: Mäkinen, Azzari, Foi, Collaborative Filtering of Correlated Noise,
IEEE Transactions on Image Processing 29 (2020); Dabov, Foi, Katkovnik, Egiazarian, ibid. 16 (2007).
"""

import logging
from dataclasses import replace

import numpy as np
from skimage.restoration import estimate_sigma

from dvlae.axes import middle
from dvlae.data.canonical import read_noisy
from dvlae.data.manifest import Image, spread_evenly
from dvlae.evaluation.each_image import map_images
from dvlae.evaluation.register import Targets
from dvlae.evaluation.target import Target
from dvlae.methods.task import Fitted, NotApplicableError, Task, images_with_clean
from dvlae.system.errors import UserError

logger = logging.getLogger(__name__)

# The ratio of a sigma that is tried to the next.
SIGMA_FACTOR = 2**0.25
# Sigma is chosen with at most so many images; each takes seconds per sigma.
MAX_TUNING_IMAGES = 4
# In pixels along y and x, around the middle of an image.
MAX_TUNING_SIDE = 256


def fit(task: Task) -> Fitted:
    """Choose sigma by the mean PSNR of parts of some evaluated images. It is an oracle: it uses the clean images.

    Parameters
    ----------
    task
        The images, and what the estimates are compared with.

    Returns
    -------
    Fitted
        Its description: ``sigma`` of each channel, in
        the units of the images; ``oracle``; the ``images`` and the ``side``, in pixels, of the windows that determined
        sigma; the mean ``psnr`` in decibels at each multiple of the standard deviation of the noise that was tried.
        Without clean images, sigma is estimated from the finest wavelets of each image, and ``oracle`` is false.

    Raises
    ------
    UserError
        If the package is not installed.
    NotApplicableError
        If the images are traces.
    """
    try:
        import bm3d  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"baseline bm3d: the package {error.name} is not installed; "
            'pip install --editable ".[bm3d]" --constraint constraints.txt (free for non-commercial use only)'
        ) from None
    if len(task.images[0].shape) < 3:
        raise NotApplicableError("BM3D filters planes, and these are traces")
    evaluated = images_with_clean(task)
    if not evaluated:
        logger.info("bm3d: no clean image to choose sigma by; sigma is estimated for each image")
        return Fitted(_denoise_blindly, {"oracle": False})
    chosen = [evaluated[i] for i in spread_evenly(len(evaluated), MAX_TUNING_IMAGES)]
    sigma, found = _best_sigma(chosen, task.targets, task.workers)
    description = {
        "oracle": True,
        "sigma": [float(s) for s in sigma],
        "images": [image.name for image in chosen],
        "side": MAX_TUNING_SIDE,
        "psnr": {f"{factor:.2f}": round(value, 3) for factor, value in sorted(found.items())},
    }
    return Fitted(lambda image: denoise(read_noisy(image), sigma), description)


def denoise(image: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Filter each channel, plane by plane.

    Parameters
    ----------
    image
        (C, Y, X) or (C, Z, Y, X).
    sigma
        Standard deviation of the noise of each channel, (C,), in the units of the image.

    Returns
    -------
    numpy.ndarray
        The denoised image, of the shape of ``image``.
    """
    import bm3d

    profile = bm3d.BM3DProfile()
    profile.num_threads = 1  # With several threads, the order of sums differs from call to call.
    planes = image.reshape(len(image), -1, *image.shape[-2:])  # (C, Z, Y, X)
    filtered = [
        [bm3d.bm3d(plane, float(s), profile) for plane in channel] for channel, s in zip(planes, sigma, strict=True)
    ]
    return np.array(filtered, np.float32).reshape(image.shape)


def _denoise_blindly(image: Image) -> np.ndarray:
    """Filter an image with a sigma for each channel, estimated from its finest wavelets."""
    noisy = read_noisy(image)
    return denoise(noisy, np.array([estimate_sigma(channel) for channel in noisy]))


def _best_sigma(images: list[Image], targets: Targets, workers: int) -> tuple[np.ndarray, dict[float, float]]:
    """Search around the standard deviation of the noise. Return the best sigma, (C,), and the PSNR of each multiple."""
    windows = map_images(lambda image: _window(image, targets), images, workers, description="choose parts")
    std = np.sqrt(np.mean([np.var(t.noise(), axis=tuple(range(1, t.noisy.ndim))) for t in windows], axis=0))
    found: dict[float, float] = {}

    def measure(exponent: int) -> float:
        factor = SIGMA_FACTOR**exponent
        if factor not in found:
            sigma = factor * std
            values = map_images(
                lambda window: window.psnr(denoise(window.noisy, sigma)),
                windows,
                workers,
                description=f"sigma x {factor:.2f}",
            )
            found[factor] = float(np.mean(values))
            logger.info("bm3d: %.2f times the noise's standard deviation  %6.2f dB", factor, found[factor])
        return found[factor]

    best = 0
    direction = 1 if measure(1) > measure(0) else -1
    while measure(best + direction) > measure(best):
        best += direction
    return SIGMA_FACTOR**best * std, found


def _window(image: Image, targets: Targets) -> Target:
    """Return the middle of the evaluated region; of a volume, its middle plane."""
    target = targets.target(image, read_noisy(image))
    sides = target.clean.shape[1:]
    part = middle(sides, (1, MAX_TUNING_SIDE, MAX_TUNING_SIDE)[-len(sides) :])
    everything = (slice(None),) * len(part)
    return replace(target, clean=target.clean[:, *part], noisy=target.noisy[:, *part], region=everything)
