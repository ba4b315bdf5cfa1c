"""The level-by-level picture: what each level of the ladder decides in one image.

All latents above a level are fixed to one sample of the posterior, those of the level itself are drawn again and again,
and those below take the mean of their posterior given what is above. What then differs between the denoised images is
what this level leaves open. Pictures of this kind go back to Sonderby et al., "Ladder variational autoencoders" (arXiv
1602.02282, 2016).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dvlae.inference.posterior import batches, encode, latent_sampler, repeat_features
from dvlae.models.dvlae import DVLAE
from dvlae.system.errors import UserError

# The standard deviation of a level is taken over this many samples.
SAMPLES_PER_LEVEL = 16

# A crop is computed with this much of the image around it.
CONTEXT_PIXELS = 256


@torch.inference_mode()
def vary_levels(
    model: DVLAE,
    image: np.ndarray,
    *,
    name: str,
    seed: int,
    samples: int = SAMPLES_PER_LEVEL,
    on_progress=lambda samples: None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Sample one level after the other again, with those above it fixed and those below it at their mean.

    Parameters
    ----------
    model
        A trained model, in evaluation mode, on the device that shall compute.
    image
        Noisy image, (C, ...), in the units of the training images.
    name
        The image's name: with the seed it fixes the samples.
    seed
        Fixes the samples.
    samples
        Of each level.
    on_progress
        Called with the number of samples that were drawn since the last call.

    Yields
    ------
    level, sampled
        The level's number, coarsest first, and denoised images (samples, C, ...) in the units of the image.
    """
    _, features = encode(model, image)
    own = (..., *(slice(side) for side in image.shape[1:]))
    for level in reversed(range(len(features))):
        sampled = []
        for numbers in batches(model, image[0].size, samples):
            state, _ = model.ladder_vae.top_down(
                None, repeat_features(features, len(numbers)), _level_sampler(level, seed, name, numbers)
            )
            sampled.append(
                model.denormalise(model.signal_decoder(model.ladder_vae.last_block(state)))[own].cpu().numpy()
            )
            on_progress(len(numbers))
        yield level, np.concatenate(sampled)


def _level_sampler(varied: int, seed: int, name: str, numbers: Sequence[int]):
    """Return a function that samples one level, one and the same above it, and takes the mean below it."""
    fixed = latent_sampler(seed, name, [0] * len(numbers))
    varying = latent_sampler(seed, name, [number + 1 for number in numbers])

    def sample_latent(level: int, mean: Tensor, std: Tensor) -> Tensor:
        if level < varied:
            return mean
        return (varying if level == varied else fixed)(level, mean, std)

    return sample_latent


def add_context(crop: Sequence[tuple[int, int]], sides: Sequence[int], stride: int, name: str):
    """Return what is computed for a crop, cut on the model's grid, and where in it the crop is."""
    inside = all(0 <= first < stop <= side for (first, stop), side in zip(crop, sides, strict=False))
    if len(crop) != len(sides) or not inside:
        found = " ".join(f"{first}:{stop}" for first, stop in crop)
        raise UserError(
            f"crop: found {found}, allowed: first:stop for each axis of {name}, within {tuple(sides)} pixels"
        )
    computed, shown = [], []
    for (first, stop), side in zip(crop, sides, strict=True):
        start = max(0, first - CONTEXT_PIXELS) // stride * stride
        computed.append(slice(start, min(side, stop + CONTEXT_PIXELS)))
        shown.append(slice(first - start, stop - start))
    return computed, shown
