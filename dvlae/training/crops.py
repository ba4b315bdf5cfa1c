"""Batches of random crops."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dvlae.axes import mirrored_axes
from dvlae.models.layers import memory_format


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
    """

    def __init__(self, patches: np.ndarray, *, crop: Sequence[int], batch_size: int, seed: int, noise_direction: str):
        self.patches, self.crop, self.batch_size, self.seed = patches, crop, batch_size, seed
        self.flipped_axes = sorted(mirrored_axes(len(crop), noise_direction))

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
        random = np.random.default_rng([self.seed, step])
        count, _, *sides = self.patches.shape
        crops = []
        for number in range(self.batch_size):
            corner = [int(random.integers(side - length + 1)) for side, length in zip(sides, self.crop, strict=True)]
            window = tuple(slice(at, at + length) for at, length in zip(corner, self.crop, strict=True))
            patch = self.patches[int(random.integers(count))]
            axes = [axis for axis in self.flipped_axes if random.random() < 0.5]
            if chosen is None or number in chosen:
                crops.append(np.flip(patch[(slice(None), *window)], tuple(axes)))
        return torch.from_numpy(np.stack(crops)).to(memory_format=memory_format(len(self.crop)))
