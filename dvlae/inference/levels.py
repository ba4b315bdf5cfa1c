"""The level-by-level picture: what each level of the ladder VAE determines in one image.

The latents above a level are fixed to one sample of the posterior, those of the level itself are sampled repeatedly,
and those below are at the mean of their posterior given the latents above. The denoised images then differ in what this
level determines.

References
----------
Sonderby, Raiko, Maaloe, Sonderby, Winther: Ladder variational autoencoders, NeurIPS 2016, arXiv 1602.02282: the first
figures of this kind.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dvlae.inference.latent_noise import latent_sampler, sample_keys
from dvlae.inference.posterior import (
    check_whole_input,
    choose_batch_size,
    encode_image,
    repeat_features,
)
from dvlae.inference.tiling import split_range, whole_window
from dvlae.models.dvlae import DVLAE
from dvlae.models.latents import LatentSampler, take_mean
from dvlae.models.layers import cut_padding
from dvlae.system.errors import UserError

# A crop is computed with this much of the image around it.
CONTEXT_PIXELS = 256


@torch.inference_mode()
def vary_levels(
    model: DVLAE,
    image: np.ndarray,
    *,
    name: str,
    seed: int,
    samples: int,
    on_progress: Callable[[int], object] = lambda samples: None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Sample one level after the other, with the levels above it fixed and those below it at their mean.

    Parameters
    ----------
    model
        Trained model in evaluation mode, on the device to compute on.
    image
        Noisy image, (C, ...), in the units of the training images.
    name
        Name of the image, which determines the latent noise together with the seed.
    seed
        Seed of the latent noise.
    samples
        Number of samples of each level.
    on_progress
        Called with the number of samples that were computed since the last call.

    Yields
    ------
    level, sampled
        The level's number, coarsest first, and denoised images (samples, C, ...) in the units of the image.
    """
    ladder_vae, sides = model.ladder_vae, image.shape[1:]
    x, features = encode_image(model, image)
    window = whole_window(x.shape[2:])
    # The fixed levels take sample 0.
    keys = sample_keys(seed, name, range(samples + 1), len(features))
    batches = split_range(range(1, samples + 1), choose_batch_size(model, sides, all_latents=True))
    for level in reversed(range(len(features))):
        sampled = []
        for numbers in batches:
            fixed = latent_sampler([keys[0]] * len(numbers), window, ladder_vae.strides)
            varying = latent_sampler([keys[number] for number in numbers], window, ladder_vae.strides)
            code, _ = ladder_vae.to_code(
                repeat_features(features, len(numbers)), sampler_of_level(level, fixed=fixed, varying=varying)
            )
            sampled.append(cut_padding(model.denormalise(model.signal_decoder(code)), sides).cpu().numpy())
            on_progress(len(numbers))
        yield level, np.concatenate(sampled)


def sampler_of_level(varied: int, *, fixed: LatentSampler, varying: LatentSampler) -> LatentSampler:
    """Return a sampler that uses ``varying`` at one level, ``fixed`` above it, and the mean below it.

    Parameters
    ----------
    varied
        The level's number.
    fixed
        Sampler of the levels above.
    varying
        Sampler of the level itself.

    Returns
    -------
    LatentSampler
        Maps a level's number, mean and standard deviation to a latent.
    """

    def sample_latent(level: int, mean: Tensor, std: Tensor) -> Tensor:
        if level < varied:
            return take_mean(level, mean, std)
        return (varying if level == varied else fixed)(level, mean, std)

    return sample_latent


def cut_with_context(
    model: DVLAE, image: np.ndarray, crop: Sequence[tuple[int, int]] | None, name: str
) -> tuple[np.ndarray, tuple[slice, ...]]:
    """Cut the part of an image that is needed to compute a crop.

    Parameters
    ----------
    model
        Model to compute with.
    image
        (C, ...).
    crop
        First pixel and the one after the last along each spatial axis; None: the complete image.
    name
        Name of the image, for messages.

    Returns
    -------
    part
        The crop with its context, (C, ...).
    shown
        Position of the crop in the part, one slice for each spatial axis.

    Raises
    ------
    UserError
        If the crop is not within the image, the image has other channels or axes than the model, or the part is too
        large to be computed at once.
    """
    sides = image.shape[1:]
    computed, shown = add_context([(0, side) for side in sides] if crop is None else crop, sides, model.stride, name)
    part = np.ascontiguousarray(image[:, *computed])
    check_whole_input(model, part.shape, name, "; show a part of it with --crop")
    return part, tuple(shown)


def add_context(
    crop: Sequence[tuple[int, int]], sides: Sequence[int], stride: Sequence[int], name: str
) -> tuple[list[slice], list[slice]]:
    """Surround a crop with context that is cut on the model's grid.

    Parameters
    ----------
    crop
        First pixel and the one after the last along each spatial axis.
    sides
        Sides of the image, in pixels.
    stride
        Stride of the model's grid along each spatial axis, in pixels.
    name
        Name of the image, for the message.

    Returns
    -------
    computed
        The crop with its context, in the image.
    shown
        The crop, in ``computed``.

    Raises
    ------
    UserError
        If the crop is not within the image.
    """
    inside = all(0 <= first < stop <= side for (first, stop), side in zip(crop, sides, strict=False))
    if len(crop) != len(sides) or not inside:
        found = " ".join(f"{first}:{stop}" for first, stop in crop)
        raise UserError(
            f"crop: found {found}, allowed: first:stop for each axis of {name}, within {tuple(sides)} pixels"
        )
    computed, shown = [], []
    for (first, stop), side, step in zip(crop, sides, stride, strict=True):
        start = max(0, first - CONTEXT_PIXELS) // step * step
        computed.append(slice(start, min(side, stop + CONTEXT_PIXELS)))
        shown.append(slice(first - start, stop - start))
    return computed, shown
