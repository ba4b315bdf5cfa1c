"""Batches of random crops for training, and of held-out patches for validation."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tifffile
import torch
from torch import Tensor

from dvlae.axes import format_sides, mirrored_axes
from dvlae.config.settings import TrainSettings
from dvlae.config.sizes.patch_size import training_crop
from dvlae.config.training import TrainingSettings
from dvlae.data.manifest import spread_evenly
from dvlae.models.layers import memory_format
from dvlae.system.errors import UserError

# Images, (N, C, ...), and 1 where a value counts; None: all of them count.
ValidationBatch = tuple[Tensor, Tensor | None]


def read_patches(path: Path) -> np.ndarray:
    """Map patches into memory.

    Parameters
    ----------
    path
        A file of :func:`dvlae.data.patches.extract_patches`.

    Returns
    -------
    numpy.ndarray
        (N, C, ...).

    Raises
    ------
    UserError
        If it is damaged.
    """
    try:
        return tifffile.memmap(path, mode="r")
    except Exception as error:  # A damaged file can raise an error of any kind.
        raise UserError(f"{path}: damaged ({error}); remove the folder, and make it again") from None


def choose_crop(settings: TrainSettings, stored: Sequence[int]) -> tuple[int, ...]:
    """Choose the sides of a training crop.

    Parameters
    ----------
    settings
        The settings of the training.
    stored
        Sides of the patches, in pixels.

    Returns
    -------
    tuple of int
        The sides, in pixels.

    Raises
    ------
    UserError
        If the patches are smaller.
    """
    patch_size = settings.training.patch_size
    crop = training_crop(patch_size, stored, settings.model.stride)
    if any(side > longest for side, longest in zip(crop, stored, strict=True)):
        raise UserError(
            f"training.patch_size: found {patch_size}, but the patches have {format_sides(stored)} pixels; extract "
            "them with this setting"
        )
    return crop


class RandomCrops:
    """Batches of random crops, each of which depends on the seed and the step alone.

    Parameters
    ----------
    patches
        (N, C, ...), in memory or memory-mapped; ... are one to three spatial axes.
    crop
        Sides of a crop, in pixels.
    batch_size
        Crops in a batch.
    seed
        The seed of the training.
    noise_direction
        Crops are never flipped along it: with noise along ``x``, they are flipped along ``y`` only.
    flips
        Whether crops are flipped at all.
    counts
        0 where a value of the patches does not count, else 1, (N, C, ...); None: all of them count.
    """

    def __init__(
        self,
        patches: np.ndarray,
        *,
        crop: Sequence[int],
        batch_size: int,
        seed: int,
        noise_direction: str,
        flips: bool = True,
        counts: np.ndarray | None = None,
    ):
        self.patches, self.crop, self.batch_size, self.seed = patches, crop, batch_size, seed
        self._counts = counts
        # What does not count at the end of a patch, such as its padding, is cut as seldom as possible.
        self._own_sides = (
            np.full((len(patches), len(crop)), patches.shape[2:]) if counts is None else _own_sides(counts)
        )
        self.flipped_axes = sorted(mirrored_axes(len(crop), noise_direction)) if flips else []

    def batch(self, step: int, chosen: range | None = None) -> Tensor:
        """Return the batch of this step, or a part of it, in the units of the patches.

        Parameters
        ----------
        step
            Number of the step, from 0.
        chosen
            Numbers of the crops to return; None: all.

        Returns
        -------
        Tensor
            (N, C, ...), in the memory layout of the network.
        """
        return self._cut(self.patches, step, chosen)

    def counts(self, step: int, chosen: range | None = None) -> Tensor | None:
        """Return which values of the batch of this step count.

        Parameters
        ----------
        step, chosen
            As for :meth:`batch`.

        Returns
        -------
        Tensor or None
            (N, C, ...), 1 where a value counts, else 0; None if all values of all patches count.
        """
        return None if self._counts is None else self._cut(self._counts, step, chosen)

    def _cut(self, patches: np.ndarray, step: int, chosen: range | None) -> Tensor:
        crops = [
            np.flip(patches[number][(slice(None), *window)], axes)
            for crop, (number, window, axes) in enumerate(self._places(step))
            if chosen is None or crop in chosen
        ]
        return torch.from_numpy(np.stack(crops)).to(memory_format=memory_format(len(self.crop)))

    def _places(self, step: int) -> Iterator[tuple[int, tuple[slice, ...], tuple[int, ...]]]:
        """Yield the patch, the window in it, and the flipped axes of each crop of a step."""
        random = np.random.default_rng([self.seed, step])
        count, _, *sides = self.patches.shape
        for _ in range(self.batch_size):
            corner = [int(random.integers(side - length + 1)) for side, length in zip(sides, self.crop, strict=True)]
            number = int(random.integers(count))
            places = zip(corner, self._own_sides[number], self.crop, strict=True)
            starts = [min(at, max(0, int(own) - length)) for at, own, length in places]
            window = tuple(slice(at, at + length) for at, length in zip(starts, self.crop, strict=True))
            yield number, window, tuple(axis for axis in self.flipped_axes if random.random() < 0.5)


def _own_sides(counts: np.ndarray) -> np.ndarray:
    """Return for each patch, along each spatial axis, how many pixels there are up to the last that counts."""
    sides = []
    for axis in range(2, counts.ndim):
        others = tuple(other for other in range(1, counts.ndim) if other != axis)
        counted = np.asarray(counts.any(axis=others))  # (N, side)
        sides.append(counted.shape[1] - counted[:, ::-1].argmax(axis=1))
    return np.stack(sides, axis=1)


def validation_batches(
    patches: np.ndarray,
    counts: np.ndarray | None,
    stride: Sequence[int],
    crop: Sequence[int],
    settings: TrainingSettings,
) -> list[ValidationBatch]:
    """Select held-out patches, evenly spread, and cut sides longer than a crop to multiples of the model's stride.

    Parameters
    ----------
    patches
        The held-out patches, (N, C, ...).
    counts
        0 where a value of the patches does not count, else 1, (N, C, ...); None: all of them count.
    stride
        Stride of the model's coarsest level along each axis, in pixels.
    crop
        Sides of a training crop, in pixels.
    settings
        Crops in a batch of the training, whose pixels no batch exceeds; and how many patches are taken, as more than a
        few would make validation a considerable part of the training time.

    Returns
    -------
    list of ValidationBatch
        The patches.
    """
    chosen = spread_evenly(len(patches), settings.max_validation_patches or len(patches))
    sides = zip(patches.shape[2:], stride, crop, strict=True)
    lengths = [max(side // step * step, least) for side, step, least in sides]
    pixels = settings.batch_size * math.prod(crop)

    def split(values: np.ndarray) -> Sequence[Tensor]:
        cut = np.array(values[chosen][:, :, *map(slice, lengths)])
        return torch.from_numpy(cut).split(max(1, pixels // math.prod(lengths)))

    batches = split(patches)
    return list(zip(batches, [None] * len(batches) if counts is None else split(counts), strict=True))
