"""All latents of one image at once, drawn from the posterior: for what cannot be computed tile by tile."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dvlae.inference.latent_noise import noise_key, normal_noise
from dvlae.models.dvlae import DVLAE
from dvlae.models.ladder_vae import LatentSampler
from dvlae.models.layers import memory_format
from dvlae.system.errors import UserError

# Values in one feature map, pixels times channels, of an image that is computed at once: 6 to 11 GiB in all.
MAX_MAP_VALUES = 2**27
# All samples of a batch count together.
MAX_BATCH_PIXELS = {"cpu": 2**18, "cuda": 2**22, "mps": 2**20}


def check_model_input(model: DVLAE, shape: Sequence[int], name: str, remedy: str = "") -> None:
    """Refuse an image (C, ...) that is none for this model, or too large for all its latents at once.

    Raises
    ------
    UserError
        With the numbers, and the ``remedy`` against too large an image.
    """
    a = model.architecture
    if (shape[0], len(shape) - 1) != (a.image_channels, a.dimensions):
        raise UserError(
            f"{name}: found {shape[0]} channels and {len(shape) - 1} spatial axes, but the model was trained on "
            f"{a.image_channels} and {a.dimensions}"
        )
    allowed = MAX_MAP_VALUES // a.channels
    if math.prod(shape[1:]) > allowed:
        size = " x ".join(map(str, shape[1:]))
        raise UserError(
            f"{name}: found {size} pixels, allowed: {allowed:,} in all for this model, as they are computed at once"
            f"{remedy}"
        )


def encode(model: DVLAE, image: np.ndarray) -> tuple[Tensor, list[Tensor]]:
    """Run the bottom-up path.

    Parameters
    ----------
    model
        In evaluation mode, on the device that shall compute.
    image
        (C, ...) in its own units; any size.

    Returns
    -------
    x
        The image, normalised and padded to a multiple of the model's stride at the end of each axis, (1, C, ...).
    features
        Of each level, finest first.
    """
    sides = image.shape[1:]
    padding = [(0, 0), *((0, -side % model.stride) for side in sides)]
    padded = torch.from_numpy(np.pad(image, padding, mode="symmetric")).to(model.mean.device)[None]
    x = model.normalise(padded.contiguous(memory_format=memory_format(len(sides))))
    return x, model.ladder_vae.bottom_up(model.ladder_vae.stem(x))


def repeat_features(features: list[Tensor], times: int) -> list[Tensor]:
    """Repeat features of one image for a batch of samples, without copying."""
    return [feature.expand(times, *feature.shape[1:]) for feature in features]


def latent_sampler(seed: int, name: str, numbers: Sequence[int]) -> LatentSampler:
    """Return a function that samples the latents with these numbers, of the image with this name."""

    def sample_latent(level: int, mean: Tensor, std: Tensor) -> Tensor:
        keys = [noise_key(seed, name, sample, level) for sample in numbers]
        noise = normal_noise(keys, mean.shape[1], [range(side) for side in mean.shape[2:]], mean.device)
        return torch.addcmul(mean, std, noise)

    return sample_latent


def batches(model: DVLAE, pixels: int, samples: int, batch_size: int | str = "auto") -> list[range]:
    """Divide the numbers of the samples into batches that suit the device."""
    if batch_size == "auto":
        batch_size = max(1, MAX_BATCH_PIXELS[model.mean.device.type] // pixels)
    return [range(first, min(first + batch_size, samples)) for first in range(0, samples, batch_size)]
