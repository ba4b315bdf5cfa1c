"""BM3D, told that the noise is white, at its best: one sigma for the whole dataset, chosen with the clean images.

The package `bm3d` is its authors' own (Tampere University) and an optional extra, as it is free for non-commercial use
only. Results that are made public must name them: Mäkinen, Azzari, Foi, Collaborative Filtering of Correlated Noise,
IEEE Transactions on Image Processing 29 (2020); Dabov, Foi, Katkovnik, Egiazarian, ibid. 16 (2007).
"""

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from skimage.restoration import estimate_sigma

from dvlae.data.canonical import read_canonical
from dvlae.data.manifest import Image, select_images, spread_evenly
from dvlae.evaluation.metrics import psnr
from dvlae.evaluation.register import Targets
from dvlae.evaluation.target import Target
from dvlae.system.errors import UserError
from dvlae.system.progress import progress

logger = logging.getLogger(__name__)

# One sigma that is tried is this factor from the next.
SIGMA_FACTOR = 2**0.25
# Sigma is chosen by these; each takes seconds a sigma.
MAX_TUNING_IMAGES = 4
# In pixels along y and x, from the middle of an image.
MAX_TUNING_SIDE = 256


def fit(images: list[Image], targets: Targets) -> tuple[Callable[[np.ndarray], np.ndarray], dict]:
    """Choose sigma by the mean PSNR over parts of some evaluated images: an oracle, as it takes the clean images.

    Parameters
    ----------
    images
        Of the dataset.
    targets
        What an estimate of each is compared with, and which of them are evaluated.

    Returns
    -------
    tuple
        A function that denoises one image (C, Y, X) or (C, Z, Y, X), and a description: ``sigma`` of each channel, in
        the images' units; ``oracle``; the ``images`` and the ``side`` in pixels of the windows that it was chosen by;
        the mean ``psnr`` in decibel at each multiple of the noise's standard deviation that was tried. Without clean
        images sigma is estimated from the finest wavelets of each image, and ``oracle`` false.

    Raises
    ------
    UserError
        Where the package is not installed, or the images are traces.
    """
    try:
        import bm3d  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"baseline bm3d: the package {error.name} is not installed; "
            'pip install --editable ".[bm3d]" --constraint constraints.txt (free for non-commercial use only)'
        ) from None
    if len(images[0].shape) < 3:
        raise UserError("baseline bm3d: found traces, allowed: images and volumes")
    evaluated = [image for image in select_images(images, targets.settings.images) if image.clean is not None]
    if not evaluated:
        logger.info("bm3d: no clean image to choose sigma by; sigma is estimated for each image")
        return lambda noisy: denoise(noisy, _estimate_sigma(noisy)), {"oracle": False}
    chosen = [evaluated[i] for i in spread_evenly(len(evaluated), MAX_TUNING_IMAGES)]
    sigma, found = _best_sigma(chosen, targets)
    return lambda noisy: denoise(noisy, sigma), {
        "oracle": True,
        "sigma": [float(s) for s in sigma],
        "images": [image.name for image in chosen],
        "side": MAX_TUNING_SIDE,
        "psnr": {f"{factor:.2f}": round(value, 3) for factor, value in sorted(found.items())},
    }


def denoise(image: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Filter each channel, plane by plane.

    Parameters
    ----------
    image
        (C, Y, X) or (C, Z, Y, X).
    sigma
        Standard deviation of the noise of each channel, (C,), in the image's units.

    Returns
    -------
    numpy.ndarray
        The denoised image, of the shape of ``image``.
    """
    import bm3d

    profile = bm3d.BM3DProfile()
    profile.num_threads = 1  # several add in an order of their own, each time another
    planes = image.reshape(len(image), -1, *image.shape[-2:])  # (C, Z, Y, X)
    filtered = [
        [bm3d.bm3d(plane, float(s), profile) for plane in channel] for channel, s in zip(planes, sigma, strict=True)
    ]
    return np.array(filtered, np.float32).reshape(image.shape)


def _best_sigma(images: list[Image], targets: Targets) -> tuple[np.ndarray, dict[float, float]]:
    """Search from the noise's own standard deviation, (C,); return the best, and the PSNR of each multiple tried."""
    windows = [_window(image, targets) for image in images]
    std = np.sqrt(np.mean([np.var(t.noise(), axis=tuple(range(1, t.noisy.ndim))) for t in windows], axis=0))
    found: dict[float, float] = {}

    def measure(exponent: int) -> float:
        factor = SIGMA_FACTOR**exponent
        if factor not in found:
            values = [_psnr(window, factor * std) for window in progress(windows, description=f"sigma x {factor:.2f}")]
            found[factor] = float(np.mean(values))
            logger.info("bm3d: %.2f times the noise's standard deviation  %6.2f dB", factor, found[factor])
        return found[factor]

    best = 0
    direction = 1 if measure(1) > measure(0) else -1
    while measure(best + direction) > measure(best):
        best += direction
    return SIGMA_FACTOR**best * std, found


def _window(image: Image, targets: Targets) -> Target:
    """Return the middle of the region that is evaluated, one plane of a volume."""
    target = targets.target(image, read_canonical(image.noisy))
    *depth, height, width = target.clean.shape[1:]
    lengths = [1 for _ in depth] + [min(MAX_TUNING_SIDE, height), min(MAX_TUNING_SIDE, width)]
    starts = [(side - length) // 2 for side, length in zip(target.clean.shape[1:], lengths, strict=True)]
    part = tuple(slice(start, start + length) for start, length in zip(starts, lengths, strict=True))
    whole = (slice(None),) * len(part)
    return replace(target, clean=target.clean[:, *part], noisy=target.noisy[:, *part], region=whole)


def _psnr(window: Target, sigma: np.ndarray) -> float:
    return psnr(window.clean, window.to_target_units(denoise(window.noisy, sigma)), data_range=window.data_range)


def _estimate_sigma(image: np.ndarray) -> np.ndarray:
    """Estimate the noise's standard deviation of each channel of (C, ...) from its finest wavelets, as if white."""
    return np.array([estimate_sigma(channel) for channel in image])
