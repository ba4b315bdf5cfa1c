"""Estimates of the clean signal by the direct denoiser, without samples.

A refined denoiser takes one pass through its networks. Another one takes two: the first computes the signal of the
complete image with all latents at their means, and the second runs the direct denoiser, tile by tile. It encodes each
tile again, with a smaller halo, and only up to the levels that it uses.

The estimate is the mean over views, whose errors differ: for a refined denoiser those of the samples, for another one
the image and its mirror image at another position of the grid.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dvlae.config.settings import PredictionSettings
from dvlae.inference.posterior import Posterior, check_model_input, encode
from dvlae.inference.samples import choose_tile, prediction_threads
from dvlae.inference.tiling import View, Window, padded_shape, views
from dvlae.inference.top_down import TopDown
from dvlae.models.direct_denoiser import DirectDenoiser, RefinedDenoiser
from dvlae.models.dvlae import DVLAE
from dvlae.system.arrays import release, zeros
from dvlae.system.errors import UserError
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
            f"prediction.estimator: found '{settings.estimator}', but the model was trained without; train with "
            "model.direct_denoiser"
        )
    make: type[_RefinedView] | type[_DirectView] = _DirectView
    if isinstance(model.direct_denoiser, RefinedDenoiser):
        make, networks = _RefinedView, model.with_refined()
    elif settings.estimator == "refined":
        found = f"direct_denoiser: {model.architecture.direct_denoiser}"
        raise UserError(
            f"prediction.estimator: found 'refined', but the model was trained with {found}; train with "
            "direct_denoiser: refined, or use the estimator direct"
        )
    else:
        networks = model
    top_down = TopDown(networks)
    number = len(_choose_views(model, np.empty(0), settings))
    finished: list[np.ndarray] = []
    with prediction_threads(model, workers, settings) as threads:

        def work() -> Iterator[_RefinedView | _DirectView]:
            for name, image in images:
                check_model_input(model.architecture, image.shape, name)
                for view in _choose_views(model, image, settings):
                    yield make(networks, top_down, view, choose_tile(model, settings), threads)

        for tiles in threads.in_order(one_ahead(work())):
            for tile in tiles:
                on_progress(tile.pixels)
                if tile.finished is not None:
                    finished.append(tile.finished)
                if len(finished) == number:
                    yield _mean(finished)
                    finished.clear()


def count_passes(model: DVLAE, settings: PredictionSettings) -> int:
    """Return how often each pixel of an image passes through the networks.

    Parameters
    ----------
    model
        A trained model.
    settings
        ``flips`` and ``shifts`` say which views there may be.

    Returns
    -------
    int
        The number of views, times that of the passes of each.
    """
    passes = 1 if isinstance(model.direct_denoiser, RefinedDenoiser) else 2
    return passes * len(_choose_views(model, np.empty(0), settings))


def _choose_views(model: DVLAE, image: np.ndarray, settings: PredictionSettings) -> list[View]:
    axes = model.architecture.mirrored_axes if settings.flips else []
    if isinstance(model.direct_denoiser, RefinedDenoiser):
        return views(image, model.stride, axes, settings.shifts)
    first, *others = views(image, model.stride, axes[:1], min(settings.shifts, 2))
    return [first, *others[-1:]]


def _mean(estimates: list[np.ndarray]) -> np.ndarray:
    """Return the mean of estimates, in the first of them."""
    first, *others = estimates
    for other in others:
        first += other
    first /= len(estimates)
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
        The estimate, (C, ...) float32, in the units of the image.

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
    """A tile that went through a pass; ``finished`` is the complete estimate after the last one."""

    pixels: int
    finished: np.ndarray | None = None


class _RefinedView:
    """One view of an image, and its pass through a refined denoiser."""

    def __init__(self, model: DVLAE, top_down: TopDown, view: View, tile: int, threads: ThreadWorkers):
        self.view, self.posterior = view, Posterior(model, top_down, view, tile, threads)
        self.estimate = zeros(view.image.shape)

    def first_pass(self) -> "Iterator[Future[list[_Tile]]]":
        return self.posterior.signal_of_means(self._keep)

    def second_pass(self) -> "Iterator[Future[list[_Tile]]]":
        return iter(())

    def _keep(self, window: Window, first: int, signal: Tensor) -> _Tile:
        slices, values = self.view.to_image(window, signal.cpu())
        self.estimate[:, *slices] = values[0]
        release(self.estimate)
        is_last = window == self.posterior.tiles[-1]
        return _Tile(values[0, 0].numel(), self.estimate if is_last else None)


class _DirectView:
    """One view of an image, and its two passes through another direct denoiser."""

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
        assert isinstance(network, DirectDenoiser)
        used = max(network.levels, default=-1) + 1
        outer = inner.widen(padded_shape(network.halo, network.strides[-1]), self.view.shape)
        x, features = encode(model, self.view, outer, used)
        signal = model.denormalise(network(x, outer.crop(self.guess), [features[level] for level in network.levels]))
        slices, values = self.view.to_image(inner, inner.within(outer).crop(signal).cpu())
        self.estimate[:, *slices] = values[0]
        release(self._guess, self.estimate)
        is_last = inner == self.posterior.tiles[-1]
        return [_Tile(values[0, 0].numel(), self.estimate if is_last else None)]
