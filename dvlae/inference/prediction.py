"""Denoise traces, images and volumes of any size: the mean of samples from the posterior, and their deviation.

Three things keep it fast, exact and small. The bottom-up pass runs once for a tile and all its samples; what is run for
each sample is :class:`~dvlae.inference.top_down.TopDown`. An image larger than a tile is run in two parts: the coarse
levels, whose maps are small, on the whole image, and the fine levels tile by tile, with as much halo as they can see.
The latent noise is a function of the absolute position, so that a tile draws what the whole image would have drawn
there: tiled and whole results are equal up to rounding. Means and deviations are gathered while sampling.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import tifffile
import torch
from torch import Tensor

from dvlae import revision
from dvlae.config.settings import PredictionSettings, PredictSettings
from dvlae.data.canonical import read_canonical, write_image
from dvlae.data.manifest import read_manifest
from dvlae.inference.latent_noise import noise_key, normal_noise
from dvlae.inference.tiling import View, Window, make_tiles, padded_shape, views, whole_window
from dvlae.inference.top_down import TopDown
from dvlae.models.dvlae import DVLAE
from dvlae.models.files import load_to
from dvlae.models.ladder_vae import LadderVAE, LatentSampler
from dvlae.models.layers import ResidualBlock, memory_format
from dvlae.system.devices import device_name, tune_malloc
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_file, atomic_folder, reserve_space, sha256
from dvlae.system.progress import progress
from dvlae.system.reservation import reserved_devices
from dvlae.system.software import software

# Longest side of a tile by the number of spatial axes, in pixels.
AUTO_TILE_SIDES = {
    "cpu": {1: 2**18, 2: 512, 3: 96},
    "cuda": {1: 2**20, 2: 1024, 3: 128},
    "mps": {1: 2**18, 2: 1024, 3: 96},
}
# The coarse levels may have as many positions as so many tiles have pixels.
MAX_COARSE_TILES = 4
# Values in one feature map of all samples of a batch together.
AUTO_MAX_BATCH_VALUES = {"cpu": 2**22, "cuda": 2**28, "mps": 2**26}
# Values in the coarse states of all samples at hand: 1 GiB.
MAX_STATE_VALUES = 2**28
# Values that are sorted at a time: 64 MiB.
MAX_MEDIAN_VALUES = 2**24
# These stand for the keys of one sample with each latent at its mean.
MEAN_KEYS: list[list[int]] = [[]]
ESTIMATE_SETTINGS = {"samples", "estimator", "flips", "shifts"}


def bottom_up_halo(ladder_vae: LadderVAE, split: int) -> int:
    """Pixels that the bottom-up features of the levels below ``split`` see to each side, rounded up to their grid."""
    strides = [1, *ladder_vae.strides]
    reach = 1  # the stem
    for below, stride in zip(strides[:split], strides[1 : split + 1], strict=True):
        reach += below + ladder_vae.blocks * ResidualBlock.radius * stride  # the strided convolution, residual blocks
    return padded_shape([reach], strides[split])[0]


def top_down_halo(ladder_vae: LadderVAE, split: int) -> int:
    """Pixels of those features, and of the state from above, that the signal sees, rounded up to their grid."""
    strides = ladder_vae.strides[:split]
    of_level = 1 + ladder_vae.blocks * ResidualBlock.radius  # the posterior, residual blocks
    reach = TopDown.radius + of_level * sum(strides)
    return padded_shape([reach], strides[-1])[0]


def choose_split(shape: Sequence[int], tile: int, strides: list[int]) -> int:
    """Return how many levels are fine: the fewest that leave small maps to the coarse ones, all where one tile does."""
    if max(shape) > tile:
        for split, stride in enumerate(strides, start=1):
            if math.prod(shape) / stride ** len(shape) <= MAX_COARSE_TILES * tile ** len(shape):
                return split
    return len(strides)


def window_sampler(window: Window, strides: list[int], keys: list[list[int]]) -> LatentSampler:
    """Return a function that samples latents for a window of the padded image.

    Parameters
    ----------
    window
        Where.
    strides
        Of each level's grid.
    keys
        ``keys[sample][level]``, or :data:`MEAN_KEYS`.
    """

    def sample_latent(level: int, mean: Tensor, std: Tensor) -> Tensor:
        if keys == MEAN_KEYS:
            return mean
        ranges = window.grid(strides[level]).ranges
        noise = normal_noise([of_sample[level] for of_sample in keys], mean.shape[1], ranges, mean.device)
        return torch.addcmul(mean, std, noise)

    return sample_latent


class Posterior:
    """What a model says about the clean signal behind one view of a noisy image.

    Parameters
    ----------
    model
        In evaluation mode, on the device that shall compute.
    top_down
        Of that model.
    view
        The noisy image in its own units.
    tile
        Longest side of a tile, in pixels, a multiple of the model's stride. It does not change what is drawn.
    """

    def __init__(self, model: DVLAE, top_down: TopDown, view: View, tile: int):
        self.model, self.top_down, self.view = model, top_down, view
        self.ladder_vae = model.ladder_vae
        self.strides = self.ladder_vae.strides
        self.split = choose_split(view.shape, tile, self.strides)
        self.tiles = make_tiles(view.shape, tile)
        self.layout = memory_format(len(view.shape))

    def samples(self, keys: list[list[int]], batch_size: int) -> Iterator[tuple[Window, int, Tensor]]:
        """Sample denoised images, window by window.

        Parameters
        ----------
        keys
            Keys of the latent noise, ``keys[sample][level]``, or :data:`MEAN_KEYS`.
        batch_size
            Samples computed together.

        Yields
        ------
        window, first, batch
            A window, the number of the first sample, and samples (S, C, ...) of the window in the units of the image.
            Windows do not overlap, and each comes with every sample once, in their order.
        """
        coarse = self._bottom_up_coarse()
        # As many coarse states as memory allows are kept, so that a tile's features serve for all of those samples.
        values = self.ladder_vae.stem.out_channels * math.prod(self.view.shape) // self._stride ** len(self.view.shape)
        group = max(1, MAX_STATE_VALUES // values) if coarse else len(keys)
        for start in range(0, len(keys), group):
            chosen = keys[start : start + group]
            states = self._top_down_coarse(coarse, chosen, batch_size) if coarse else None
            for inner in self.tiles:
                outer = inner.widen(top_down_halo(self.ladder_vae, self.split), self.view.shape)
                precomputed = self.top_down.precompute(_bottom_up(self.model, self.view, outer, self.split)[1])
                for first in range(0, len(chosen), batch_size):
                    batch = slice(first, first + batch_size)
                    above = None if states is None else outer.crop(states[batch], self._stride)
                    state = self.top_down.run(above, precomputed, window_sampler(outer, self.strides, chosen[batch]))
                    signal = inner.within(outer).crop(self.top_down.decode(state))
                    yield inner, start + first, self.model.denormalise(signal)

    @property
    def _stride(self) -> int:
        """Of the coarsest fine level, in pixels."""
        return self.strides[self.split - 1]

    def _bottom_up_coarse(self) -> list[Tensor]:
        """Return the precomputed features of the coarse levels, on the whole image."""
        if self.split == len(self.strides):
            return []
        # What the fine levels hand to the coarse ones, put together from the tiles.
        shape = whole_window(self.view.shape).grid(self._stride).ranges
        below = torch.empty(1, self.ladder_vae.stem.out_channels, *map(len, shape), device=self.model.mean.device)
        below = below.to(memory_format=self.layout)
        for tile in self.tiles:
            tile.crop(below, self._stride)[:] = _bottom_up(self.model, self.view, tile, self.split)[1][-1]
        return self.top_down.precompute(self.ladder_vae.bottom_up(below, self.split), self.split)

    def _top_down_coarse(self, coarse: list[Tensor], keys: list[list[int]], batch_size: int) -> Tensor:
        """Return the states that the coarse levels hand to the fine ones, (S, C, ...)."""
        everywhere = whole_window(self.view.shape)
        batches = [
            self.top_down.run(None, coarse, window_sampler(everywhere, self.strides, chosen), self.split)
            for chosen in (keys[first : first + batch_size] for first in range(0, len(keys), batch_size))
        ]
        return torch.cat(batches) if len(batches) > 1 else batches[0]


@dataclass(frozen=True)
class SampleBatch:
    """Samples of one part of an image.

    Attributes
    ----------
    slices
        Where in the image, one for each spatial axis.
    numbers
        Of the samples.
    seen
        How many samples of this part came before.
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

    Each second sample of a view takes the opposite noise of the one before (antithetic variates): what is odd in the
    noise cancels in their mean, which is then as good as that of many more samples.

    Parameters
    ----------
    model, image, name, seed, settings
        As for :func:`denoise`.

    Yields
    ------
    Drawn
        All parts together hold each sample of each pixel once.
    """
    device, channels = model.mean.device, model.architecture.channels
    tile = _tile(model, settings)
    batch_size = settings.batch_size
    if batch_size == "auto":
        values = channels * math.prod(min(side, tile) for side in padded_shape(image.shape[1:], model.stride))
        batch_size = max(1, AUTO_MAX_BATCH_VALUES[device.type] // values)
    top_down, levels = TopDown(model), range(len(model.ladder_vae.levels))
    chosen = views(image, model.stride, model.architecture.mirrored_axes if settings.flips else (), settings.shifts)
    chosen = chosen[: math.ceil(settings.samples / 2)]  # a pair each, at least
    seen = 0
    for offset, view in enumerate(chosen):
        numbers = range(offset, settings.samples, len(chosen))
        keys = [[noise_key(seed, name, number, level) for level in levels] for number in numbers]
        keys[1::2] = [[~key for key in of_sample] for of_sample in keys[: len(keys) // 2 * 2 : 2]]
        for window, first, batch in Posterior(model, top_down, view, tile).samples(keys, batch_size):
            slices, values = view.to_image(window, batch.cpu())
            yield SampleBatch(slices, numbers[first : first + len(values)], seen + first, values)
        seen += len(numbers)


class Moments:
    """Mean and spread of samples that come part by part, batch by batch.

    Parameters
    ----------
    shape
        Of the image, (C, ...).

    Attributes
    ----------
    mean
        (C, ...), float32.
    """

    def __init__(self, shape: tuple[int, ...]):
        self.mean = np.zeros(shape, np.float32)
        self._deviations = np.zeros(shape, np.float32)  # sum of squared deviations from the mean

    def update(self, batch: SampleBatch) -> None:
        """Count some more samples in.

        Chan, Golub & LeVeque, "Algorithms for computing the sample variance", 1983: no difference of large numbers.
        """
        mean, deviations = (torch.from_numpy(a)[:, *batch.slices] for a in (self.mean, self._deviations))
        new, total = len(batch.values), batch.seen + len(batch.values)
        new_mean = batch.values.mean(0)
        difference = new_mean - mean
        deviations += (batch.values - new_mean).square_().sum(0) + difference.square() * (batch.seen * new / total)
        mean += difference * (new / total)

    def standard_deviation(self, samples: int) -> np.ndarray | None:
        """Return it, (C, ...), after so many samples; None for one. It takes the place of what was gathered.

        The mean of samples with opposite noise has next to no error of its own: deviations from it are divided by
        their number, not by one less.
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
    """Estimate the clean signal of one noisy image by the mean of samples of the posterior.

    Parameters
    ----------
    model
        A trained model, in evaluation mode, on the device that shall compute.
    image
        Noisy image, (C, ...), in the units of the training images; any size.
    name
        The image's name: with the seed it fixes the latent noise.
    seed
        Fixes the samples.
    settings
        Number of samples, and whether they are divided over mirrored views; tile and batch size, which do not change
        the result.
    keep
        Arrays or memory-mapped files to write samples to, (S, C, ...): each gets the first S.
    on_progress
        Called with the number of pixels that were sampled since the last call.

    Returns
    -------
    mean
        MMSE estimate, (C, ...) float32, in the units of the image.
    std
        Posterior standard deviation of each pixel, likewise; None for a single sample, which has none.

    Raises
    ------
    UserError
        Where the image has other channels or axes than the model.
    """
    _check_fits(model, image, name)
    moments = Moments(image.shape)
    for batch in sample_posterior(model, image, name=name, seed=seed, settings=settings):
        moments.update(batch)
        for array in keep:
            for number, sample in zip(batch.numbers, batch.values, strict=True):
                if number < len(array):
                    array[number][:, *batch.slices] = sample
        on_progress(batch.values[:, 0].numel())
    return moments.mean, moments.standard_deviation(settings.samples)


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

    First the whole signal where the latents are at their means, then the direct denoiser. Each tile goes up through the
    ladder VAE anew for that: with less around it, and only through the levels that the direct denoiser looks at.

    Parameters
    ----------
    model, image, name, settings, on_progress
        As for :func:`denoise`.

    Returns
    -------
    numpy.ndarray
        The mean or the median of the posterior, as the model was trained, (C, ...) float32, in the units of the image.

    Raises
    ------
    UserError
        Where the model has no direct denoiser, or the image has other channels or axes than the model.
    """
    network = model.direct_denoiser
    if network is None:
        raise UserError(
            "prediction.estimator: found 'direct', but the model was trained without; train with model.direct_denoiser"
        )
    _check_fits(model, image, name)
    (view,) = views(image, model.stride)
    posterior = Posterior(model, TopDown(model), view, _tile(model, settings))
    guess = torch.empty(1, len(image), *view.shape, device=model.mean.device)
    for window, _, signal in posterior.samples(MEAN_KEYS, 1):
        window.crop(guess)[:] = model.normalise(signal)
        on_progress(signal[0, 0].numel())
    estimate = np.empty(image.shape, np.float32)
    used = max(network.levels, default=-1) + 1
    halo = padded_shape([network.halo], max(network.strides, default=1))[0]
    for inner in posterior.tiles:
        outer = inner.widen(halo, view.shape)
        x, features = _bottom_up(model, view, outer, used)
        signal = model.denormalise(network(x, outer.crop(guess), [features[level] for level in network.levels]))
        slices, values = view.to_image(inner, inner.within(outer).crop(signal).cpu())
        estimate[:, *slices] = values[0]
        on_progress(values[0, 0].numel())
    return estimate


def _tile(model: DVLAE, settings: PredictionSettings) -> int:
    """Return the longest side of a tile, in pixels, a multiple of the model's stride."""
    tile = settings.tile
    if tile == "auto":
        # A stride more, so that an image whose sides are powers of two, shifted, is not cut into slivers.
        tile = AUTO_TILE_SIDES[model.mean.device.type][model.architecture.dimensions] + model.stride
    return padded_shape([tile], model.stride)[0]


def _bottom_up(model: DVLAE, view: View, window: Window, split: int) -> tuple[Tensor, list[Tensor]]:
    """Run the bottom-up path through the levels below ``split``.

    Returns
    -------
    x
        The window of the view, normalised, (1, C, ...).
    features
        Of those levels in the window, (1, channels, ...).
    """
    ladder_vae = model.ladder_vae
    outer = window.widen(bottom_up_halo(ladder_vae, split), view.shape)
    image = torch.from_numpy(view.extract(outer)).to(model.mean.device)[None]
    x = model.normalise(image.contiguous(memory_format=memory_format(len(view.shape))))
    features = ladder_vae.bottom_up(ladder_vae.stem(x), 0, split)
    inner = window.within(outer)
    cut = [inner.crop(maps, stride) for maps, stride in zip(features, ladder_vae.strides, strict=False)]
    return inner.crop(x), cut


def _check_fits(model: DVLAE, image: np.ndarray, name: str) -> None:
    a = model.architecture
    if image.ndim - 1 != a.dimensions:
        raise UserError(f"{name}: found {image.ndim - 1} spatial axes, but the model was trained on {a.dimensions}")
    if len(image) != a.image_channels:
        raise UserError(f"{name}: found {len(image)} channels, but the model was trained on {a.image_channels}")


def median(samples: np.ndarray) -> np.ndarray:
    """Return the median of each pixel over samples (S, C, ...) in memory or in a file, a few rows at a time."""
    result = np.empty(samples.shape[1:], np.float32)
    rows = max(1, MAX_MEDIAN_VALUES // math.prod([len(samples), *samples.shape[3:]]))
    for channel in range(samples.shape[1]):
        for start in range(0, samples.shape[2], rows):
            part = slice(start, start + rows)
            result[channel, part] = np.median(samples[:, channel, part], axis=0)
    return result


def predict(
    model: Path,
    images: Path,
    denoised: Path,
    uncertainty: Path,
    samples: Path | None = None,
    *,
    seed: int,
    settings: PredictSettings,
) -> None:
    """Denoise every image of a manifest.

    An interrupted prediction that is asked for again goes on after the last image that was finished.

    Parameters
    ----------
    model
        Folder of a trained model.
    images
        Folder with ``manifest.csv``.
    denoised, uncertainty
        Folders to make: estimates and posterior standard deviations, one TIFF an image, in the image's units. A single
        sample has no standard deviation; ``uncertainty`` is then empty. ``prediction.json`` beside ``denoised`` says
        how: settings, seed, model, seconds, versions.
    samples
        Folder to make: the first ``settings.prediction.save_samples`` samples, one TIFF an image, (S, C, ...).
    seed
        Fixes the samples.
    settings
        Estimator, samples, tile, batch size and device.

    Raises
    ------
    UserError
        Where the model or an image cannot be used, or the device is missing.
    """
    tune_malloc()
    manifest = read_manifest(images)
    how = settings.prediction
    record = Path(denoised).with_name("prediction.json")
    passes = 2 if how.estimator == "direct" else how.samples
    total = passes * sum(math.prod(image.shape[1:]) for image in manifest)
    with ExitStack() as stack:
        (device,) = stack.enter_context(reserved_devices(settings.device))
        start = time.monotonic()
        network = load_to(device, model)
        inputs = _inputs(model, images, seed, how)
        denoised, uncertainty = (stack.enter_context(atomic_folder(f, inputs)) for f in (denoised, uncertainty))
        samples = samples and stack.enter_context(atomic_folder(samples, inputs))
        bar = stack.enter_context(progress(total=total, description="predict", unit="px", unit_scale=True))
        for image in manifest:
            arguments = {"name": image.name, "settings": how, "on_progress": bar.update}
            noisy, file = read_canonical(image.noisy), f"{image.name}.tif"
            if (denoised / file).exists():  # the last that was written of it, before an interruption
                bar.update(passes * math.prod(image.shape[1:]))
                continue
            if how.estimator == "direct":
                estimate, std = denoise_directly(network, noisy, **arguments), None
            else:
                keep = []
                if samples is not None and how.save_samples:
                    keep.append(_sample_file(samples / file, (how.save_samples, *noisy.shape)))
                choose = _denoise_by_median if how.estimator == "median" else denoise
                estimate, std = choose(network, noisy, seed=seed, keep=keep, **arguments)
            if std is not None:
                write_image(uncertainty / file, std)
            write_image(denoised / file, estimate)
    description = {
        "settings": how.model_dump(mode="json", include=ESTIMATE_SETTINGS),
        "seed": seed,
        "revision": revision.PREDICTION,
        "weights_sha256": sha256(model / "weights.safetensors"),
        "device": device_name(next(network.parameters()).device),
        "seconds": round(time.monotonic() - start, 1),
        **software(),
    }
    with atomic_file(record) as path:
        path.write_text(json.dumps(description, indent=2) + "\n")


def _inputs(model: Path, images: Path, seed: int, settings: PredictionSettings) -> str:
    """Describe all that the estimates depend on, so that those of an interrupted prediction can be kept."""
    description = {
        "weights": sha256(model / "weights.safetensors"),
        "images": (images / "manifest.csv").stat().st_mtime_ns,  # it is written when they are
        "seed": seed,
        "settings": settings.model_dump(mode="json", include=ESTIMATE_SETTINGS | {"save_samples"}),
        "revision": revision.PREDICTION,
    }
    return json.dumps(description)


def _denoise_by_median(model: DVLAE, image: np.ndarray, *, keep: Sequence[np.ndarray], settings, **arguments):
    """Return the median of samples and their standard deviation; the samples are kept in a temporary file meanwhile."""
    with NamedTemporaryFile() as scratch:
        samples = np.memmap(scratch, np.float32, "w+", shape=(settings.samples, *image.shape))
        reserve_space(scratch.name)
        _, std = denoise(model, image, settings=settings, keep=[*keep, samples], **arguments)
        return median(samples), std


def _sample_file(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """Make a TIFF (S, C, ...) that is written in parts."""
    axes = "QC" + "ZYX"[5 - len(shape) :]  # Q: an axis without a meaning to readers of TIFF
    samples = tifffile.memmap(path, shape=shape, dtype=np.float32, photometric="minisblack", metadata={"axes": axes})
    reserve_space(path)
    return samples
