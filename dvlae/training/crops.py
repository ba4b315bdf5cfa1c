"""Batches of random crops."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dvlae.axes import mirrored_axes
from dvlae.models.layers import memory_format


class RandomCrops:
    """Batches of random crops, each a function of (seed, step) alone. Each iteration is the rest of an epoch.

    Parameters
    ----------
    patches
        (N, C, ...), in memory or memory-mapped; ... are one to three spatial axes.
    crop
        Sides of a crop along them, in pixels.
    batch_size
        Crops in a batch.
    seed
        Of this training.
    noise_direction
        Flips keep it, and the order of pixels along it, as they are: with noise along ``x``, an image is flipped along
        ``y`` only.
    steps_per_epoch
        Batches in an epoch.
    step
        Where to start, for a training that is resumed.
    rank, processes
        Of so many processes that share the batches, the one with this rank yields every so-manieth.
    """

    def __init__(
        self,
        patches: np.ndarray,
        *,
        crop: Sequence[int],
        batch_size: int,
        seed: int,
        noise_direction: str,
        steps_per_epoch: int,
        step: int = 0,
        rank: int = 0,
        processes: int = 1,
    ):
        self.patches, self.crop, self.batch_size = patches, crop, batch_size
        self.rank, self.processes = rank, processes
        self.seed, self.steps_per_epoch, self.step = seed, steps_per_epoch, step
        self.flipped_axes = sorted(mirrored_axes(len(crop), noise_direction))

    def batch(self, step: int) -> Tensor:
        """Return the batch of this step, (batch_size, C, *crop), in the patches' own units.

        Parameters
        ----------
        step
            Number of the step; with the seed it fixes the batch.

        Returns
        -------
        Tensor
            (batch_size, C, ...), in the order of memory that suits the network.
        """
        random = np.random.default_rng([self.seed, step])
        count, _, *sides = self.patches.shape
        crops = []
        for _ in range(self.batch_size):
            corner = [int(random.integers(side - length + 1)) for side, length in zip(sides, self.crop, strict=True)]
            window = tuple(slice(at, at + length) for at, length in zip(corner, self.crop, strict=True))
            patch = self.patches[int(random.integers(count))]
            axes = [axis for axis in self.flipped_axes if random.random() < 0.5]
            crops.append(np.flip(patch[(slice(None), *window)], tuple(axes)))
        return torch.from_numpy(np.stack(crops)).to(memory_format=memory_format(len(self.crop)))

    def batches_into_epoch(self, step: int) -> int:
        """Return how many batches this process has had in the epoch of a step before it.

        Parameters
        ----------
        step
            Number of the step.

        Returns
        -------
        int
            0 at the first step of an epoch.
        """
        return step % self.steps_per_epoch // self.processes

    def ends_epoch(self, step: int) -> bool:
        """Say whether this is the last step in its epoch of each process.

        Parameters
        ----------
        step
            Number of the step.

        Returns
        -------
        bool
            True for the last one.
        """
        return (step + self.processes) // self.steps_per_epoch > step // self.steps_per_epoch

    def __iter__(self) -> Iterator[Tensor]:
        """Yield this process's batches up to the end of this epoch."""
        end = (self.step // self.steps_per_epoch + 1) * self.steps_per_epoch
        for step in range(self.step, end, self.processes):
            self.step = step + self.processes
            yield self.batch(step + self.rank)
