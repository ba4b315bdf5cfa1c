"""A network that predicts the signal at once: it learns from samples what their mean or median is."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dvlae.models.layers import CONVOLUTIONS, BatchNorm, Pointwise, upsampled

# In pixels: larger strides of the ladder VAE are left out, so that what a tile sees is bounded.
MAX_STRIDE = 8
# Each statistic minimises its loss.
LOSSES = {"mean": F.mse_loss, "median": F.l1_loss}


class ResidualConvolutions(nn.Module):
    """(batch norm, ReLU, 3x3 convolution) some times, added to the input. Keeps the shape (N, C, ...).

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
        """Map (N, C, ...) to (N, C, ...)."""
        h = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            h = convolution(F.relu_(norm(h)))
        return x + h


class DirectDenoiser(nn.Module):
    """U-Net that turns a guess of the signal into the mean or the median of its posterior.

    The guess is what the signal decoder gives where each latent is at its own mean. The U-Net's way down is the
    bottom-up path of the ladder VAE, whose features hold all that the posterior depends on; its own is the way up, from
    one level of each resolution. Untrained it returns the guess.

    Parameters
    ----------
    image_channels
        Channels of the image.
    channels
        Feature maps of the ladder VAE, and of the last ones here; those before have twice as many.
    strides
        Pixels of the image to one position of the grid of each level of the ladder VAE.
    dimensions
        Number of spatial axes.

    Attributes
    ----------
    levels
        Numbers of the levels whose features are used, finest first.

    References
    ----------
    Ronneberger, Fischer, Brox: U-Net: convolutional networks for biomedical image segmentation, MICCAI 2015.
    """

    def __init__(self, image_channels: int, channels: int, strides: Sequence[int], dimensions: int):
        super().__init__()
        last = {stride: level for level, stride in enumerate(strides) if 1 < stride <= MAX_STRIDE}
        self.levels, self.strides = list(last.values()), list(last)
        scales = range(len(self.levels))
        self.enter = nn.ModuleList(Pointwise(channels, 2 * channels) for _ in scales)
        self.climb = nn.ModuleList(ResidualConvolutions(2 * channels, 2, dimensions) for _ in scales)
        self.grow = nn.ModuleList(Pointwise(2 * channels, 2 * channels if scale else channels) for scale in scales)
        self.stem = CONVOLUTIONS[dimensions](2 * image_channels, channels, 3, padding=1)
        self.last = ResidualConvolutions(channels, 1, dimensions)
        self.norm = BatchNorm(channels)
        self.head = CONVOLUTIONS[dimensions](channels, image_channels, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def halo(self) -> int:
        """Pixels that a window sees to each side, in the image and the features; to be rounded up to their grid."""
        return 3 + 2 * sum(self.strides)  # stem, last and head; two convolutions at each resolution

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
        full = self.stem(torch.cat([x, guess], dim=1))
        h = None
        for scale in reversed(range(len(features))):
            entered = self.enter[scale](features[scale])
            h = self.climb[scale](entered if h is None else h + entered)
            # The 1x1 convolution commutes with nearest-neighbour upsampling, and costs less before it.
            h = upsampled(self.grow[scale](h))
        h = self.norm(self.last(full if h is None else full + h))
        return guess + self.head(F.relu_(h))
