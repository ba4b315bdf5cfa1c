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

from dvlae.inference.posterior import batches, draw_samples, encode, repeat
from dvlae.models.dvlae import DVLAE
from dvlae.system.errors import UserError

SAMPLES = 16  # of each level, of which the standard deviation is taken

CONTEXT = 256  # pixels around a crop that are computed with it, where the image has them


@torch.inference_mode()
def vary_levels(
    model: DVLAE, image: np.ndarray, *, name: str, seed: int, samples: int = SAMPLES, on_progress=lambda samples: None
) -> Iterator[tuple[int, np.ndarray]]:
    """Draw one level after the other again, with those above it fixed and those below it at their mean.

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
    level, drawn
        The level's number, coarsest first, and denoised images (samples, C, ...) in the units of the image.
    """
    _, features = encode(model, image)
    own = (..., *(slice(side) for side in image.shape[1:]))
    for level in reversed(range(len(features))):
        drawn = []
        for numbers in batches(model, image[0].size, samples):
            state, _ = model.ladder_vae.descend(
                None, repeat(features, len(numbers)), _draw_one_level(level, seed, name, numbers)
            )
            drawn.append(model.denormalise(model.signal_decoder(model.ladder_vae.last_block(state)))[own].cpu().numpy())
            on_progress(len(numbers))
        yield level, np.concatenate(drawn)


def _draw_one_level(varied: int, seed: int, name: str, numbers: Sequence[int]):
    """Return a function that draws samples of one level, one and the same above it, and takes the mean below it."""
    fixed = draw_samples(seed, name, [0] * len(numbers))
    varying = draw_samples(seed, name, [number + 1 for number in numbers])

    def draw(level: int, mean: Tensor, std: Tensor) -> Tensor:
        if level < varied:
            return mean
        return (varying if level == varied else fixed)(level, mean, std)

    return draw


def surround(crop: Sequence[tuple[int, int]], sides: Sequence[int], stride: int, name: str):
    """Return what is computed for a crop, cut on the model's grid, and where in it the crop is."""
    inside = all(0 <= first < stop <= side for (first, stop), side in zip(crop, sides, strict=False))
    if len(crop) != len(sides) or not inside:
        found = " ".join(f"{first}:{stop}" for first, stop in crop)
        raise UserError(
            f"crop: found {found}, allowed: first:stop for each axis of {name}, within {tuple(sides)} pixels"
        )
    computed, shown = [], []
    for (first, stop), side in zip(crop, sides, strict=True):
        start = max(0, first - CONTEXT) // stride * stride
        computed.append(slice(start, min(side, stop + CONTEXT)))
        shown.append(slice(first - start, stop - start))
    return computed, shown
