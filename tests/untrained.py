"""Untrained models and noisy images."""

import numpy as np
import torch

from dvlae.models.architecture import Architecture
from dvlae.models.direct_denoiser import DirectDenoiser
from dvlae.models.dvlae import DVLAE
from dvlae.models.layers import to_channels_last

SIZES = {
    "image_channels": 1,
    "channels": 8,
    "latent_channels": 4,
    "levels": 2,
    "levels_per_scale": 1,
    "components": 3,
    "receptive_field": 8,
    "noise_direction": "x",
}


def initial(mean: float = 60.0, std: float = 20.0, step: float = 1.0, limits=(None, None), **sizes) -> DVLAE:
    """Return a model as a training starts with it; ``sizes`` are the fields of Architecture that differ from SIZES."""
    torch.manual_seed(0)
    architecture = Architecture(**SIZES | sizes)
    return DVLAE(architecture, *([value] * architecture.image_channels for value in (mean, std, step, limits)))


def build(
    levels: int = 3,
    levels_per_scale: int = 1,
    channels: int = 1,
    dimensions: int = 2,
    noise_direction: str = "x",
    receptive_field: int = 8,
    blocks: int = 1,
    direct_denoiser: str | None = None,
    stride: tuple[int, ...] | None = None,
    limits: tuple[float | None, float | None] = (None, None),
    network: str = "dvlae",
) -> DVLAE:
    """Return a model whose far pixels matter, as a seam is then visible, ready to be asked."""
    model = initial(
        limits=limits,
        image_channels=channels,
        levels=levels,
        levels_per_scale=levels_per_scale,
        dimensions=dimensions,
        noise_direction=noise_direction,
        receptive_field=receptive_field,
        blocks=blocks,
        direct_denoiser=direct_denoiser,
        stride=stride,
        network=network,
    )
    for parameter in model.parameters():
        parameter.data.mul_(1.5)
    if isinstance(model.direct_denoiser, DirectDenoiser):
        torch.nn.init.normal_(model.direct_denoiser.head.weight, std=0.2)  # as if it had learned
    return to_channels_last(model, dimensions).eval()


def noisy(*shape: int, channels: int = 1) -> np.ndarray:
    """Return an image (channels, *shape) of Poisson noise."""
    return np.random.default_rng(0).poisson(60, (channels, *shape)).astype(np.float32)
