"""BM3D, for white noise or for noise with a power spectrum that is known or estimated.

The package `bm3d` is that of its authors (Tampere University). It is an optional extra, because it is free for
non-commercial use only. Published results must cite: Mäkinen, Azzari, Foi, Collaborative Filtering of Correlated Noise,
IEEE Transactions on Image Processing 29 (2020); Dabov, Foi, Katkovnik, Egiazarian, ibid. 16 (2007).

The settings of a method are ``noise``: ``white``, ``spectrum``, or ``stabilised``, which is a spectrum after a
transform that makes the noise equally strong at every signal; and ``calibration``: ``noisy``, or ``clean`` for
the first two.
"""

import math
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from dvlae.data.canonical import read_mask, read_noisy
from dvlae.data.manifest import Image, spread_evenly
from dvlae.evaluation.diagnosis import MAX_IMAGES, correlation_length, judge, variance_curve
from dvlae.evaluation.each_image import map_images
from dvlae.evaluation.noise_samples import NoiseSample, estimate_noise
from dvlae.evaluation.noise_statistics import VarianceCurve
from dvlae.evaluation.register import Targets
from dvlae.methods.filters.calibration import (
    Parameters,
    choose_with_clean,
    cut_window,
    images_for_oracle,
    noise_level,
    read_word,
)
from dvlae.methods.filters.spectrum import autocovariance, spectrum, variance
from dvlae.methods.filters.stabilise import Stabiliser
from dvlae.methods.task import Fitted, NotApplicableError, Task
from dvlae.system.errors import UserError

# An oracle tries these multiples of the standard deviation of the noise.
GRID = {"strength": [round(2 ** (exponent / 4), 3) for exponent in range(-4, 9)]}
# It looks at fewer images than one of a faster filter, and of a volume at a single plane.
MAX_TUNING_IMAGES = 4
TUNING_SIDES = {2: (256, 256), 3: (1, 256, 256)}
# BM3D knows spectra of blocks of 32 pixels.
MAX_LAG = 16
# Smaller planes are extended to this side, that of the blocks.
MIN_SIDE = 8


def fit(task: Task) -> Fitted:
    """Measure the noise of a dataset, or estimate it.

    Parameters
    ----------
    task
        The images, and what the estimates are compared with. Its settings are ``noise`` and ``calibration``.

    Returns
    -------
    Fitted
        Its description is empty if the noise is estimated for each image by itself. With a spectrum, it has the
        ``autocorrelation`` of each channel along the noise's direction, and the ``images`` that it was estimated from;
        ``stabilised``, also the standard deviation of the noise by the signal.
        For an oracle, it is that of :func:`dvlae.methods.filters.calibration.choose_with_clean`, with the standard
        deviation ``sigma`` of the noise of each channel, before the chosen ``strength``.

    Raises
    ------
    UserError
        If the package is not installed, or a setting is not allowed.
    NotApplicableError
        If the images are traces, or an oracle has no clean images.
    """
    try:
        _package()
    except ModuleNotFoundError as error:
        raise UserError(
            f"bm3d: the package {error.name} is not installed; "
            'pip install --editable ".[bm3d]" --constraint constraints.txt (free for non-commercial use only)'
        ) from None
    if min(len(image.shape) for image in task.images) < 3:
        raise NotApplicableError("BM3D filters planes, and these are traces")
    clean = read_word(task, "calibration", ["noisy", "clean"]) == "clean"
    noise = read_word(task, "noise", ["white", "spectrum"] if clean else ["white", "spectrum", "stabilised"])
    if clean:
        return _fit_with_clean(task, white=noise == "white")
    return Fitted(_denoise_white, {}) if noise == "white" else _fit_spectrum(task, stabilised=noise == "stabilised")


def denoise(image: np.ndarray, covariances: Sequence[np.ndarray]) -> np.ndarray:
    """Filter each channel, plane by plane.

    Parameters
    ----------
    image
        (C, Y, X) or (C, Z, Y, X).
    covariances
        Autocovariance of the noise of each channel, as :func:`dvlae.methods.filters.spectrum.autocovariance` returns
        it; of white noise, the variance is enough, (1, 1).

    Returns
    -------
    numpy.ndarray
        The denoised image, of the shape of ``image``. A channel without noise is returned as it is.
    """
    planes = image.reshape(len(image), -1, *image.shape[-2:])  # (C, Z, Y, X)
    filtered = [
        [_denoise_plane(plane, covariance) for plane in channel]
        for channel, covariance in zip(planes, covariances, strict=True)
    ]
    return np.array(filtered, np.float32).reshape(image.shape)


def _package() -> ModuleType:
    import bm3d
    import bm4d

    if not hasattr(bm4d.np, "trapz"):
        # bm4d 4.2.5 calls it for spectra, and NumPy 2.4 has it by another name only.
        bm4d.np = ModuleType("numpy")
        vars(bm4d.np).update(vars(np), trapz=np.trapezoid)
    return bm3d


def _denoise_plane(plane: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    bm3d = _package()
    if not variance(covariance) > 0 or plane.min() == plane.max():
        return plane
    profile = bm3d.BM3DProfile()
    profile.num_threads = 1  # With several threads, the order of sums differs from call to call.
    missing = [(0, max(0, MIN_SIDE - side)) for side in plane.shape]
    extended = np.pad(plane, missing, mode="symmetric")
    noise = math.sqrt(variance(covariance)) if covariance.size == 1 else spectrum(covariance, extended.shape)
    return bm3d.bm3d(extended, noise, profile)[: plane.shape[0], : plane.shape[1]]


def _denoise_white(image: Image) -> np.ndarray:
    """Filter an image with a sigma for each channel, estimated from its finest wavelets."""
    noisy = read_noisy(image)
    return denoise(noisy, [np.full((1, 1), noise_level(channel) ** 2) for channel in noisy])


def _fit_spectrum(task: Task, *, stabilised: bool) -> Fitted:
    """Estimate the correlation of the noise along its direction, once; and its variance, for each image."""
    images = [task.images[i] for i in spread_evenly(len(task.images), MAX_IMAGES)]
    samples = map_images(_sample, images, task.workers, description="estimate the noise")
    channels = list(zip(*samples, strict=True))
    lags = [_correlation(channel, task.noise_direction) for channel in channels]
    description: dict[str, Any] = {"autocorrelation": [np.round(values, 4).tolist() for values in lags]}
    transforms = []
    if stabilised:
        curves = [_variance_by_signal(channel, task.noise_direction) for channel in channels]
        transforms = [Stabiliser(curve) for curve in curves]
        description["std_by_signal"] = [
            {f"{signal:.4g}": float(f"{math.sqrt(value):.4g}") for signal, value in zip(*curve, strict=True)}
            for curve in curves
        ]

    def denoise_image(image: Image) -> np.ndarray:
        noisy = read_noisy(image)
        if stabilised:
            noisy = np.stack([one.transform(channel) for one, channel in zip(transforms, noisy, strict=True)])
        covariances = []
        for channel, sample, values in zip(noisy, estimate_noise(noisy, read_mask(image)), lags, strict=True):
            # An image may be too narrow for differences across the direction.
            std = sample.std.get(task.noise_direction, sample.std["x"]) or noise_level(channel)
            covariances.append(std**2 * _mirror(values, task.noise_direction))
        filtered = denoise(noisy, covariances)
        if stabilised:
            filtered = np.stack([one.signal(channel) for one, channel in zip(transforms, filtered, strict=True)])
        return filtered.astype(np.float32)

    return Fitted(denoise_image, description | {"images": [image.name for image in images]})


def _sample(image: Image) -> list[NoiseSample]:
    """Estimate the noise of each channel of an image, without the clean one."""
    return estimate_noise(read_noisy(image), read_mask(image))


def _variance_by_signal(samples: Sequence[NoiseSample], direction: str) -> VarianceCurve:
    """Return the variance of the noise of a channel by its signal."""
    signals, variances = variance_curve(samples, direction if direction in samples[0].noise else "x")
    if len(signals) == 0:
        raise NotApplicableError("how strong the noise is at which signal cannot be told")
    return signals, variances


def _correlation(samples: Sequence[NoiseSample], direction: str) -> np.ndarray:
    """Return the correlation of the noise of a channel along its direction, from lag 0 to the correlation length.

    Within a plane, noise that is correlated along z is white.
    """
    lags = judge(samples).correlation.get(direction, [1.0]) if direction in ("x", "y") else [1.0]
    return np.array(lags[: correlation_length(lags) + 1])


def _mirror(lags: np.ndarray, direction: str) -> np.ndarray:
    """Return the correlation by lags along y and x."""
    both = np.concatenate([lags[:0:-1], lags])
    return both[:, np.newaxis] if direction == "y" else both[np.newaxis]


def _fit_with_clean(task: Task, white: bool) -> Fitted:
    """Measure the noise in the middle of some images, and choose the strength with the best mean PSNR."""
    images = images_for_oracle(task, MAX_TUNING_IMAGES)
    measure = partial(_measure, targets=task.targets, max_lag=0 if white else MAX_LAG)
    covariances = np.mean(map_images(measure, images, task.workers, description="measure the noise"), axis=0)

    def denoise_with(noisy: np.ndarray, parameters: Parameters) -> np.ndarray:
        return denoise(noisy, parameters["strength"] ** 2 * covariances)

    parameters, description = choose_with_clean(task, denoise_with, GRID, images, TUNING_SIDES)
    description["sigma"] = [round(math.sqrt(variance(covariance)), 4) for covariance in covariances]
    return Fitted(lambda image: denoise_with(read_noisy(image), parameters), description)


def _measure(image: Image, targets: Targets, max_lag: int) -> list[np.ndarray]:
    """Return the autocovariance of the noise of each channel in the middle of an image with a clean one."""
    window = cut_window(image, targets, TUNING_SIDES)
    noise = window.noise()
    counts = np.broadcast_to(True if window.mask is None else window.mask, noise.shape)
    return [autocovariance(*channel, max_lag) for channel in zip(noise, counts, strict=True)]
