"""Sample noisy images from a trained model: with the content of given images, or with content from the prior.

The clean content is a signal code, sampled from the posterior of a noisy image or from the priors of the ladder VAE.
The autoregressive decoder samples the noisy image, the signal decoder gives the clean one. The model's density is
continuous, so grey values are not rounded. Noisy values are clipped at the limits of the recording, if it has any.
"""

import logging
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from dvlae.axes import format_sides
from dvlae.inference.latent_noise import latent_sampler, noise_key, normal_noise, sample_keys
from dvlae.inference.posterior import encode_image
from dvlae.inference.tiling import padded_shape, whole_window
from dvlae.models.decoders.sampling import sample_autoregressively
from dvlae.models.dvlae import DVLAE
from dvlae.models.layers import cut_padding

# The levels of the latents are numbered from 0. The noise of the pixels has the number below.
PIXEL_NOISE_LEVEL = -1
# Images from the prior are named after it.
PRIOR_NAME = "prior"


logger = logging.getLogger(__name__)


def warn_of_prior(command: str, model: DVLAE, shapes: Iterable[Sequence[int]]) -> None:
    """Say that the prior of imported weights is for images of one size, if one of these has another.

    Parameters
    ----------
    command
        Name of the command, for the message.
    model
        Trained model.
    shapes
        Sides of the images, in pixels.
    """
    grid = model.architecture.top_grid
    if grid is None:
        return
    allowed = tuple(side * step for side, step in zip(grid, model.stride, strict=True))
    others = [shape for shape in shapes if padded_shape(shape, model.stride) != allowed]
    if others:
        logger.warning(
            f"{command}: WARNING: images of {format_sides(others[0])} pixels; the model's prior of the coarsest level "
            f"is for {format_sides(allowed)}, and its mean over the positions is taken"
        )


@torch.inference_mode()
def sample_code(model: DVLAE, image: np.ndarray, *, name: str, seed: int) -> Tensor:
    """Sample the signal code of a noisy image from the posterior.

    Parameters
    ----------
    model
        Model in evaluation mode, on the device to compute on.
    image
        (C, ...) in its own units; any size.
    name, seed
        Determine the sample, which is the first one of :func:`dvlae.inference.prediction.predict`.

    Returns
    -------
    Tensor
        (1, channels, ...), padded to multiples of the model's stride.
    """
    x, features = encode_image(model, image)
    keys = sample_keys(seed, name, [0], len(features))
    code, _ = model.ladder_vae.to_code(
        features, latent_sampler(keys, whole_window(x.shape[2:]), model.ladder_vae.strides)
    )
    return code


@torch.inference_mode()
def sample_code_from_prior(model: DVLAE, size: tuple[int, ...], *, number: int, seed: int) -> Tensor:
    """Sample a signal code from the priors, (1, channels, ...), for an image of this size.

    ``number`` and ``seed`` determine the code. The size is padded as that of any image.

    Parameters
    ----------
    model
        Model in evaluation mode, on the device to compute on.
    size
        Sides of the image, in pixels.
    number
        Number of the sample.
    seed
        Seed of the latents.

    Returns
    -------
    Tensor
        (1, channels, ...), of the padded size.
    """
    padded, strides = padded_shape(size, model.stride), model.ladder_vae.strides
    keys = sample_keys(seed, PRIOR_NAME, [number], len(strides))
    return model.ladder_vae.sample_prior((1, *padded), latent_sampler(keys, whole_window(padded), strides))


@torch.inference_mode()
def decode(model: DVLAE, code: Tensor, size: tuple[int, ...]) -> np.ndarray:
    """Return the clean image of a signal code, (C, ...) of this size, in the units of the training images.

    Parameters
    ----------
    model
        Model in evaluation mode, on the device to compute on.
    code
        The signal code, (1, channels, ...), of the padded size.
    size
        Sides of the image, in pixels.

    Returns
    -------
    numpy.ndarray
        (C, ...).
    """
    return cut_padding(model.denormalise(model.signal_decoder(code)), size)[0].cpu().numpy()


@torch.inference_mode()
def sample_noisy(model: DVLAE, code: Tensor, size: tuple[int, ...], *, name: str, number: int, seed: int) -> np.ndarray:
    """Sample a noisy image of a signal code.

    Parameters
    ----------
    model
        Model in evaluation mode.
    code
        Signal code, (1, channels, ...).
    size
        Sides of the image, in pixels; the code may be larger.
    name, number, seed
        Determine the noise.

    Returns
    -------
    numpy.ndarray
        (C, ...) in the units of the training images, float32; clipped at the limits of the recording, and not rounded.
    """
    window = [range(side) for side in size]
    key = noise_key(seed, name, number, PIXEL_NOISE_LEVEL)
    noise = normal_noise([key], 2 * model.architecture.image_channels, window, code.device)
    x = sample_autoregressively(model.autoregressive_decoder, cut_padding(code, size), noise, model.floor, model.limits)
    return model.denormalise(x)[0].cpu().numpy()
