"""The complete model: the networks of the paper's figure, their connections, and the loss.

    noisy image x --> ladder VAE --> signal code c --> autoregressive decoder --> p(x | c)    (and x, causally)
                                         |
                                         +-- no gradient --> signal decoder --> denoised image s

With z the latents, of which c is a function, training minimises for each pixel value of the noisy image

    KL(q(z | x) || p(z)) - log p(x | c) + (s - x)^2,   z ~ q(z | x).

The first two terms are the negative ELBO, a bound on -log p(x); they train the ladder VAE and the autoregressive
decoder. The third trains the signal decoder alone, as c is detached there, so that one optimiser serves all. After
training, s of one sample of z is a sample of the denoised image, and the mean over samples is the MMSE estimate. Where
grey values end, both p and the x of the third term are others (:mod:`dvlae.models.likelihood`).

Source: Salmon & Krull, "Unsupervised denoising for signal-dependent and row-correlated imaging noise", arXiv 2310.07887
(2023). What differs from the paper: one optimiser instead of two, traces and volumes, and the direct denoiser;
docs/paper.md has the rest.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dvlae.config.settings import TrainSettings
from dvlae.config.sizes.patch_size import crop_stride
from dvlae.models.architecture import Architecture
from dvlae.models.decoders.autoregressive import DECODERS, MixtureDecoder
from dvlae.models.direct_denoiser import DirectDenoiser, RefinedDenoiser
from dvlae.models.ladder import Ladder
from dvlae.models.ladder_vae import LadderVAE
from dvlae.models.latents import LatentSampler, sample_randomly
from dvlae.models.layers import cut_padding, to_channels_last
from dvlae.models.likelihood import Limits, censored_log_likelihood, mixture_log_likelihood, scale_floor
from dvlae.models.loss_terms import LossTerms
from dvlae.models.paper import MIN_SCALE, BorderConvolution, PaperAutoregressiveDecoder, PaperLadderVAE
from dvlae.models.signal_decoder import SignalDecoder
from dvlae.system.errors import UserError


class DVLAE(nn.Module):
    """Denoising variational lossy autoencoder (Salmon & Krull, arXiv 2310.07887).

    The inputs and outputs are in the units of the images; the model contains the mean and the standard deviation for
    their normalisation.

    Parameters
    ----------
    architecture
        Sizes of the networks.
    mean, std
        Mean and standard deviation of each channel of the training images, in their units.
    step
        Smallest spacing of each channel's grey values, in the same units; 0 where they are continuous.
    limits
        The smallest and the largest grey value of each channel, where the recording ends, in the same units; None where
        it does not. None: no channel has limits.

    Attributes
    ----------
    mean, std, step
        The same as tensors, (C, 1, ...), or (1, C, 1, 1, 1) for volumes.
    lower, upper
        The limits as such tensors; infinite where there is none.
    is_limited
        Whether there is any.
    """

    mean: Tensor
    std: Tensor
    step: Tensor
    lower: Tensor
    upper: Tensor
    direct_denoiser: DirectDenoiser | RefinedDenoiser | None

    def __init__(
        self,
        architecture: Architecture,
        mean: list[float],
        std: list[float],
        step: list[float],
        limits: Sequence[Sequence[float | None]] | None = None,
    ):
        super().__init__()
        self.architecture = a = architecture
        make = _make_paper_networks if a.network == "paper" else _make_networks
        self.ladder_vae, self.autoregressive_decoder, self.signal_decoder = make(a)
        # It comes last, so that the other networks have the same initial weights with it as without it.
        self.register_module("direct_denoiser", None)
        if a.direct_denoiser == "refined":
            ladder_vae, _, signal_decoder = make(a)
            self.direct_denoiser = RefinedDenoiser(ladder_vae, signal_decoder)
        elif a.direct_denoiser is not None:
            self.direct_denoiser = DirectDenoiser(a.image_channels, a.channels, self.ladder_vae.strides, a.dimensions)
        # The rank is 5 for volumes, as Module.to() brings tensors of rank 4 or 5 to the layout of the convolutions.
        shape = {1: (-1, 1), 2: (-1, 1, 1), 3: (1, -1, 1, 1, 1)}[a.dimensions]
        for name, values in {"mean": mean, "std": std, "step": step}.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(shape))
        ends = [(None, None)] * len(mean) if limits is None else limits
        lower = [-math.inf if end is None else end for end, _ in ends]
        upper = [math.inf if end is None else end for _, end in ends]
        self.is_limited = any(map(math.isfinite, lower + upper))
        for name, values in {"lower": lower, "upper": upper}.items():
            # They are no part of the weights, which earlier versions read.
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(shape), persistent=False)

    @property
    def floor(self) -> Tensor:
        """The smallest scale of a component of the mixture, in normalised units, with the shape of :attr:`std`."""
        if self.architecture.network == "paper":
            return torch.full_like(self.std, MIN_SCALE)
        return scale_floor(self.step, self.std)

    @property
    def stride(self) -> tuple[int, ...]:
        """The number of pixels, along each spatial axis, to multiples of which an image is padded."""
        return self.ladder_vae.strides[-1]

    @property
    def limits(self) -> Limits | None:
        """Where normalised grey values end; None: nowhere, as in the paper."""
        if self.architecture.network == "paper" or not self.is_limited:
            return None
        return Limits(self.normalise(self.lower), self.normalise(self.upper))

    def with_refined(self) -> "DVLAE":
        """Put the networks of the refined denoiser in place of the model's own.

        Returns
        -------
        DVLAE
            Another model with the same tensors, and without a direct denoiser.
        """
        denoiser = self.direct_denoiser
        assert isinstance(denoiser, RefinedDenoiser), "the model has no refined denoiser"
        model = self.with_direct_denoiser(None)
        model._modules |= dict(denoiser.named_children())
        return model

    def with_direct_denoiser(self, denoiser: RefinedDenoiser | None) -> "DVLAE":
        """Put a refined denoiser, or none, in place of the direct denoiser.

        Parameters
        ----------
        denoiser
            The denoiser, of the same sizes; None: none.

        Returns
        -------
        DVLAE
            Another model with the same tensors.
        """
        model = copy.copy(self)
        model.architecture = replace(self.architecture, direct_denoiser=None if denoiser is None else "refined")
        model._modules = self._modules | {"direct_denoiser": denoiser}
        return model

    def normalise(self, image: Tensor) -> Tensor:
        """Bring an image (N, C, ...) from its own units to zero mean and unit variance.

        Parameters
        ----------
        image
            (N, C, ...), in its own units.

        Returns
        -------
        Tensor
            (N, C, ...).
        """
        return (image - self.mean) / self.std

    def denormalise(self, x: Tensor) -> Tensor:
        """Bring a normalised image (N, C, ...) back to its own units.

        Parameters
        ----------
        x
            (N, C, ...), normalised.

        Returns
        -------
        Tensor
            (N, C, ...), in the units of the training images.
        """
        return x * self.std + self.mean

    def pad(self, maps: Tensor) -> Tensor:
        """Mirror maps at the end of each axis, so that their sides are multiples of :attr:`stride`.

        Parameters
        ----------
        maps
            (N, C, ...), at least half as long as the padded maps.

        Returns
        -------
        Tensor
            (N, C, ...).
        """
        for axis, stride in enumerate(self.stride, start=2):
            missing = -maps.shape[axis] % stride
            if missing:
                end = maps.narrow(axis, maps.shape[axis] - missing, missing)
                maps = torch.cat([maps, end.flip(axis)], axis)
        return maps

    def pixel_log_likelihood(
        self, x: Tensor, logits: Tensor, means: Tensor, raw_scales: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the log-likelihood of normalised pixels, and the values that the signal decoder learns.

        Parameters
        ----------
        x, logits, means, raw_scales
            As :func:`dvlae.models.likelihood.mixture_log_likelihood` takes them.

        Returns
        -------
        log_likelihood
            (N, C, ...), in nats.
        values
            ``x``, with what is expected there at the upper limit of the recording, (N, C, ...).
        """
        limits = self.limits
        if limits is None:
            return mixture_log_likelihood(x, logits, means, raw_scales, self.floor), x
        return censored_log_likelihood(x, logits, means, raw_scales, self.floor, limits)

    def forward(
        self, image: Tensor, sample_latent: LatentSampler = sample_randomly, counts: Tensor | None = None
    ) -> LossTerms:
        """Compute the terms of the loss with one sample of the posterior.

        An image is padded to multiples of :attr:`stride`, but only its own pixels count in the log-likelihood and in
        the error: no own pixel depends on the padding through the autoregressive decoder, as it comes last.

        Parameters
        ----------
        image
            Noisy images in their own units, (N, C, ...).
        sample_latent
            Maps a level's number, mean and standard deviation to a latent.
        counts
            1 where a value counts and 0 where it was filled in, (N, C, ...); None: everywhere. The likelihood and the
            squared error of a value that does not count are 0.

        Returns
        -------
        LossTerms
            Means over the batch.
        """
        sides = image.shape[2:]
        x = self.pad(self.normalise(image))  # (N, C, ...), padded, as all below
        code, kls = self.ladder_vae(x, sample_latent)  # (N, channels, ...); (N, Z, ...) for each level
        logits, means, raw_scales = self.autoregressive_decoder(x, code)  # (N, K, C, ...)
        likelihood_of_padded, x = self.pixel_log_likelihood(x, logits, means, raw_scales)  # (N, C, ...)
        # The code is detached: the signal decoder does not change it.
        signal = self.signal_decoder(code.detach())  # (N, C, ...)
        log_likelihood, signal, x = (
            cut_padding(maps, sides).float() for maps in (likelihood_of_padded, signal, x)
        )  # (N, C, ...), without padding
        return LossTerms(
            log_likelihood=(log_likelihood if counts is None else log_likelihood * counts).mean(),
            kl_of_levels=[kl.sum() / image.numel() for kl in kls],
            mse=F.mse_loss(signal, x) if counts is None else ((signal - x).square() * counts).mean(),
        )


def _make_networks(a: Architecture) -> tuple[Ladder, MixtureDecoder, nn.Module]:
    """Return our ladder VAE, autoregressive decoder and signal decoder."""
    return (
        LadderVAE(*a.ladder),
        DECODERS[a.autoregression](
            a.image_channels, a.channels, a.components, a.receptive_field, a.noise_direction, a.dimensions
        ),
        SignalDecoder(a.channels, a.image_channels, a.dimensions),
    )


def _make_paper_networks(a: Architecture) -> tuple[Ladder, MixtureDecoder, nn.Module]:
    """Return those of the paper."""
    decoder_channels = max(1, a.channels // 2) if a.decoder_channels is None else a.decoder_channels
    line = (a.components, a.receptive_field, a.noise_direction, a.dimensions)
    convolution = partial(BorderConvolution, dimensions=a.dimensions, mode="reflect")
    return (
        PaperLadderVAE(*a.ladder, top_grid=a.top_grid),
        PaperAutoregressiveDecoder(a.image_channels, a.channels, decoder_channels, *line),
        SignalDecoder(a.channels, a.image_channels, a.dimensions, convolution),
    )


def build_model(
    settings: TrainSettings,
    description: dict[str, Any],
    crop: Sequence[int],
    receptive_field: int,
    noise_direction: str,
) -> DVLAE:
    """Build an untrained model.

    Parameters
    ----------
    settings
        The sizes of the networks, and the kind of decoder.
    description
        The content of ``patches.json``: mean and standard deviation of each channel, step and limits of its grey
        values.
    crop
        Sides of a training crop, in pixels.
    receptive_field
        Receptive field of the autoregressive decoder, in pixels.
    noise_direction
        ``x``, ``y``, ``z`` or ``none``.

    Returns
    -------
    DVLAE
        The model, on the CPU.

    Raises
    ------
    UserError
        If the crops do not have the axis of the noise, or the noise has no direction but the receptive field is not 0.
    """
    directions = [*"zyx"[-len(crop) :], "none"]
    if noise_direction not in directions:
        raise UserError(f"noise direction: found {noise_direction}, allowed for these patches: {', '.join(directions)}")
    if noise_direction == "none" and receptive_field != 0:
        raise UserError(f"receptive field: found {receptive_field}, allowed: 0, as the noise direction is none")
    sizes = settings.model
    architecture = Architecture(
        image_channels=len(description["mean"]),
        receptive_field=receptive_field,
        noise_direction=noise_direction,
        dimensions=len(crop),
        stride=crop_stride(crop, sizes.stride),
        **sizes.model_dump() | {"direct_denoiser": sizes.direct_denoiser or None},
    )
    scale = (description["mean"], description["std"], description["step"], description.get("limits"))
    model = DVLAE(architecture, *scale)
    model.ladder_vae.recompute = settings.training.activation_checkpointing
    to_channels_last(model, len(crop))
    return model
