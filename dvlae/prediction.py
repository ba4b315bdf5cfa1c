"""Denoise images of any size: the mean of samples from the posterior, and their standard deviation.

Three things keep it fast, exact and small. Where an image fits a tile, the bottom-up pass runs once and only the
top-down pass is repeated, in batches of samples. An image larger than a tile is run in two parts: the coarse levels,
whose maps are small, on the whole image, and the fine levels tile by tile, with as much halo as they can see. The
latent noise is a function of the absolute position, so that a tile draws what the whole image would have drawn there:
tiled and whole results are equal up to rounding.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dvlae.config import PredictSettings
from dvlae.data.images import read_canonical, read_manifest, write_image
from dvlae.devices import choose_device, use_fast_arithmetic
from dvlae.errors import UserError
from dvlae.files import atomic_folder
from dvlae.models.dvlae import DVLAE
from dvlae.models.files import load_model
from dvlae.models.ladder_vae import Draw, LadderVAE
from dvlae.models.signal_decoder import SignalDecoder
from dvlae.noise import key_of, normal_noise
from dvlae.progress import progress

AUTO_TILE = 1024  # pixels
COARSE_TILES = 4  # the coarse levels may have as many positions as so many tiles have pixels
AUTO_BATCH_PIXELS = {"cpu": 2**18, "cuda": 2**24, "mps": 2**22}  # pixels of all samples of a batch together


@dataclass(frozen=True)
class Window:
    """A rectangle of the padded image, in pixels."""

    rows: range
    columns: range

    def grid(self, stride: int) -> tuple[range, range]:
        """Return its rows and columns on the grid of a level with this stride."""
        return tuple(range(side.start // stride, side.stop // stride) for side in (self.rows, self.columns))

    def cut(self, maps: Tensor, stride: int = 1) -> Tensor:
        """Cut it out of maps (N, C, Y, X) that cover the whole padded image at this stride."""
        rows, columns = self.grid(stride)
        return maps[..., rows.start : rows.stop, columns.start : columns.stop]

    def within(self, outer: "Window") -> "Window":
        """Return this window in the coordinates of a window around it."""
        return Window(_shift(self.rows, -outer.rows.start), _shift(self.columns, -outer.columns.start))


def _shift(side: range, by: int) -> range:
    return range(side.start + by, side.stop + by)


@dataclass(frozen=True)
class Tile:
    """A window of the padded image, and the wider one that has to be computed for it."""

    inner: Window
    outer: Window


def halo(ladder_vae: LadderVAE, split: int) -> int:
    """Pixels that the result of the levels below ``split`` sees to each side, rounded up to their grid.

    Parameters
    ----------
    ladder_vae
        The model.
    split
        Levels 0 to ``split - 1`` are the fine ones.
    """
    strides = [1, *ladder_vae.strides]
    reach = 1 + 2 + SignalDecoder.radius  # the stem, the last residual block, the signal decoder
    for below, stride in zip(strides[:split], strides[1 : split + 1], strict=True):
        # Up: the strided convolution and a residual block. Down: prior or posterior, and a residual block.
        reach += below + 2 * stride + 3 * stride
    grid = strides[split]
    return math.ceil(reach / grid) * grid


def choose_split(height: int, width: int, tile: int, ladder_vae: LadderVAE) -> int:
    """Return how many levels to run tile by tile: the fewest that leave small maps to the rest; 0 for no tiles."""
    if max(height, width) <= tile:
        return 0
    for split, stride in enumerate(ladder_vae.strides, start=1):
        if height * width / stride**2 <= COARSE_TILES * tile**2:
            return split
    return len(ladder_vae.strides)


def make_tiles(height: int, width: int, tile: int, halo: int) -> list[Tile]:
    """Cover a padded image with tiles; the halo ends where the image ends.

    Parameters
    ----------
    height, width
        Of the padded image, in pixels.
    tile
        Side of a tile without its halo, in pixels.
    halo
        Pixels to add on each side.
    """

    def sides(length: int) -> list[tuple[range, range]]:
        inner = [range(start, min(start + tile, length)) for start in range(0, length, tile)]
        return [(side, range(max(0, side.start - halo), min(length, side.stop + halo))) for side in inner]

    return [
        Tile(Window(rows, columns), Window(outer_rows, outer_columns))
        for rows, outer_rows in sides(height)
        for columns, outer_columns in sides(width)
    ]


def draw_in(window: Window, strides: list[int], keys: list[list[int]]) -> Draw:
    """Return a function that draws latents for a window of the padded image.

    Parameters
    ----------
    window
        Where.
    strides
        Of each level's grid.
    keys
        ``keys[sample][level]``.
    """

    def draw(level: int, mean: Tensor, std: Tensor) -> Tensor:
        rows, columns = window.grid(strides[level])
        noise = normal_noise([of_sample[level] for of_sample in keys], mean.shape[1], (rows, columns), mean.device)
        return torch.addcmul(mean, std, noise)

    return draw


def samples(model: DVLAE, image: Tensor, keys: list[list[int]], tile: int, batch_size: int) -> Iterator[tuple]:
    """Draw denoised images from the posterior, window by window.

    Parameters
    ----------
    model
        In evaluation mode.
    image
        Noisy image in its own units, (1, C, Y, X), with Y and X multiples of the model's stride.
    keys
        Keys of the latent noise, ``keys[sample][level]``.
    tile
        Side of a tile, in pixels, a multiple of the model's stride.
    batch_size
        Samples computed together.

    Yields
    ------
    window, first, batch
        A window, the number of the first sample, and samples (S, C, rows, columns) in the units of the image. Windows
        do not overlap, and each comes with every sample once.
    """
    ladder_vae = model.ladder_vae
    strides = ladder_vae.strides
    height, width = image.shape[2:]
    split = choose_split(height, width, tile, ladder_vae)
    whole = Window(range(height), range(width))
    tiles = make_tiles(height, width, tile, halo(ladder_vae, split)) if split else [Tile(whole, whole)]
    x = model.normalise(image)

    def climb(window: Window) -> list[Tensor]:
        return ladder_vae.climb(ladder_vae.stem(window.cut(x)), 0, split)

    stride = strides[split - 1] if split else 1
    if split:
        # What the fine levels hand to the coarse ones, put together from the tiles.
        below = x.new_empty(1, ladder_vae.stem.out_channels, height // stride, width // stride)
        for part in tiles:
            part.inner.cut(below, stride)[:] = part.inner.within(part.outer).cut(climb(part.outer)[-1], stride)
        below = below.to(memory_format=torch.channels_last)
    else:
        below = ladder_vae.stem(x)
    coarse = ladder_vae.climb(below, split)
    for first in range(0, len(keys), batch_size):
        chosen = keys[first : first + batch_size]
        state = None
        if coarse:
            state, _ = ladder_vae.descend(None, _repeat(coarse, len(chosen)), draw_in(whole, strides, chosen), split)
        for part in tiles:
            above = state if state is None else part.outer.cut(state, stride)
            if split:
                features = _repeat(climb(part.outer), len(chosen))
                above, _ = ladder_vae.descend(above, features, draw_in(part.outer, strides, chosen))
            signal = model.signal_decoder(ladder_vae.last_block(above))
            yield part.inner, first, model.denormalise(part.inner.within(part.outer).cut(signal))


def _repeat(features: list[Tensor], times: int) -> list[Tensor]:
    """Repeat features of one image for a batch of samples, without copying."""
    return [feature.expand(times, -1, -1, -1) for feature in features]


@torch.inference_mode()
def denoise(
    model: DVLAE,
    image: np.ndarray,
    *,
    name: str,
    samples_wanted: int,
    seed: int,
    tile: int | str = "auto",
    batch_size: int | str = "auto",
    on_progress=lambda pixels: None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Estimate the clean signal of one noisy image.

    Parameters
    ----------
    model
        A trained model, in evaluation mode, on the device that shall compute.
    image
        Noisy image, (C, Y, X), in the units of the training images; any size.
    name
        The image's name: with the seed it fixes the latent noise.
    samples_wanted
        Samples of the posterior to average.
    seed
        Fixes the samples.
    tile
        Side of a tile, in pixels; ``"auto"`` is 1024. It does not change the result.
    batch_size
        Samples computed together. It does not change the result.
    on_progress
        Called with the number of pixels that were sampled since the last call.

    Returns
    -------
    mean
        MMSE estimate, (C, Y, X) float32, in the units of the image.
    std
        Posterior standard deviation of each pixel, likewise; None for a single sample, which has none.

    Raises
    ------
    UserError
        Where the image has other channels than the model.
    """
    channels, height, width = image.shape
    if channels != model.architecture.image_channels:
        raise UserError(
            f"{name}: found {channels} channels, but the model was trained on {model.architecture.image_channels}"
        )
    device, stride = model.mean.device, model.stride
    tile = math.ceil((AUTO_TILE if tile == "auto" else tile) / stride) * stride
    padded = np.pad(image, [(0, 0), (0, -height % stride), (0, -width % stride)], mode="symmetric")
    if batch_size == "auto":
        pixels = min(padded[0].size, tile**2)
        batch_size = max(1, AUTO_BATCH_PIXELS[device.type] // pixels)
    keys = [
        [key_of(seed, name, sample, level) for level in range(len(model.ladder_vae.levels))]
        for sample in range(samples_wanted)
    ]
    batch = torch.from_numpy(padded).to(device)[None].contiguous(memory_format=torch.channels_last)
    mean = torch.zeros(padded.shape)
    deviations = torch.zeros(padded.shape)  # sum of squared deviations from the mean
    for window, first, drawn in samples(model, batch, keys, tile, batch_size):
        _accumulate(window.cut(mean), window.cut(deviations), first, drawn.cpu())
        on_progress(len(drawn) * len(window.rows) * len(window.columns))
    mean = mean[:, :height, :width].numpy()
    if samples_wanted == 1:
        return mean, None
    return mean, (deviations[:, :height, :width] / (samples_wanted - 1)).sqrt().numpy()


def _accumulate(mean: Tensor, deviations: Tensor, count: int, drawn: Tensor) -> None:
    """Add samples (S, C, Y, X) to a running mean and sum of squared deviations (C, Y, X), in place.

    Chan, Golub & LeVeque, "Algorithms for computing the sample variance", 1983: no difference of large numbers.
    """
    new = len(drawn)
    new_mean = drawn.mean(0)
    difference = new_mean - mean
    deviations += (drawn - new_mean).square().sum(0) + difference.square() * (count * new / (count + new))
    mean += difference * (new / (count + new))


def predict(
    model: Path, images: Path, denoised: Path, uncertainty: Path, *, seed: int, settings: PredictSettings
) -> None:
    """Denoise every image of a manifest.

    Parameters
    ----------
    model
        Folder of a trained model.
    images
        Folder with ``manifest.csv``.
    denoised, uncertainty
        Folders to make: MMSE estimates and posterior standard deviations, one TIFF an image, in the image's units.
        A single sample has no standard deviation; ``uncertainty`` is then empty.
    seed
        Fixes the samples.
    settings
        Samples, tile, batch size and device.

    Raises
    ------
    UserError
        Where the model or an image cannot be used, or the device is missing.
    """
    device = choose_device(settings.device)
    use_fast_arithmetic()
    network = load_model(model).to(device, memory_format=torch.channels_last)
    manifest = read_manifest(images)
    wanted = settings.prediction.samples
    total = wanted * sum(math.prod(image.shape[-2:]) for image in manifest)
    with (
        atomic_folder(denoised) as denoised_folder,
        atomic_folder(uncertainty) as uncertainty_folder,
        progress(total=total, description="predict", unit="px", unit_scale=True) as bar,
    ):
        for image in manifest:
            mean, std = denoise(
                network,
                read_canonical(image.noisy),
                name=image.name,
                samples_wanted=wanted,
                seed=seed,
                tile=settings.prediction.tile,
                batch_size=settings.prediction.batch_size,
                on_progress=bar.update,
            )
            write_image(denoised_folder / f"{image.name}.tif", mean)
            if std is not None:
                write_image(uncertainty_folder / f"{image.name}.tif", std)
