"""Estimates of the clean signal from a trained model: the mean or the median of samples.

Means and deviations are updated while sampling, so memory does not grow with the number of samples. Those of a very
large image are in temporary files, of which only what is being updated is in memory.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter

import numpy as np
import torch

from dvlae.config.settings import PredictionSettings
from dvlae.inference.samples import SampleBatch, prediction_threads, sample_posteriors
from dvlae.inference.tiling import split_range
from dvlae.models.dvlae import DVLAE
from dvlae.system.arrays import release, zeros, zeros_in_file

# Values that are sorted, or converted, at a time: 64 MiB.
MAX_VALUES = 2**24

# Estimate and posterior standard deviation of each pixel, (C, ...).
Estimate = tuple[np.ndarray, np.ndarray | None]


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
        self.mean = zeros(shape)
        # The sum of squared deviations from the mean.
        self._deviations = zeros(shape)

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
        release(self.mean, self._deviations)

    def standard_deviation(self, settings: PredictionSettings) -> np.ndarray | None:
        """Return the standard deviation of all samples, (C, ...); None for a single one. Call it once, at the end.

        The mean of samples with opposite noise has almost no error. The squared deviations of these are therefore
        divided by the number of samples, not by one less.

        Parameters
        ----------
        settings
            Number of samples, and whether there are pairs with opposite noise.

        Returns
        -------
        numpy.ndarray or None
            (C, ...), float32.
        """
        if settings.samples == 1:
            return None
        divisor = settings.samples if settings.antithetic else settings.samples - 1
        values = self._deviations.reshape(-1)
        for part in split_range(range(values.size), MAX_VALUES):
            some = values[part.start : part.stop]
            some /= divisor
            np.sqrt(some, out=some)
            release(self._deviations)
        return self._deviations


class _Reduction:
    """Reduces the samples of one image to an estimate, part by part."""

    def __init__(self, shape: tuple[int, ...], settings: PredictionSettings, keep: Sequence[np.ndarray]):
        self.settings, self.keep = settings, list(keep)
        self.moments = Moments(shape)
        self.samples: np.ndarray | None = None
        if settings.estimator == "median":
            self.samples = zeros_in_file((settings.samples, *shape))
            self.keep.append(self.samples)

    def update(self, batch: SampleBatch) -> None:
        self.moments.update(batch)
        for array in self.keep:
            for number, sample in zip(batch.numbers, batch.values, strict=True):
                if number < len(array):
                    array[number][:, *batch.slices] = sample
            release(array)

    def estimate(self) -> Estimate:
        """Return the estimate, once, at the end."""
        mean = self.moments.mean if self.samples is None else median(self.samples)
        return mean, self.moments.standard_deviation(self.settings)


@torch.inference_mode()
def denoise_images(
    model: DVLAE,
    images: Iterable[tuple[str, np.ndarray]],
    *,
    seed: int,
    settings: PredictionSettings,
    workers: int = 1,
    keep: Callable[[str, tuple[int, ...]], Sequence[np.ndarray]] = lambda name, shape: (),
    on_progress: Callable[[int], object] = lambda pixels: None,
) -> Iterator[Estimate]:
    """Estimate the clean signals of noisy images, one after the other, as :func:`denoise` does.

    Parameters
    ----------
    model, seed, settings, workers, on_progress
        As for :func:`denoise`.
    images
        Name and pixels of each image. They are read a little ahead, so that no worker waits at the end of an image.
    keep
        Returns, for name and shape of an image, the arrays to write its samples to.

    Yields
    ------
    estimate, std
        As :func:`denoise` returns them.

    Raises
    ------
    UserError
        As for :func:`denoise`.
    """
    shapes: list[tuple[str, tuple[int, ...]]] = []

    def noted() -> Iterator[tuple[str, np.ndarray]]:
        for name, image in images:
            shapes.append((name, image.shape))
            yield name, image

    with prediction_threads(model, workers, settings) as threads:
        sampled = sample_posteriors(model, noted(), seed=seed, settings=settings, threads=threads)
        for number, batches in groupby(sampled, attrgetter("image")):
            name, shape = shapes[number]
            reduction = _Reduction(shape, settings, keep(name, shape))
            for batch in batches:
                reduction.update(batch)
                on_progress(batch.values[:, 0].numel())
            estimate = reduction.estimate()
            # Windows removes no file that is mapped.
            del reduction
            yield estimate


def denoise(
    model: DVLAE,
    image: np.ndarray,
    *,
    name: str,
    seed: int,
    settings: PredictionSettings,
    workers: int = 1,
    keep: Sequence[np.ndarray] = (),
    on_progress: Callable[[int], object] = lambda pixels: None,
) -> Estimate:
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
    workers
        Threads that share the work, for a model on a processor. Their number does not change the result.
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
    estimates = denoise_images(
        model,
        [(name, image)],
        seed=seed,
        settings=settings,
        workers=workers,
        keep=lambda name, shape: keep,
        on_progress=on_progress,
    )
    (result,) = estimates
    return result


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
    result = zeros(samples.shape[1:])
    rows = max(1, MAX_VALUES // math.prod([len(samples), *samples.shape[3:]]))
    for channel in range(samples.shape[1]):
        for start in range(0, samples.shape[2], rows):
            part = slice(start, start + rows)
            result[channel, part] = np.median(samples[:, channel, part], axis=0)
            release(samples, result)
    return result
