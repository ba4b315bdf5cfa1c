"""Direct denoisers: additional networks that denoise an image in one pass.

**One predicts the mean or the median of the posterior.** With x the normalised noisy image, s the signal, g the guess
that the signal decoder makes of the means of all latents, and h the ladder VAE's bottom-up features, it minimises over
samples s ~ p(s | x) of the trained model

    mean    E (s - D(x, g, h))^2   hence   D = E[s | x], the MMSE estimate
    median  E |s - D(x, g, h)|     hence   D = the median of p(s | x)

so that one pass replaces many samples. D = g + U-Net(x, g, h), whose last layer begins with zeros.

Sources: Salmon & Krull, "Direct unsupervised denoising", arXiv 2310.18116 (2023); U-Net, Ronneberger et al., arXiv
1505.04597 (2015). What differs from theirs: there a U-Net maps x alone to the signal; here it corrects a guess, uses
the ladder VAE's features instead of a contracting path of its own, and learns from samples of other views of the image
(:func:`dvlae.training.objectives.distillation.distillation_loss`).

**The other is refined**: it begins as the ladder VAE and the signal decoder of the model, with each latent at its
mean, and then minimises an estimate of the squared error to the clean image
(:mod:`dvlae.training.objectives.refinement`). The networks of the model stay as they are, for samples, standard
deviations and likelihoods.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dvlae.models.ladder import Ladder
from dvlae.models.layers import CONVOLUTIONS, BatchNorm, Pointwise, upsampled

# Features with larger strides, in pixels, are left out, so that what a tile sees is bounded.
MAX_STRIDE = 8


class ResidualConvolutions(nn.Module):
    """A sequence of (batch norm, ReLU, 3x3 convolution), added to the input. It keeps the shape (N, C, ...).

    Parameters
    ----------
    channels
        C.
    times
        Number of convolutions.
    dimensions
        Number of spatial axes.
    """

    def __init__(self, channels: int, times: int, dimensions: int):
        super().__init__()
        self.norms = nn.ModuleList(BatchNorm(channels) for _ in range(times))
        self.convolutions = nn.ModuleList(
            CONVOLUTIONS[dimensions](channels, channels, 3, padding=1) for _ in range(times)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, ...) to (N, C, ...).

        Parameters
        ----------
        x
            (N, C, ...).

        Returns
        -------
        Tensor
            Tensor of the same shape.
        """
        h = x  # (N, C, ...) all along
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            h = convolution(F.relu_(norm(h)))
        return x + h


class DirectDenoiser(nn.Module):
    """U-Net that turns a guess of the signal into the mean or the median of its posterior.

    The guess is the output of the signal decoder with each latent at its mean. The contracting path of the U-Net is the
    bottom-up path of the ladder VAE, whose features contain all that the posterior depends on. The expanding path takes
    the features of one level of each resolution. Before training, the output is the guess.

    Parameters
    ----------
    image_channels
        Channels of the image.
    channels
        Channels of the ladder VAE, and of the last layers here; the layers before have twice as many.
    strides
        Pixels of the image to one position of the grid of each level of the ladder VAE, along each spatial axis.
    dimensions
        Number of spatial axes.

    Attributes
    ----------
    levels
        Numbers of the levels whose features are used, finest first.
    strides
        Strides of the image, which are 1, and of these levels.
    """

    def __init__(self, image_channels: int, channels: int, strides: Sequence[tuple[int, ...]], dimensions: int):
        super().__init__()
        # Of levels that share a stride, the coarsest is used.
        last = {stride: level for level, stride in enumerate(strides) if 1 < max(stride) <= MAX_STRIDE}
        self.levels = list(last.values())
        self.strides = [(1,) * dimensions, *last]
        steps = pairwise(self.strides)
        self.factors = [tuple(above // below for below, above in zip(*step, strict=True)) for step in steps]
        scales = range(len(self.levels))
        self.enter = nn.ModuleList(Pointwise(channels, 2 * channels) for _ in scales)
        self.climb = nn.ModuleList(ResidualConvolutions(2 * channels, 2, dimensions) for _ in scales)
        self.grow = nn.ModuleList(Pointwise(2 * channels, 2 * channels if scale else channels) for scale in scales)
        self.stem = CONVOLUTIONS[dimensions](2 * image_channels, channels, 3, padding=1)
        self.last = ResidualConvolutions(channels, 1, dimensions)
        self.norm = BatchNorm(channels)
        self.head = CONVOLUTIONS[dimensions](channels, image_channels, 3, padding=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    @property
    def halo(self) -> tuple[int, ...]:
        """The pixels of image and features that a window sees to each side along each axis, before rounding."""
        # Three convolutions are at full resolution: stem, last and head. Two are at that of each level.
        return tuple(3 + 2 * sum(of_levels) for _, *of_levels in zip(*self.strides, strict=True))

    def forward(self, x: Tensor, guess: Tensor, features: list[Tensor]) -> Tensor:
        """Predict the signal.

        Parameters
        ----------
        x, guess
            Normalised noisy image, and normalised guess of the signal, (N, image_channels, ...).
        features
            Bottom-up features of the ladder VAE at :attr:`levels`, (N, channels, ...).

        Returns
        -------
        Tensor
            Normalised signal, (N, image_channels, ...).
        """
        full = self.stem(torch.cat([x, guess], dim=1))  # (N, channels, ...), the sides of the image
        h: Tensor | None = None
        for scale in reversed(range(len(features))):
            entered = self.enter[scale](features[scale])  # (N, 2 channels, ...), the sides of the features
            h = self.climb[scale](entered if h is None else h + entered)
            # The 1x1 convolution commutes with nearest-neighbour upsampling, and costs less before it. It halves the
            # number of channels at the finest scale.
            h = upsampled(self.grow[scale](h), self.factors[scale])  # the sides of the next finer features
        h = self.last(full if h is None else full + h)  # (N, channels, ...)
        return guess + self.head(F.relu_(self.norm(h)))  # (N, image_channels, ...)


class RefinedDenoiser(nn.Module):
    """A ladder VAE and a signal decoder that denoise together.

    Parameters
    ----------
    ladder_vae, signal_decoder
        The networks; they are not copied.
    """

    def __init__(self, ladder_vae: Ladder, signal_decoder: nn.Module):
        super().__init__()
        self.ladder_vae, self.signal_decoder = ladder_vae, signal_decoder

    def forward(self, x: Tensor) -> Tensor:
        """Denoise an image with sides that are multiples of the last stride.

        Parameters
        ----------
        x
            Normalised noisy image, (N, C, ...).

        Returns
        -------
        Tensor
            Normalised signal, (N, C, ...).
        """
        return self.signal_decoder(self.ladder_vae.code_of_means(x))
