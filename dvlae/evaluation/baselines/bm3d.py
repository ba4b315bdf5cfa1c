"""BM3D, told that the noise is white, at its best: one sigma for the whole dataset, chosen with the clean images.

The package `bm3d` is its authors' own (Tampere University) and an optional extra, as it is free for non-commercial use
only. Results that are made public must name them: Mäkinen, Azzari, Foi, Collaborative Filtering of Correlated Noise,
IEEE Transactions on Image Processing 29 (2020); Dabov, Foi, Katkovnik, Egiazarian, ibid. 16 (2007).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dvlae.system.errors import UserError
from dvlae.system.progress import progress

if TYPE_CHECKING:
    from dvlae.config.dataset import EvaluationSettings
    from dvlae.data.manifest import Image
    from dvlae.evaluation.metrics import Target

# One sigma that is tried is this factor from the next.
SIGMA_FACTOR = 2**0.25
# Sigma is chosen by these; each takes seconds a sigma.
MAX_TUNING_IMAGES = 4
# In pixels along y and x, from the middle of an image.
MAX_TUNING_SIDE = 256


def fit(images: list["Image"], settings: "EvaluationSettings") -> tuple[Callable[[np.ndarray], np.ndarray], dict]:
    """Choose sigma by the mean PSNR over parts of some evaluated images: an oracle, as it takes the clean images.

    Parameters
    ----------
    images
        Of the dataset.
    settings
        How it is evaluated, and on which images.

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
    from dvlae.data.manifest import select_images, spread_evenly

    try:
        import bm3d  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"baseline bm3d: the package {error.name} is not installed; "
            'pip install --editable ".[bm3d]" --constraint constraints.txt (free for non-commercial use only)'
        ) from None
    if len(images[0].shape) < 3:
        raise UserError("baseline bm3d: found traces, allowed: images and volumes")
    evaluated = [image for image in select_images(images, settings.images) if image.clean is not None]
    if not evaluated:
        print("bm3d: no clean image to choose sigma by; sigma is estimated for each image")
        return lambda noisy: denoise(noisy, _estimate_sigma(noisy)), {"oracle": False}
    chosen = [evaluated[i] for i in spread_evenly(len(evaluated), MAX_TUNING_IMAGES)]
    sigma, psnr = _best_sigma(chosen, settings)
    return lambda noisy: denoise(noisy, sigma), {
        "oracle": True,
        "sigma": [float(s) for s in sigma],
        "images": [image.name for image in chosen],
        "side": MAX_TUNING_SIDE,
        "psnr": {f"{factor:.2f}": round(value, 3) for factor, value in sorted(psnr.items())},
    }


def denoise(image: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Filter each channel, plane by plane.

    Parameters
    ----------
    image
        (C, Y, X) or (C, Z, Y, X).
    sigma
        Standard deviation of the noise of each channel, (C,), in the image's units.
    """
    import bm3d

    profile = bm3d.BM3DProfile()
    profile.num_threads = 1  # several add in an order of their own, each time another
    planes = image.reshape(len(image), -1, *image.shape[-2:])  # (C, Z, Y, X)
    filtered = [
        [bm3d.bm3d(plane, float(s), profile) for plane in channel] for channel, s in zip(planes, sigma, strict=True)
    ]
    return np.array(filtered, np.float32).reshape(image.shape)


def _best_sigma(images: list["Image"], settings: "EvaluationSettings") -> tuple[np.ndarray, dict[float, float]]:
    """Search from the noise's own standard deviation, (C,); return the best, and the PSNR of each multiple tried."""
    windows = [_window(image, settings) for image in images]
    std = np.sqrt(np.mean([np.var(t.noise(), axis=tuple(range(1, t.noisy.ndim))) for t in windows], axis=0))
    psnr = {}

    def measure(exponent: int) -> float:
        factor = SIGMA_FACTOR**exponent
        if factor not in psnr:
            values = [_psnr(window, factor * std) for window in progress(windows, description=f"sigma x {factor:.2f}")]
            psnr[factor] = float(np.mean(values))
            print(f"bm3d: {factor:.2f} times the noise's standard deviation  {psnr[factor]:6.2f} dB")
        return psnr[factor]

    best = 0
    direction = 1 if measure(1) > measure(0) else -1
    while measure(best + direction) > measure(best):
        best += direction
    return SIGMA_FACTOR**best * std, psnr


def _window(image: "Image", settings: "EvaluationSettings") -> "Target":
    """Return the middle of the region that is evaluated, one plane of a volume."""
    from dvlae.data.canonical import read_canonical
    from dvlae.evaluation.metrics import Target

    target = Target.build(read_canonical(image.noisy), read_canonical(image.clean), settings)
    *depth, height, width = target.clean.shape[1:]
    lengths = [1 for _ in depth] + [min(MAX_TUNING_SIDE, height), min(MAX_TUNING_SIDE, width)]
    starts = [(side - length) // 2 for side, length in zip(target.clean.shape[1:], lengths, strict=True)]
    part = tuple(slice(start, start + length) for start, length in zip(starts, lengths, strict=True))
    whole = (slice(None),) * len(part)
    return replace(target, clean=target.clean[:, *part], noisy=target.noisy[:, *part], region=whole)


def _psnr(window: "Target", sigma: np.ndarray) -> float:
    from dvlae.evaluation.metrics import psnr

    return psnr(window.clean, window.to_target_units(denoise(window.noisy, sigma)), data_range=window.data_range)


def _estimate_sigma(image: np.ndarray) -> np.ndarray:
    """Estimate the noise's standard deviation of each channel of (C, ...) from its finest wavelets, as if white."""
    from skimage.restoration import estimate_sigma

    return np.array([estimate_sigma(channel) for channel in image])
