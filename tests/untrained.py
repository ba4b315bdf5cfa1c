"""Untrained models and noisy images, for tests of what a model is asked."""

import numpy as np
import torch

from dvlae.models.dvlae import DVLAE, Architecture
from dvlae.models.layers import to_channels_last


def build(
    levels: int = 3,
    levels_per_scale: int = 1,
    channels: int = 1,
    dimensions: int = 2,
    noise_direction: str = "x",
    receptive_field: int = 8,
    blocks: int = 1,
    direct_denoiser: str | None = None,
) -> DVLAE:
    torch.manual_seed(0)
    sizes = (channels, 8, 4, levels, levels_per_scale, 3, receptive_field, noise_direction, dimensions, blocks)
    model = DVLAE(Architecture(*sizes, direct_denoiser), [60.0] * channels, [20.0] * channels, [1.0] * channels)
    for parameter in model.parameters():
        parameter.data.mul_(1.5)  # far pixels matter, which makes a seam visible
    if direct_denoiser is not None:
        torch.nn.init.normal_(model.direct_denoiser.head.weight, std=0.2)  # as if it had learned
    return to_channels_last(model, dimensions).eval()


def noisy(*shape: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).poisson(60, (channels, *shape)).astype(np.float32)
