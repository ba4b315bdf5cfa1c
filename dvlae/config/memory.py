"""Estimates of how much main memory a training takes on a processor, without PyTorch, for the workflow."""

import math

from dvlae.config.patch_size import crop_stride, largest_crop, level_strides
from dvlae.config.settings import ModelSettings, TrainingSettings

# A worker before its first step, with all libraries: about 550 MiB were measured.
PROCESS = 700 * 2**20
# Feature maps that are alive at once in each residual block of a level: 20 to 27 were measured (docs/benchmarks.md).
MAPS = 32
# Convolutions in each residual block of a level, those around it included, and copies of their weights: the weights,
# their average, their gradients and up to two of the optimiser.
CONVOLUTIONS, COPIES = 8, 5
FLOAT = 4


def training_memory(model: ModelSettings, training: TrainingSettings, dimensions: int, workers: int) -> int:
    """Estimate the most memory that a training takes on a processor.

    Parameters
    ----------
    model, training
        Size of the network, and of its batches.
    dimensions
        Number of spatial axes.
    workers
        Number of processes that share each batch.

    Returns
    -------
    int
        In bytes. It is an upper bound: 32-bit numbers, and no activation checkpointing, are assumed.
    """
    crop = largest_crop(training.patch_size, dimensions, model.stride)
    # The first block of a level works on the grid of the level below.
    stride = crop_stride(crop, model.stride)
    strides = [(1,), *level_strides(model.levels, model.levels_per_scale, dimensions, stride)][: model.levels]
    pixels_of_levels = sum(training.batch_size * math.prod(crop) / math.prod(each) for each in strides)
    # A direct denoiser is a second network, trained beside the first.
    networks = 2 if model.direct_denoiser else 1
    maps = networks * MAPS * model.blocks * model.channels * pixels_of_levels
    weights = CONVOLUTIONS * model.levels * model.blocks * 3**dimensions * model.channels**2
    return workers * (PROCESS + FLOAT * networks * COPIES * weights) + math.ceil(FLOAT * maps)
