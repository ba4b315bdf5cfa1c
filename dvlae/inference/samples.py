"""Samples of the posterior of images, view by view and tile by tile.

Samples are divided over several views of the image, which are mirrored and shifted against the model's grid, and then
transformed back (cycle spinning): errors that depend on the position on the grid average out.

References
----------
Coifman, Donoho: Translation-invariant de-noising, in: Wavelets and Statistics, Lecture Notes in Statistics 103 (1995).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dvlae.config.settings import PredictionSettings
from dvlae.inference.latent_noise import NoiseKey, antithetic_keys, sample_keys
from dvlae.inference.posterior import Posterior, check_model_input, choose_batch_size
from dvlae.inference.tiling import Window, padded_shape, views
from dvlae.inference.top_down import TopDown
from dvlae.models.dvlae import DVLAE
from dvlae.system.errors import UserError
from dvlae.system.hardware.devices import has_fast_bfloat16, use_one_thread
from dvlae.system.workers import ThreadWorkers, one_ahead

# Longest side of a tile by the number of spatial axes, in pixels.
AUTO_TILE_SIDES = {
    "cpu": {1: 2**18, 2: 512, 3: 96},
    "cuda": {1: 2**20, 2: 1024, 3: 128},
    "mps": {1: 2**18, 2: 1024, 3: 96},
}
# What a worker needs at most: feature maps of a batch of samples of a tile, halo included, and bytes for all the rest.
# Measured were up to 345 MiB where this gives 392 MiB (16 channels, 1100 x 1100 pixels), and 466 where it gives 872 MiB
# (48 channels, 500 x 500 pixels).
MAPS_OF_WORKER = 16
BYTES_OF_WORKER = 2**27
# A part of the variance of the images. Less noise would be too close to the rounding of bfloat16: on SEM images, whose
# noise has 7 % of their variance, it was 0.2 % of the standard deviation of the noise.
MIN_NOISE = 0.05
# In pixels. The halo of a smaller tile takes most of the memory.
MIN_TILE = 16


@dataclass(frozen=True)
class SampleBatch:
    """Samples of one part of an image.

    Attributes
    ----------
    image
        Number of the image.
    slices
        Position in the image, one slice for each spatial axis.
    numbers
        Numbers of the samples.
    seen
        Number of samples of this part in earlier batches.
    values
        (S, C, ...) in the units of the image, on the CPU.
    """

    image: int
    slices: tuple[slice, ...]
    numbers: range
    seen: int
    values: Tensor


def choose_precision(model: DVLAE, settings: PredictionSettings, noise: float | None) -> str:
    """Return the precision of the networks in a prediction.

    Parameters
    ----------
    model
        A model on the device to compute on.
    settings
        The precision, and the estimator.
    noise
        The part of the variance of the training images that is noise; None: not known.

    Returns
    -------
    str
        ``32`` or ``bf16``; with ``auto``, bfloat16 for samples where it is fast, and its rounding small beside the
        noise. Direct estimates are fast anyway, and equal to those of exported models. Volumes on a processor have 32
        bits, as oneDNN fails at one or two planes in bfloat16.
    """
    device = model.mean.device
    if device.type == "cpu" and model.architecture.dimensions == 3:
        return "32"
    if settings.precision != "auto":
        return settings.precision
    suits = settings.draws_samples and noise is not None and noise >= MIN_NOISE
    return "bf16" if suits and has_fast_bfloat16(device) else "32"


def prediction_threads(model: DVLAE, workers: int, settings: PredictionSettings) -> ThreadWorkers:
    """Return the threads of a prediction, which compute in its precision; with ``auto``, in 32 bits.

    Parameters
    ----------
    model, workers, settings
        As for :func:`dvlae.inference.estimates.denoise`.

    Returns
    -------
    ThreadWorkers
        The threads.
    """
    if choose_precision(model, settings, None) == "32":
        return ThreadWorkers(workers, use_one_thread)
    return ThreadWorkers(workers, use_one_thread, partial(torch.autocast, model.mean.device.type, torch.bfloat16))


def sample_posteriors(
    model: DVLAE,
    images: Iterable[tuple[str, np.ndarray]],
    *,
    seed: int,
    settings: PredictionSettings,
    threads: ThreadWorkers,
) -> Iterator[SampleBatch]:
    """Sample the posteriors of images, part by part; the samples are divided over the views.

    With ``antithetic``, every second sample of a view has the opposite noise of the previous one; see
    :func:`dvlae.inference.latent_noise.antithetic_keys`.

    Parameters
    ----------
    model, seed, settings, threads
        As for :func:`dvlae.inference.estimates.denoise_images`.
    images
        Name and pixels of each image. They are read a little ahead.

    Yields
    ------
    SampleBatch
        One image after the other. All parts of an image together hold each sample of each pixel once.
    """
    top_down = TopDown(model)

    def sampled_views() -> Iterator[_SampledView]:
        for number, (name, image) in enumerate(images):
            yield from _sampled_views(model, top_down, number, name, image, seed, settings, threads)

    for batches in threads.in_order(one_ahead(sampled_views())):
        yield from batches


@dataclass(frozen=True)
class _SampledView:
    """A view of an image, and the samples that are taken from it."""

    posterior: Posterior
    image: int
    numbers: range
    seen: int
    keys: Sequence[Sequence[NoiseKey]]
    batch_size: int

    def first_pass(self) -> "Iterable[Future[list[SampleBatch]]]":
        """Submit nothing: the posterior has submitted the coarse levels when it was made."""
        return ()

    def second_pass(self) -> "Iterable[Future[list[SampleBatch]]]":
        return self.posterior.samples(self.keys, self.batch_size, self._to_image)

    def _to_image(self, window: Window, first: int, samples: Tensor) -> SampleBatch:
        """Transform samples back to the image."""
        slices, values = self.posterior.view.to_image(window, samples.cpu())
        return SampleBatch(self.image, slices, self.numbers[first : first + len(values)], self.seen + first, values)


def _sampled_views(
    model: DVLAE,
    top_down: TopDown,
    number: int,
    name: str,
    image: np.ndarray,
    seed: int,
    settings: PredictionSettings,
    threads: ThreadWorkers,
) -> Iterator[_SampledView]:
    """Yield the views of one image."""
    check_model_input(model.architecture, image.shape, name)
    tile = choose_tile(model, settings)
    batch_size = choose_batch_size(model, _tile_sides(model, image.shape, tile), settings.batch_size)
    flipped_axes = model.architecture.mirrored_axes if settings.flips else ()
    chosen = views(image, model.stride, flipped_axes, settings.shifts)[: _most_views(settings)]
    keys_of = antithetic_keys if settings.antithetic else sample_keys
    seen = 0
    for offset, view in enumerate(chosen):
        numbers = range(offset, settings.samples, len(chosen))
        keys = keys_of(seed, name, numbers, len(model.ladder_vae.levels))
        posterior = Posterior(model, top_down, view, tile, threads)
        yield _SampledView(posterior, number, numbers, seen, keys, batch_size)
        seen += len(numbers)


def _most_views(settings: PredictionSettings) -> int:
    """Return the number of views of which each has a sample or, where they are antithetic, a pair."""
    return math.ceil(settings.samples / (2 if settings.antithetic else 1))


def _tile_sides(model: DVLAE, shape: Sequence[int], tile: int) -> list[int]:
    """Return the sides of the largest tile of an image of shape (C, ...)."""
    return [min(side, tile) for side in padded_shape(shape[1:], model.stride)]


def choose_tile(model: DVLAE, settings: PredictionSettings) -> int:
    """Return the longest side of a tile, in pixels, a multiple of the model's strides.

    Parameters
    ----------
    model
        Model on the device to compute on, on which ``auto`` depends.
    settings
        Settings of the prediction; ``tile`` may be ``auto``.

    Returns
    -------
    int
        In pixels.
    """
    tile, stride = settings.tile, max(model.stride)  # All strides are powers of two.
    if tile == "auto":
        # One stride more: a shifted image whose sides are powers of two is not cut into narrow tiles.
        tile = AUTO_TILE_SIDES[model.mean.device.type][model.architecture.dimensions] + stride
    return padded_shape([tile], [stride])[0]


def halve_portions(model: DVLAE, shape: Sequence[int], settings: PredictionSettings) -> PredictionSettings:
    """Return settings that need less memory and give the same estimates: half the batch or, of one sample, half a tile.

    Parameters
    ----------
    model
        Model on the device to compute on.
    shape
        Shape of the image for which memory does not suffice, (C, ...).
    settings
        Settings of the prediction.

    Returns
    -------
    PredictionSettings
        Settings with numbers for the tile and the batch.

    Raises
    ------
    UserError
        If the tile is as small as can be.
    """
    tile = min(choose_tile(model, settings), max(padded_shape(shape[1:], model.stride)))
    batch = 1
    if settings.draws_samples:
        batch = choose_batch_size(model, _tile_sides(model, shape, tile), settings.batch_size)
        batch = min(batch, settings.samples)
    if batch > 1:
        return settings.model_copy(update={"batch_size": batch // 2, "tile": tile})
    stride = max(model.stride)
    half = tile // 2 // stride * stride
    if half < max(stride, MIN_TILE):
        raise UserError(f"predict: the memory of the GPU does not suffice for a tile of {tile} pixels; use device: cpu")
    return settings.model_copy(update={"batch_size": 1, "tile": half})


def count_parts(model: DVLAE, shape: Sequence[int], settings: PredictionSettings) -> int:
    """Return into how many parts, views and tiles, the work on an image is divided.

    Parameters
    ----------
    model
        Model on the device to compute on.
    shape
        Shape of the image, (C, ...).
    settings
        Settings of the prediction.

    Returns
    -------
    int
        At least 1.
    """
    tile = choose_tile(model, settings)
    tiles = math.prod(math.ceil(side / tile) for side in shape[1:])
    if not settings.draws_samples:
        return tiles
    flips = 2 ** len(model.architecture.mirrored_axes) if settings.flips else 1
    return tiles * min(flips * min(settings.shifts, max(model.stride)), _most_views(settings))


def worker_memory(model: DVLAE, shapes: Iterable[Sequence[int]], settings: PredictionSettings) -> int:
    """Return how much memory one worker takes at most, besides that of the images.

    Parameters
    ----------
    model
        Model on the device to compute on.
    shapes
        Shapes of the images, (C, ...).
    settings
        Settings of the prediction.

    Returns
    -------
    int
        In bytes.
    """
    tile, values = choose_tile(model, settings), 0
    for shape in shapes:
        sides = _tile_sides(model, shape, tile)
        of_batch = choose_batch_size(model, sides, settings.batch_size) if settings.draws_samples else 1
        values = max(values, of_batch * math.prod(sides))
    return BYTES_OF_WORKER + MAPS_OF_WORKER * model.architecture.channels * values * 4
