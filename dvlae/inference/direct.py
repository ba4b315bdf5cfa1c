"""Estimates of the clean signal by the direct denoiser, without samples.

The first pass computes the signal of the complete image with all latents at their means, and the second one runs the
direct denoiser, tile by tile. It encodes each tile again, with a smaller halo, and only up to the levels that it uses.
The estimate is the mean of two views, the image and its mirror image at another position of the grid, whose errors
differ.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dvlae.config.settings import PredictionSettings
from dvlae.inference.posterior import Posterior, check_model_input, encode
from dvlae.inference.samples import choose_tile
from dvlae.inference.tiling import View, Window, padded_shape, views
from dvlae.inference.top_down import TopDown
from dvlae.models.dvlae import DVLAE
from dvlae.system.arrays import release, zeros
from dvlae.system.errors import UserError
from dvlae.system.hardware.devices import use_one_thread
from dvlae.system.workers import ThreadWorkers, one_ahead


@torch.inference_mode()
def denoise_images_directly(
    model: DVLAE,
    images: Iterable[tuple[str, np.ndarray]],
    *,
    settings: PredictionSettings,
    workers: int = 1,
    on_progress: Callable[[int], object] = lambda pixels: None,
) -> Iterator[np.ndarray]:
    """Estimate the clean signals of noisy images, one after the other, as :func:`denoise_directly` does.

    Parameters
    ----------
    model, settings, workers, on_progress
        As for :func:`dvlae.inference.estimates.denoise`.
    images
        Name and pixels of each image. They are read a little ahead.

    Yields
    ------
    numpy.ndarray
        As :func:`denoise_directly` returns it.

    Raises
    ------
    UserError
        If the model has no direct denoiser, or an image has other channels or axes than the model.
    """
    if model.direct_denoiser is None:
        raise UserError(
            "prediction.estimator: found 'direct', but the model was trained without; train with model.direct_denoiser"
        )
    top_down = TopDown(model)

    number = count_views(model, settings)
    finished: list[np.ndarray] = []
    with ThreadWorkers(workers, use_one_thread) as threads:

        def work() -> Iterator[_DirectView]:
            for name, image in images:
                check_model_input(model.architecture, image.shape, name)
                for view in _choose_views(model, image, settings):
                    yield _DirectView(model, top_down, view, choose_tile(model, settings), threads)

        for tiles in threads.in_order(one_ahead(work())):
            for tile in tiles:
                on_progress(tile.pixels)
                if tile.finished is not None:
                    finished.append(tile.finished)
                if len(finished) == number:
                    yield _mean(finished)
                    finished.clear()


def count_views(model: DVLAE, settings: PredictionSettings) -> int:
    """Return the number of views of which the estimate is the mean.

    Parameters
    ----------
    model
        A trained model.
    settings
        ``flips`` and ``shifts`` say which views there may be.

    Returns
    -------
    int
        2; 1 if there is no other view.
    """
    return len(_choose_views(model, np.empty(0), settings))


def _choose_views(model: DVLAE, image: np.ndarray, settings: PredictionSettings) -> list[View]:
    axes = model.architecture.mirrored_axes[:1] if settings.flips else ()
    first, *others = views(image, model.stride, axes, min(settings.shifts, 2))
    return [first, *others[-1:]]


def _mean(estimates: list[np.ndarray]) -> np.ndarray:
    """Return the mean of one or two estimates, in the first of them."""
    first, *others = estimates
    for other in others:
        first += other
        first /= 2
    release(*estimates)
    return first


def denoise_directly(
    model: DVLAE,
    image: np.ndarray,
    *,
    name: str,
    settings: PredictionSettings,
    workers: int = 1,
    on_progress: Callable[[int], object] = lambda pixels: None,
) -> np.ndarray:
    """Estimate the clean signal of one noisy image, without samples.

    Parameters
    ----------
    model, image, name, settings, workers, on_progress
        As for :func:`dvlae.inference.estimates.denoise`.

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
    (estimate,) = denoise_images_directly(
        model, [(name, image)], settings=settings, workers=workers, on_progress=on_progress
    )
    return estimate


@dataclass(frozen=True)
class _Tile:
    """A tile that went through one of the two passes; ``finished`` is the complete estimate after the last one."""

    pixels: int
    finished: np.ndarray | None = None


class _DirectView:
    """One view of an image, and its two passes."""

    def __init__(self, model: DVLAE, top_down: TopDown, view: View, tile: int, threads: ThreadWorkers):
        self.view, self.model, self.threads = view, model, threads
        image = view.image
        self.posterior = Posterior(model, top_down, view, tile, threads)
        self._guess = zeros((1, len(image), *view.shape))
        self.guess = torch.from_numpy(self._guess).to(model.mean.device)
        self.estimate = zeros(image.shape)
        self.guessed: list[Future[list[_Tile]]] = []

    def first_pass(self) -> "Iterator[Future[list[_Tile]]]":
        for future in self.posterior.signal_of_means(self._keep_guess):
            self.guessed.append(future)
            yield future

    def _keep_guess(self, window: Window, first: int, signal: Tensor) -> _Tile:
        window.crop(self.guess)[:] = self.model.normalise(signal)
        release(self._guess)
        return _Tile(signal[0, 0].numel())

    def second_pass(self) -> "Iterator[Future[list[_Tile]]]":
        for window in self.posterior.tiles:
            yield self.threads.submit(self._run_tile, window)

    @torch.inference_mode()
    def _run_tile(self, inner: Window) -> list[_Tile]:
        for future in self.guessed:  # The tile sees parts of its neighbours.
            future.result()
        network, model = self.model.direct_denoiser, self.model
        assert network is not None
        used = max(network.levels, default=-1) + 1
        outer = inner.widen(padded_shape(network.halo, network.strides[-1]), self.view.shape)
        x, features = encode(model, self.view, outer, used)
        signal = model.denormalise(network(x, outer.crop(self.guess), [features[level] for level in network.levels]))
        slices, values = self.view.to_image(inner, inner.within(outer).crop(signal).cpu())
        self.estimate[:, *slices] = values[0]
        release(self._guess, self.estimate)
        is_last = inner == self.posterior.tiles[-1]
        return [_Tile(values[0, 0].numel(), self.estimate if is_last else None)]
