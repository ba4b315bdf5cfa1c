"""Estimates of the clean signal from a trained model: the mean or the median of samples, or the direct denoiser's.

Samples are divided over several views of the image, which are mirrored and shifted against the model's grid, and then
transformed back (cycle spinning): errors that depend on the position on the grid average out. Means and deviations are
updated while sampling, so memory does not grow with the number of samples.

References
----------
Coifman, Donoho: Translation-invariant de-noising, in: Wavelets and Statistics, Lecture Notes in Statistics 103 (1995).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from tempfile import NamedTemporaryFile

import numpy as np
import torch
from torch import Tensor

from dvlae.config.settings import PredictionSettings
from dvlae.inference.latent_noise import antithetic_keys
from dvlae.inference.posterior import Posterior, check_model_input, choose_batch_size, encode
from dvlae.inference.tiling import padded_shape, views
from dvlae.inference.top_down import TopDown
from dvlae.models.dvlae import DVLAE
from dvlae.system.errors import UserError
from dvlae.system.files import reserve_space

# Longest side of a tile by the number of spatial axes, in pixels.
AUTO_TILE_SIDES = {
    "cpu": {1: 2**18, 2: 512, 3: 96},
    "cuda": {1: 2**20, 2: 1024, 3: 128},
    "mps": {1: 2**18, 2: 1024, 3: 96},
}
# Values that are sorted at a time: 64 MiB.
MAX_MEDIAN_VALUES = 2**24


@dataclass(frozen=True)
class SampleBatch:
    """Samples of one part of an image.

    Attributes
    ----------
    slices
        Position in the image, one slice for each spatial axis.
    numbers
        Numbers of the samples.
    seen
        Number of samples of this part in earlier batches.
    values
        (S, C, ...) in the units of the image, on the CPU.
    """

    slices: tuple[slice, ...]
    numbers: range
    seen: int
    values: Tensor


def sample_posterior(
    model: DVLAE, image: np.ndarray, *, name: str, seed: int, settings: PredictionSettings
) -> Iterator[SampleBatch]:
    """Sample the posterior of one image, part by part; the samples are divided over the views.

    Every second sample of a view has the opposite noise of the previous one; see
    :func:`dvlae.inference.latent_noise.antithetic_keys`.

    Parameters
    ----------
    model, image, name, seed, settings
        As for :func:`denoise`.

    Yields
    ------
    SampleBatch
        All parts together hold each sample of each pixel once.
    """
    tile = choose_tile(model, settings)
    sides = [min(side, tile) for side in padded_shape(image.shape[1:], model.stride)]
    batch_size = choose_batch_size(model, sides, settings.batch_size)
    top_down, levels = TopDown(model), len(model.ladder_vae.levels)
    chosen = views(image, model.stride, model.architecture.mirrored_axes if settings.flips else (), settings.shifts)
    # Each view has at least one pair of samples.
    chosen = chosen[: math.ceil(settings.samples / 2)]
    seen = 0
    for offset, view in enumerate(chosen):
        numbers = range(offset, settings.samples, len(chosen))
        keys = antithetic_keys(seed, name, numbers, levels)
        for window, first, batch in Posterior(model, top_down, view, tile).samples(keys, batch_size):
            slices, values = view.to_image(window, batch.cpu())
            yield SampleBatch(slices, numbers[first : first + len(values)], seen + first, values)
        seen += len(numbers)


class Moments:
    """Mean and standard deviation of samples that come part by part, batch by batch.

    Parameters
    ----------
    shape
        Shape of the image, (C, ...).

    Attributes
    ----------
    mean
        (C, ...), float32.
    """

    def __init__(self, shape: tuple[int, ...]):
        self.mean = np.zeros(shape, np.float32)
        # The sum of squared deviations from the mean.
        self._deviations = np.zeros(shape, np.float32)

    def update(self, batch: SampleBatch) -> None:
        """Add samples, without a difference of large numbers.

        Parameters
        ----------
        batch
            Samples of one window.

        References
        ----------
        Chan, Golub, LeVeque: Algorithms for computing the sample variance: analysis and recommendations, The American
        Statistician 37 (1983).
        """
        mean, deviations = (torch.from_numpy(a)[:, *batch.slices] for a in (self.mean, self._deviations))
        new, total = len(batch.values), batch.seen + len(batch.values)
        new_mean = batch.values.mean(0)
        difference = new_mean - mean
        deviations += (batch.values - new_mean).square_().sum(0) + difference.square() * (batch.seen * new / total)
        mean += difference * (new / total)

    def standard_deviation(self, samples: int) -> np.ndarray | None:
        """Return the standard deviation of all samples, (C, ...); None for a single one. Call it once, at the end.

        The mean of samples with opposite noise has almost no error. The squared deviations are therefore divided by
        the number of samples, not by one less.

        Parameters
        ----------
        samples
            Number of samples.

        Returns
        -------
        numpy.ndarray or None
            (C, ...), float32.
        """
        if samples == 1:
            return None
        self._deviations /= samples
        return np.sqrt(self._deviations, out=self._deviations)


@torch.inference_mode()
def denoise(
    model: DVLAE,
    image: np.ndarray,
    *,
    name: str,
    seed: int,
    settings: PredictionSettings,
    keep: Sequence[np.ndarray] = (),
    on_progress: Callable[[int], object] = lambda pixels: None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Estimate the clean signal of one noisy image by the mean or the median of samples of the posterior.

    For the median, all samples are kept in a temporary file until the end.

    Parameters
    ----------
    model
        Trained model in evaluation mode, on the device to compute on.
    image
        Noisy image, (C, ...), in the units of the training images; any size.
    name
        Name of the image, which determines the latent noise together with the seed.
    seed
        Seed of the latent noise.
    settings
        The estimator, the number of samples, and whether they are divided over mirrored views; tile and batch size,
        which do not change the result.
    keep
        Arrays or memory-mapped files to write samples to, (S, C, ...): each gets the first S.
    on_progress
        Called with the number of pixels that were sampled since the last call.

    Returns
    -------
    estimate
        The mean, which is the MMSE estimate, or the median of each pixel: (C, ...) float32, in the units of the image.
    std
        Posterior standard deviation of each pixel, in the same units; None for a single sample.

    Raises
    ------
    UserError
        If the image has other channels or axes than the model.
    """
    check_model_input(model, image.shape, name)
    moments = Moments(image.shape)
    with ExitStack() as stack:
        if settings.estimator == "median":
            scratch = stack.enter_context(NamedTemporaryFile())
            samples = np.memmap(scratch, np.float32, "w+", shape=(settings.samples, *image.shape))
            reserve_space(scratch.name)
            keep = [*keep, samples]
        for batch in sample_posterior(model, image, name=name, seed=seed, settings=settings):
            moments.update(batch)
            for array in keep:
                for number, sample in zip(batch.numbers, batch.values, strict=True):
                    if number < len(array):
                        array[number][:, *batch.slices] = sample
            on_progress(batch.values[:, 0].numel())
        estimate = median(samples) if settings.estimator == "median" else moments.mean
    return estimate, moments.standard_deviation(settings.samples)


def median(samples: np.ndarray) -> np.ndarray:
    """Return the median of each pixel over samples (S, C, ...) in memory or in a file, a few rows at a time.

    Parameters
    ----------
    samples
        (S, C, ...).

    Returns
    -------
    numpy.ndarray
        (C, ...), float32.
    """
    result = np.empty(samples.shape[1:], np.float32)
    rows = max(1, MAX_MEDIAN_VALUES // math.prod([len(samples), *samples.shape[3:]]))
    for channel in range(samples.shape[1]):
        for start in range(0, samples.shape[2], rows):
            part = slice(start, start + rows)
            result[channel, part] = np.median(samples[:, channel, part], axis=0)
    return result


@torch.inference_mode()
def denoise_directly(
    model: DVLAE,
    image: np.ndarray,
    *,
    name: str,
    settings: PredictionSettings,
    on_progress: Callable[[int], object] = lambda pixels: None,
) -> np.ndarray:
    """Estimate the clean signal of one noisy image without samples, by the direct denoiser, tile by tile.

    The first pass computes the signal of the complete image with all latents at their means, and the second one runs
    the direct denoiser. It encodes each tile again, with a smaller halo, and only up to the levels that it uses.

    Parameters
    ----------
    model, image, name, settings, on_progress
        As for :func:`denoise`.

    Returns
    -------
    numpy.ndarray
        The mean or the median of the posterior, depending on the training of the model, (C, ...) float32, in the units
        of the image.

    Raises
    ------
    UserError
        If the model has no direct denoiser, or the image has other channels or axes than the model.
    """
    network = model.direct_denoiser
    if network is None:
        raise UserError(
            "prediction.estimator: found 'direct', but the model was trained without; train with model.direct_denoiser"
        )
    check_model_input(model, image.shape, name)
    (view,) = views(image, model.stride)
    posterior = Posterior(model, TopDown(model), view, choose_tile(model, settings))
    guess = torch.empty(1, len(image), *view.shape, device=model.mean.device)
    for window, signal in posterior.signal_of_means():
        window.crop(guess)[:] = model.normalise(signal)
        on_progress(signal[0, 0].numel())
    estimate = np.empty(image.shape, np.float32)
    used = max(network.levels, default=-1) + 1
    halo = padded_shape([network.halo], max(network.strides, default=1))[0]
    for inner in posterior.tiles:
        outer = inner.widen(halo, view.shape)
        x, features = encode(model, view, outer, used)
        signal = model.denormalise(network(x, outer.crop(guess), [features[level] for level in network.levels]))
        slices, values = view.to_image(inner, inner.within(outer).crop(signal).cpu())
        estimate[:, *slices] = values[0]
        on_progress(values[0, 0].numel())
    return estimate


def choose_tile(model: DVLAE, settings: PredictionSettings) -> int:
    """Return the longest side of a tile, in pixels, a multiple of the model's stride.

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
    tile = settings.tile
    if tile == "auto":
        # One stride more: a shifted image whose sides are powers of two is not cut into narrow tiles.
        tile = AUTO_TILE_SIDES[model.mean.device.type][model.architecture.dimensions] + model.stride
    return padded_shape([tile], model.stride)[0]
