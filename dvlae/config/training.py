"""The settings of the network and of its training, and how much main memory a training takes on a processor.

Every constant of the method is a key here, with a value that switches it off. The paper's values are those of
``config/paper.yaml``, and docs/paper.md explains them.
"""

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from dvlae.config.fields import (
    Autoregression,
    Count,
    Decay,
    Fraction,
    Index,
    NotNegative,
    PatchSize,
    Positive,
    Precision,
    StrictModel,
)
from dvlae.config.sizes.patch_size import crop_stride, largest_crop, level_strides, model_stride

# A worker before its first step, with all libraries: about 550 MiB were measured.
PROCESS = 700 * 2**20
# Feature maps that are alive at once in each residual block of a level: 20 to 27 were measured (docs/benchmarks.md).
MAPS = 32
# Convolutions in each residual block of a level, those around it included, and copies of their weights: the weights,
# their average, their gradients and up to two of the optimiser.
CONVOLUTIONS, COPIES = 8, 5
FLOAT = 4


class ModelSettings(StrictModel):
    """The network's size."""

    LATER: ClassVar = {"network"}

    levels: Count = Field(3, description="stochastic levels of the ladder VAE (paper: 14)")
    channels: Count = Field(16, description="feature maps of each layer (paper: 128)")
    latent_channels: Count = Field(8, description="channels of the latent variable of each level (paper: 64)")
    components: Count = Field(3, description="Gaussians of the mixture in the autoregressive decoder's likelihood")
    levels_per_scale: Count = Field(1, description="levels that share one resolution before it is halved (paper: 2)")
    blocks: Count = Field(1, description="residual blocks on the way up and on the way down through a level (paper: 1)")
    network: Literal["dvlae", "paper"] = Field(
        "dvlae",
        description="layers of the network; `dvlae`: our own; `paper`: those of the authors' code of 2023 "
        "(dvlae/models/paper.py), whose autoregressive decoder has half as many channels as the other layers",
    )
    autoregression: Autoregression = Field(
        "nonlinear",
        description="model of the noise in the autoregressive decoder; `nonlinear`: a network that sees the complete "
        "signal code (the paper's); `linear`: a linear autoregression whose strength depends on the signal alone, so "
        "that fine texture cannot be mistaken for noise",
    )
    direct_denoiser: Literal[False, "mean", "median", "refined"] = Field(
        False,
        description="also train a network that denoises in one pass, for `prediction.estimator`; it is `refined` (or "
        "`true`), a copy of the model that goes on to learn from images that are made noisier, or predicts the `mean` "
        "or the `median` of the samples",
    )

    @property
    def refines(self) -> bool:
        """Whether the training ends with that of a refined denoiser."""
        return self.direct_denoiser == "refined"

    @property
    def stride(self) -> int:
        """The pixels of the image to one position of the coarsest level's grid."""
        return model_stride(self.levels, self.levels_per_scale)

    @field_validator("direct_denoiser", mode="before")
    @classmethod
    def _refined(cls, value: Any) -> Any:
        return "refined" if value is True else value

    @model_validator(mode="after")
    def _decoder_of_the_network(self) -> "ModelSettings":
        if self.network == "paper" and self.autoregression != "nonlinear":
            raise ValueError(
                f"autoregression: found {self.autoregression!r}, allowed: 'nonlinear', as network is 'paper'"
            )
        return self


class TrainingSettings(StrictModel):
    """How the network is trained, and for how long."""

    LATER: ClassVar = {
        "patience_on", "flips", "min_epoch_steps", "max_validation_patches", "betas", "momentum", "schedule",
        "plateau_patience", "plateau_factor", "warm_up_steps", "kl_warm_up_steps", "warm_up_fraction",
        "average_decay", "gradient_clip_norm", "max_rollbacks", "direct_fraction", "refine_fraction",
    }  # fmt: skip

    patch_size: PatchSize = Field(
        "auto",
        description="side of the training crop along every spatial axis, in pixels (paper: 256), or a list with a side "
        "for each, `[z, y, x]`; a side that is larger than the model's stride, which is doubled by every "
        "`levels_per_scale` levels, has to be a multiple of it; no image may be smaller; `auto`: 64, and less along an "
        "axis where most images are smaller; the images that are smaller still are padded",
    )
    batch_size: Count = Field(8, description="crops in a batch (paper: 4)")
    accumulate: Count = Field(1, description="batches whose gradients are added before the weights change (paper: 4)")
    workers: Literal["auto"] | Count = Field(
        "auto",
        description="processes that share each batch on a processor, at most `batch_size`; `auto`: as many as there "
        "are free cores; with `max_steps`, as many as there are cores for the training, however busy they are, so that "
        "it repeats bit for bit",
    )
    max_steps: Count | None = Field(None, description="maximum number of batches; `null`: no such limit")
    max_epochs: Count = Field(1000, description="maximum number of passes over the training patches")
    max_minutes: Positive | None = Field(
        8.0,
        description="maximum time in minutes, over all attempts of a resumed training; `null`: no such limit",
    )
    patience: Count | None = Field(
        None,
        description="epochs without a better validation before training stops (paper: 100); `null`: no such limit",
    )
    patience_on: Literal["elbo", "mse"] = Field(
        "elbo", description="what `patience` waits for: the ELBO, or the signal decoder's squared error (the paper)"
    )
    validation_fraction: Fraction = Field(
        0.1, description="share of the images (of a single image, share of the patches) held out for validation"
    )
    max_patch_pixels: Annotated[int, Field(ge=2**16)] = Field(
        2**27,
        description="maximum number of pixels of all patches, 4 bytes each; larger datasets keep patches that are "
        "spread evenly",
    )
    rescale: bool = Field(
        False,
        description="bring images whose gain and offset are others to the scale of the typical image, such as 8-bit "
        "images among 16-bit ones; `prediction.rescale` does the same for images to denoise",
    )
    precision: Precision = Field(
        "auto",
        description="floating-point numbers of training; `auto`: bf16 if the GPU or the processor has instructions for "
        "it, otherwise 32 bits",
    )
    activation_checkpointing: bool = Field(
        False, description="recompute the ladder's levels instead of storing them: less memory, a third more time"
    )
    compile: bool = Field(
        False,
        description="compile the model with torch.compile, which takes a minute or more and makes the steps faster; if "
        "that fails, training continues without it",
    )
    flips: bool = Field(True, description="flip crops at random, but never along the noise direction (paper: false)")
    min_epoch_steps: Count = Field(
        50, description="batches that an epoch has at least; otherwise as many as cover the training pixels (paper: 1)"
    )
    max_validation_patches: Count | None = Field(
        32, description="held-out patches that are validated, evenly spread; `null`: all (the paper)"
    )
    optimizer: Literal["muon", "adamax"] = Field(
        "muon",
        description="`muon` learns faster: as good after half the steps (docs/notes/experiments.md); "
        "`adamax`: the paper's",
    )
    learning_rate: Positive = Field(0.01, description="highest learning rate (paper: 0.002)")
    betas: Annotated[list[Decay], Field(min_length=2, max_length=2)] = Field(
        [0.9, 0.999],
        description="decay of the averages of gradients and of their size in `adamax`, and for the vectors in `muon`",
    )
    momentum: Decay = Field(0.95, description="decay of the average of gradients for the matrices in `muon`; `0`: none")
    schedule: Literal["cosine", "plateau"] = Field(
        "cosine",
        description="course of the learning rate; `cosine`: it falls to 0 over the training along half a cosine; "
        "`plateau` (the paper's): it is constant, and multiplied by `plateau_factor` whenever there was no better "
        "validation for more than `plateau_patience` epochs; what counts is the ELBO, and for the signal decoder its "
        "own squared error",
    )
    plateau_patience: Count = Field(50, description="epochs that `schedule: plateau` waits (paper: 50)")
    plateau_factor: Fraction = Field(0.1, description="factor of the learning rate in `schedule: plateau` (paper: 0.1)")
    warm_up_steps: Index = Field(
        100, description="steps over which the learning rate rises at first; `0`: none (the paper)"
    )
    kl_warm_up_steps: Index = Field(
        500,
        description="steps over which the weight of the KL divergence rises from 0 to 1; `0`: it is 1 from the start "
        "(the paper)",
    )
    warm_up_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1, description="largest share of the training that each of these rises may take"
    )
    average_decay: Decay = Field(
        0.999,
        description="decay of the moving average of the weights, which is validated and saved; lower during the first "
        "steps; `0`: none (the paper)",
    )
    gradient_clip_norm: Positive | None = Field(
        5.0,
        description="norm to which the gradients of all networks together are clipped, those of the direct denoiser "
        "separately; `null`: they are not (the paper)",
    )
    max_rollbacks: Index = Field(
        20,
        description="how often a training whose weights are no longer finite returns to the last finite ones, with "
        "half the learning rate each time; `0`: it ends with an error",
    )
    free_bits: NotNegative = Field(
        0.0,
        description="KL divergence that each level of the ladder may have at no cost, in nats per pixel value of the "
        "image, which prevents levels from collapsing (Kingma et al. 2016); `0`: none (the paper)",
    )
    direct_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        0.25, description="share of each batch that the direct denoiser learns from"
    )
    refine_fraction: Fraction = Field(
        0.15,
        description="last part of the training, for a refined denoiser, `model: {direct_denoiser: refined}`",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingSettings":
        if self.schedule == "plateau" and self.patience is not None and self.patience <= self.plateau_patience:
            raise ValueError(
                f"patience: found {self.patience}, allowed: more than plateau_patience, {self.plateau_patience}, or "
                "null, as the training would end before the learning rate falls"
            )
        if self.workers != "auto" and self.workers > self.batch_size:
            raise ValueError(f"workers: found {self.workers}, allowed: at most batch_size, {self.batch_size}")
        return self

    def part(self, share: float) -> "TrainingSettings":
        """Return the settings of a part of the training.

        Parameters
        ----------
        share
            The part, between 0 and 1.

        Returns
        -------
        TrainingSettings
            With limits of steps, epochs and minutes that are so much smaller.
        """
        steps, minutes = self.max_steps, self.max_minutes
        limits = {
            "max_steps": None if steps is None else max(1, round(share * steps)),
            "max_epochs": max(1, round(share * self.max_epochs)),
            "max_minutes": None if minutes is None else share * minutes,
        }
        return self.model_copy(update=limits)


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
    # In the paper's network, merge and skip have blocks, too.
    blocks = model.blocks + 1 if model.network == "paper" else model.blocks
    maps = networks * MAPS * blocks * model.channels * pixels_of_levels
    weights = CONVOLUTIONS * model.levels * blocks * 3**dimensions * model.channels**2
    return workers * (PROCESS + FLOAT * networks * COPIES * weights) + math.ceil(FLOAT * maps)
