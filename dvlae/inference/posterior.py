"""Encode noisy images, and sample their latents and their denoised images from the posterior q(z | x).

The bottom-up pass runs once for an image, or for a tile of it, and serves all samples. There are two top-down passes.
:class:`Posterior` samples denoised images of any size: it runs :class:`~dvlae.inference.top_down.TopDown`, on the
complete image for the coarse levels, whose maps are small, and tile by tile for the fine levels, with a halo as large
as they see. Likelihood, levels and generation need all latents of an image at once: they pass the output of
:func:`encode_image` and a :func:`latent_sampler` to the ladder VAE. In both cases the latent noise depends on the
absolute position. A tile is therefore sampled as in the complete image, and the results are equal up to rounding.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from dvlae.axes import format_sides
from dvlae.inference.latent_noise import NoiseKey, latent_sampler
from dvlae.inference.tiling import View, Window, make_tiles, padded_shape, split_range, views, whole_window
from dvlae.inference.top_down import TopDown, top_down_halo
from dvlae.models.architecture import Architecture
from dvlae.models.dvlae import DVLAE
from dvlae.models.ladder import Ladder
from dvlae.models.latents import LatentSampler, take_mean
from dvlae.models.layers import ResidualBlock, memory_format
from dvlae.system.errors import UserError
from dvlae.system.wording import count
from dvlae.system.workers import ThreadWorkers

Result = TypeVar("Result")

# The coarse levels have at most as many positions as this number of tiles has pixels.
MAX_COARSE_TILES = 4
# Values in one feature map, pixels times channels, of all samples of a batch together.
MAX_BATCH_VALUES = {"cpu": 2**22, "cuda": 2**28, "mps": 2**26}
# Values in the coarse states that are kept: 1 GiB.
MAX_STATE_VALUES = 2**28
# Values in one feature map where all latents are computed at once: 6 to 11 GiB in total.
MAX_MAP_VALUES = 2**27


def check_model_input(architecture: Architecture, shape: Sequence[int], name: str) -> None:
    """Refuse an image that has other channels or axes than those that a model was trained on.

    Parameters
    ----------
    architecture
        The sizes of the model.
    shape
        Shape of the image, (C, ...).
    name
        Name of the image, for the message.

    Raises
    ------
    UserError
        The message names what was found and what is allowed.
    """
    if (shape[0], len(shape) - 1) != (architecture.image_channels, architecture.dimensions):
        raise UserError(
            f"{name}: found {_kind_of_image(shape[0], len(shape) - 1)}, but the model was trained on "
            f"{_kind_of_image(architecture.image_channels, architecture.dimensions)}"
        )


def _kind_of_image(channels: int, dimensions: int) -> str:
    return f"{count(channels, 'channel')} and {dimensions} spatial {'axis' if dimensions == 1 else 'axes'}"


def check_whole_input(model: DVLAE, shape: Sequence[int], name: str, remedy: str = "") -> None:
    """Refuse an image as :func:`check_model_input` does, and one that is too large for all its latents at once.

    Parameters
    ----------
    model
        Trained model.
    shape, name
        As for :func:`check_model_input`.
    remedy
        What to do about an image that is too large, at the end of the message.

    Raises
    ------
    UserError
        The message names what was found and what is allowed.
    """
    check_model_input(model.architecture, shape, name)
    allowed = MAX_MAP_VALUES // model.architecture.channels
    if math.prod(shape[1:]) > allowed:
        raise UserError(
            f"{name}: found {format_sides(shape[1:])} pixels, allowed: {allowed:,} in all for this model, as they are "
            f"computed at once{remedy}"
        )


def choose_batch_size(
    model: DVLAE, sides: Sequence[int], batch_size: int | str = "auto", *, all_latents: bool = False
) -> int:
    """Return how many samples to compute together.

    Parameters
    ----------
    model
        Model on the device to compute on.
    sides
        Sides of the part that is computed of each sample, in pixels.
    batch_size
        A number, which is returned unchanged, or ``"auto"``, to choose it for the device.
    all_latents
        Whether all latents of an image are computed at once, which takes more memory.

    Returns
    -------
    int
        At least 1.
    """
    if batch_size != "auto":
        return int(batch_size)
    allowed = MAX_BATCH_VALUES[model.mean.device.type]
    if all_latents:
        allowed = min(allowed, MAX_MAP_VALUES)
    return max(1, allowed // (model.architecture.channels * math.prod(padded_shape(sides, model.stride))))


def bottom_up_halo(ladder_vae: Ladder, split: int) -> tuple[int, ...]:
    """Return the pixels that the features of the levels below ``split`` see to each side, rounded up to their grid.

    Parameters
    ----------
    ladder_vae
        The part of the model with all levels.
    split
        Number of fine levels.

    Returns
    -------
    tuple of int
        In pixels of the image, along each spatial axis.
    """
    strides, reach = [tuple(1 for _ in ladder_vae.strides[0]), *ladder_vae.strides], []
    for along_axis in zip(*strides[: split + 1], strict=True):
        seen = ladder_vae.stem_radius
        for below, stride in pairwise(along_axis):
            # The strided convolution comes first, the residual blocks follow.
            seen += below + ladder_vae.blocks * ResidualBlock.radius * stride
        reach.append(seen)
    return padded_shape(reach, strides[split])


def choose_split(shape: Sequence[int], tile: int, strides: Sequence[Sequence[int]]) -> int:
    """Return the number of fine levels: as few as leave small maps to the coarse levels, or all if one tile suffices.

    Parameters
    ----------
    shape
        Sides of the padded image, in pixels.
    tile
        The longest side of a tile, in pixels.
    strides
        Pixels of the image to one position of each level's grid, along each spatial axis, finest first.

    Returns
    -------
    int
        At least 1.
    """
    if max(shape) > tile:
        for split, stride in enumerate(strides, start=1):
            if math.prod(shape) / math.prod(stride) <= MAX_COARSE_TILES * tile ** len(shape):
                return split
    return len(strides)


def encode(model: DVLAE, view: View, window: Window, split: int) -> tuple[Tensor, list[Tensor]]:
    """Run the bottom-up path of a window through the levels below ``split``.

    Parameters
    ----------
    model
        Model in evaluation mode, on the device to compute on.
    view
        The image in its own units.
    window
        Window of the view.
    split
        Number of levels.

    Returns
    -------
    x
        The window of the view, normalised, (1, C, ...).
    features
        Features of those levels in the window, finest first, (1, channels, ...).
    """
    ladder_vae = model.ladder_vae
    outer = window.widen(bottom_up_halo(ladder_vae, split), view.shape)
    image = torch.from_numpy(view.extract(outer)).to(model.mean.device)[None]
    x = model.normalise(image.contiguous(memory_format=memory_format(len(view.shape))))
    features = ladder_vae.bottom_up(ladder_vae.stem(x), 0, split)
    inner = window.within(outer)
    cut = [inner.crop(maps, stride) for maps, stride in zip(features, ladder_vae.strides, strict=False)]
    return inner.crop(x), cut


def encode_image(model: DVLAE, image: np.ndarray) -> tuple[Tensor, list[Tensor]]:
    """Run the bottom-up path of a complete image through all levels.

    Parameters
    ----------
    model
        Model in evaluation mode, on the device to compute on.
    image
        (C, ...) in its own units; any size.

    Returns
    -------
    x
        The image, normalised and padded to a multiple of the model's stride at the end of each axis, (1, C, ...).
    features
        Features of each level, finest first, (1, channels, ...).
    """
    (view,) = views(image, model.stride)
    return encode(model, view, whole_window(view.shape), len(model.ladder_vae.levels))


def repeat_features(features: list[Tensor], times: int) -> list[Tensor]:
    """Repeat features of one image for a batch of samples, without copying.

    Parameters
    ----------
    features
        Features of each level, (1, C, ...).
    times
        Number of samples in the batch.

    Returns
    -------
    list of Tensor
        Features of each level, (times, C, ...): views of those that were given.
    """
    return [feature.expand(times, *feature.shape[1:]) for feature in features]


class Posterior:
    """The posterior of the clean signal, given one view of a noisy image.

    Parameters
    ----------
    model
        Model in evaluation mode, on the device to compute on.
    top_down
        The top-down path of that model.
    view
        The noisy image in its own units.
    tile
        Longest side of a tile, in pixels, a multiple of the model's strides. It does not change what is sampled.
    threads
        Threads that share the work. They do not change what is sampled.
    """

    def __init__(self, model: DVLAE, top_down: TopDown, view: View, tile: int, threads: ThreadWorkers):
        self.model, self.top_down, self.view, self.threads = model, top_down, view, threads
        self.ladder_vae = model.ladder_vae
        self.strides = self.ladder_vae.strides
        self.split = choose_split(view.shape, tile, self.strides)
        self.tiles = make_tiles(view.shape, tile)
        # The precomputed features of the coarse levels; None: there are no coarse levels.
        self._coarse: Future[list[Tensor]] | None = None
        if self.split < len(self.strides):
            encoded = [threads.submit(self._encode, tile) for tile in self.tiles]
            self._coarse = threads.submit(self._bottom_up_coarse, encoded)

    def samples(
        self, keys: Sequence[Sequence[NoiseKey]], batch_size: int, finish: Callable[[Window, int, Tensor], Result]
    ) -> "Iterator[Future[list[Result]]]":
        """Sample denoised images, window by window.

        Parameters
        ----------
        keys
            Keys of the latent noise, ``keys[sample][level]``.
        batch_size
            Samples computed together.
        finish
            Called with each batch: the window, the number of the first sample, and samples (S, C, ...) of the window in
            the units of the image. Windows do not overlap, and each comes with every sample once, in their order.

        Returns
        -------
        Iterator
            For each window, what ``finish`` returns for its batches. The work is submitted as the iterator is read.
        """

        def make_sampler(window: Window, numbers: range) -> LatentSampler:
            return latent_sampler([keys[number] for number in numbers], window, self.strides)

        return self._run(range(len(keys)), batch_size, make_sampler, finish)

    def signal_of_means(self, finish: Callable[[Window, int, Tensor], Result]) -> "Iterator[Future[list[Result]]]":
        """Do what :meth:`samples` does, with one sample, whose latents are all at their means.

        Parameters
        ----------
        finish
            As for :meth:`samples`.

        Returns
        -------
        Iterator
            As that of :meth:`samples`.
        """
        return self._run(range(1), 1, lambda window, numbers: take_mean, finish)

    def _run(
        self,
        numbers: range,
        batch_size: int,
        make_sampler: Callable[[Window, range], LatentSampler],
        finish: Callable[[Window, int, Tensor], Result],
    ) -> "Iterator[Future[list[Result]]]":
        """Yield what :meth:`samples` does; ``make_sampler(window, numbers)`` samples latents with these numbers."""
        # As many coarse states are kept as memory allows: the features of a tile then serve all of these samples.
        values = self.ladder_vae.channels * math.prod(self.view.shape) // math.prod(self._stride)
        group = max(1, MAX_STATE_VALUES // values) if self._coarse is not None else len(numbers)
        everywhere = whole_window(self.view.shape)
        for kept in split_range(numbers, group):
            batches = split_range(kept, batch_size)
            states = [self.threads.submit(self._run_coarse, make_sampler(everywhere, batch)) for batch in batches]
            for inner in self.tiles:
                yield self.threads.submit(self._run_tile, inner, batches, states, make_sampler, finish)

    @torch.inference_mode()
    def _run_coarse(self, sample_latent: LatentSampler) -> Tensor | None:
        """Sample the coarse levels in the complete image; return their state, None if there are no coarse levels."""
        if self._coarse is None:
            return None
        return self.top_down.run(None, self._coarse.result(), sample_latent, self.split)

    @torch.inference_mode()
    def _run_tile(
        self,
        inner: Window,
        batches: list[range],
        states: "list[Future[Tensor | None]]",
        make_sampler: Callable[[Window, range], LatentSampler],
        finish: Callable[[Window, int, Tensor], Result],
    ) -> list[Result]:
        """Sample the fine levels in one window, given the states of the coarse ones."""
        outer = inner.widen(top_down_halo(self.ladder_vae, self.split), self.view.shape)
        precomputed = self.top_down.precompute(encode(self.model, self.view, outer, self.split)[1])
        results = []
        for batch, coarse in zip(batches, states, strict=True):
            state = coarse.result()
            above = None if state is None else outer.crop(state, self._stride)
            below = self.top_down.run(above, precomputed, make_sampler(outer, batch))
            signal = inner.within(outer).crop(self.top_down.decode(below))
            results.append(finish(inner, batch.start, self.model.denormalise(signal)))
        return results

    @property
    def _stride(self) -> tuple[int, ...]:
        """The stride of the coarsest fine level along each spatial axis, in pixels."""
        return self.strides[self.split - 1]

    @torch.inference_mode()
    def _encode(self, tile: Window) -> Tensor:
        """Return the features of the coarsest fine level in a tile."""
        return encode(self.model, self.view, tile, self.split)[1][-1]

    @torch.inference_mode()
    def _bottom_up_coarse(self, encoded: "list[Future[Tensor]]") -> list[Tensor]:
        """Return the precomputed features of the coarse levels for the complete image, given those of the tiles."""
        shape = whole_window(self.view.shape).grid(self._stride).ranges
        below = torch.empty(1, self.ladder_vae.channels, *map(len, shape), device=self.model.mean.device)
        below = below.to(memory_format=memory_format(len(shape)))
        for tile, features in zip(self.tiles, encoded, strict=True):
            tile.crop(below, self._stride)[:] = features.result()
        return self.top_down.precompute(self.ladder_vae.bottom_up(below, self.split), self.split)
