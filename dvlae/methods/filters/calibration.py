"""Choose the parameters of a filter: by noisy images alone, or, as an oracle, by the clean ones.

Both look at the middle of a few images that are spread evenly over the dataset, and find one set of parameters for all.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from skimage.restoration import calibrate_denoiser, denoise_invariant, estimate_sigma

from dvlae.axes import middle
from dvlae.data.canonical import read_noisy
from dvlae.data.manifest import Image, spread_evenly
from dvlae.evaluation.each_image import map_images
from dvlae.evaluation.register import Targets
from dvlae.evaluation.target import Target
from dvlae.methods.task import NotApplicableError, Task, images_with_clean
from dvlae.system.errors import UserError

logger = logging.getLogger(__name__)

MAX_IMAGES = 8
# In pixels, by the number of spatial axes.
MAX_SIDES = {1: (2**16,), 2: (256, 256), 3: (16, 128, 128)}
# Along each axis, one pixel in so many is masked: 4 in images, as by default in scikit-image. A volume takes 8 passes.
STRIDES = {1: 16, 2: 4, 3: 2}

Grid = Mapping[str, Sequence[Any]]  # values to try of each parameter
Parameters = dict[str, Any]
Filter = Callable[..., np.ndarray]  # takes a channel (...) in units of its noise, and parameters
Choice = tuple[Parameters, dict[str, Any]]  # parameters, and how they were chosen


def read_word(task: Task, key: str, allowed: Sequence[str]) -> str:
    """Read a setting of a method that is one of several words.

    Parameters
    ----------
    task
        What a method is given.
    key
        Name of the setting.
    allowed
        The words.

    Returns
    -------
    str
        One of them.

    Raises
    ------
    UserError
        If it is another one, or is missing.
    """
    found = task.settings.get(key)
    if found not in allowed:
        raise UserError(f"settings.{key}: found {found!r}, allowed: {', '.join(allowed)}")
    return str(found)


def noise_level(channel: np.ndarray) -> float:
    """Estimate the standard deviation of white noise, plane by plane, from the finest wavelets.

    Parameters
    ----------
    channel
        One to three spatial axes.

    Returns
    -------
    float
        The mean over the planes, in units of the channel; 0 if no plane has fine detail along all of its axes.
    """
    planes = channel.reshape(-1, *channel.shape[-2:]) if channel.ndim > 2 else channel[np.newaxis]
    # scikit-image would take a short last axis for colours.
    found = [estimate_sigma(np.moveaxis(plane, np.argmax(plane.shape), -1)) for plane in planes if _has_detail(plane)]
    return float(np.mean(found)) if found else 0.0


def _has_detail(plane: np.ndarray) -> bool:
    for axis in range(plane.ndim):
        plane = np.diff(plane, axis=axis)
    return bool(plane.any())


def apply(function: Filter, image: np.ndarray, parameters: Mapping[str, Any]) -> np.ndarray:
    """Filter each channel of an image by itself, in units of its noise.

    Parameters
    ----------
    function
        The filter.
    image
        (C, ...).
    parameters
        Parameters of the filter.

    Returns
    -------
    numpy.ndarray
        The filtered image, (C, ...), in its units.
    """
    result = np.empty(image.shape, np.float32)
    for channel, filtered in zip(image, result, strict=True):
        scaled, level, mean = _in_units_of_noise(channel)
        filtered[:] = (function(scaled, **parameters) * level + mean).reshape(channel.shape)
    return result


def _in_units_of_noise(channel: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return a channel around 0, without axes of one pixel, and the level and mean that were taken out of it."""
    level, mean = noise_level(channel) or 1.0, float(channel.mean(dtype=np.float64))
    return (channel.squeeze().astype(np.float64) - mean) / level, level, mean


def calibrate(task: Task, function: Filter, grid: Grid) -> Choice:
    """Choose parameters by scikit-image's self-supervised calibration.

    Some pixels are replaced by the mean of their neighbours. Their error after the filter differs from that against the
    clean image by the variance of the noise, if the noise of neighbours is independent. Correlated noise can be
    predicted from neighbours, so the least smoothing is chosen.

    Parameters
    ----------
    task
        What a method is given. The clean images are not used.
    function
        The filter.
    grid
        What is tried: all combinations.

    Returns
    -------
    parameters
        Those with the smallest error.
    description
        The parameters, the ``images`` that they were chosen by, and the ``loss`` of all that was ``tried``: the mean
        square error over the variance of the image.

    References
    ----------
    Batson, Royer: Noise2Self: Blind denoising by self-supervision, ICML (2019).
    """
    images = [task.images[i] for i in spread_evenly(len(task.images), MAX_IMAGES)]
    losses = map_images(partial(_losses, function, grid), images, task.workers, description="calibrate")
    return _choose(combinations(grid), -np.mean(losses, axis=0), "loss", images)


def _losses(function: Filter, grid: Grid, image: Image) -> np.ndarray:
    noisy = read_noisy(image)
    part = noisy[:, *middle(noisy.shape[1:], MAX_SIDES[noisy.ndim - 1])]
    losses = []
    for channel in part:
        scaled = _in_units_of_noise(channel)[0]
        _, (_, found) = calibrate_denoiser(scaled, function, grid, stride=_stride(scaled), extra_output=True)
        losses.append(np.array(found) / (scaled.var() or 1.0))
    return np.mean(losses, axis=0)


def _stride(channel: np.ndarray) -> int:
    return min(STRIDES[channel.ndim], *channel.shape)


def make_invariant(function: Filter) -> Filter:
    """Return the J-invariant version of a filter: no pixel of an estimate depends on the same pixel of the image.

    It is what :func:`calibrate` minimises the error of, and what scikit-image returns. Of weak filters of strong noise,
    it is much better than the filter itself, as pixels are replaced by the mean of their neighbours first.

    Parameters
    ----------
    function
        The filter.

    Returns
    -------
    callable
        A filter with the same parameters. It takes a pass for each set of masked pixels.
    """

    def denoise(channel: np.ndarray, **parameters: Any) -> np.ndarray:
        return denoise_invariant(channel, function, stride=_stride(channel), denoiser_kwargs=parameters)

    return denoise


def combinations(grid: Grid) -> list[Parameters]:
    """Return all combinations of the values of a grid.

    Parameters
    ----------
    grid
        What is tried.

    Returns
    -------
    list of dict
        The last parameter changes fastest.
    """
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def images_for_oracle(task: Task, most: int = MAX_IMAGES) -> list[Image]:
    """Return images that an oracle chooses its parameters by.

    Parameters
    ----------
    task
        What a method is given.
    most
        Number of images.

    Returns
    -------
    list of Image
        Evaluated images with a clean one, spread evenly.

    Raises
    ------
    NotApplicableError
        If there is none.
    """
    pairs = images_with_clean(task)
    if not pairs:
        raise NotApplicableError("an oracle chooses its parameters by clean images, and there are none")
    return [pairs[i] for i in spread_evenly(len(pairs), most)]


def choose_with_clean(
    task: Task,
    denoise: Callable[[np.ndarray, Parameters], np.ndarray],
    grid: Grid,
    images: Sequence[Image],
    sides: Mapping[int, Sequence[int]] = MAX_SIDES,
) -> Choice:
    """Choose parameters by the mean PSNR, as an oracle.

    Parameters
    ----------
    task
        What a method is given.
    denoise
        Function that returns the estimate of an image, (C, ...), with some parameters.
    grid
        What is tried: all combinations.
    images
        Those to choose by, with clean images.
    sides
        Sides of the part to look at, in pixels, by the number of spatial axes.

    Returns
    -------
    parameters
        Those with the highest mean PSNR.
    description
        As of :func:`calibrate`, with ``psnr`` in decibels.

    Raises
    ------
    NotApplicableError
        If no part has pixels that count and an error to measure.
    """
    candidates = combinations(grid)

    def measure(image: Image) -> list[float]:
        window = cut_window(image, task.targets, sides)
        if window.mask is not None and not window.mask.any():
            return [np.inf] * len(candidates)
        return [window.psnr(denoise(window.noisy, candidate)) for candidate in candidates]

    found = np.array(map_images(measure, images, task.workers, description="choose parameters"))
    told = np.isfinite(found).all(axis=1)
    if not told.any():
        raise NotApplicableError("in the middle of the evaluated images, there is nothing to choose parameters by")
    telling = [image for image, tells in zip(images, told, strict=True) if tells]
    parameters, description = _choose(candidates, found[told].mean(axis=0), "psnr", telling)
    for name, values in grid.items():
        if parameters[name] in (min(values), max(values)) and len(values) > 2:
            logger.warning("the best %s is at the end of what was tried: %s", name, parameters[name])
    return parameters, description


def cut_window(image: Image, targets: Targets, sides: Mapping[int, Sequence[int]] = MAX_SIDES) -> Target:
    """Return the middle of the evaluated region of an image.

    Parameters
    ----------
    image
        An image with a clean one.
    targets
        How the clean images lie on the noisy ones.
    sides
        Largest sides of the window, in pixels, by the number of spatial axes.

    Returns
    -------
    Target
        The noisy image is the window; its region is all of it.
    """
    target = targets.target(image, read_noisy(image))
    shape = target.clean.shape[1:]
    part = middle(shape, sides[len(shape)])
    return replace(
        target,
        clean=target.clean[:, *part],
        noisy=target.noisy[:, *part],
        mask=None if target.mask is None else target.mask[part],
        region=(slice(None),) * len(part),
    )


def _choose(candidates: Sequence[Parameters], score: np.ndarray, measure: str, images: Sequence[Image]) -> Choice:
    """Return the parameters with the highest score, and describe the choice. The score of a loss is negative."""
    best = candidates[int(np.argmax(score))]
    tried = []
    for candidate, value in zip(candidates, np.abs(score), strict=True):
        words = ", ".join(f"{name} {number}" for name, number in candidate.items())
        logger.info("%s: %s %.4g%s", words, measure, value, "  <- best" if candidate is best else "")
        tried.append({**candidate, measure: round(float(value), 4)})
    return best, {**best, "images": [image.name for image in images], "tried": tried}
