"""Networks that map a noisy image to a clean one: a U-Net, and ours without its autoregressive decoder.

Sources: U-Net, Ronneberger et al., arXiv 1505.04597 (2015). What differs from theirs: convolutions pad with zeros, maps
grow by nearest neighbours, and the network predicts what to add to its input, as in CARE (Weigert et al., Nature
Methods 15, 2018).
"""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dvlae.inference.posterior import bottom_up_halo
from dvlae.inference.tiling import padded_shape
from dvlae.inference.top_down import top_down_halo
from dvlae.models.ladder_vae import LadderVAE
from dvlae.models.layers import CONVOLUTIONS, cut_padding, upsampled
from dvlae.models.signal_decoder import SignalDecoder

MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


class Denoiser(nn.Module):
    """A network that maps a normalised noisy image (N, C, ...) to a normalised clean one.

    Parameters
    ----------
    strides
        Pixels of the image to one position of each coarser map, along each spatial axis, finest first.
    """

    def __init__(self, strides: Sequence[tuple[int, ...]]):
        super().__init__()
        self.strides = strides

    @property
    @abstractmethod
    def halo(self) -> tuple[int, ...]:
        """The pixels that an output pixel sees to each side along each axis, rounded up to the coarsest map."""

    @abstractmethod
    def denoise_padded(self, x: Tensor) -> Tensor:
        """Denoise an image with sides that are multiples of the last stride.

        Parameters
        ----------
        x
            Normalised noisy image, (N, C, ...).

        Returns
        -------
        Tensor
            Normalised clean image, (N, C, ...).
        """

    def forward(self, x: Tensor) -> Tensor:
        """Denoise an image.

        Parameters
        ----------
        x
            Normalised noisy image, (N, C, ...).

        Returns
        -------
        Tensor
            Normalised clean image, (N, C, ...).
        """
        sides = x.shape[2:]
        missing = [-side % step for side, step in zip(sides, self.strides[-1], strict=True)]
        if any(missing):
            x = F.pad(x, [width for end in reversed(missing) for width in (0, end)], mode="replicate")
        return cut_padding(self.denoise_padded(x), sides)


class UNet(Denoiser):
    """A U-Net without normalisation, which predicts the difference between the clean and the noisy image.

    Before training, the output is the input.

    Parameters
    ----------
    image_channels
        Channels of the image.
    width
        Channels of the maps at full resolution. Each coarser map has twice as many as the one before.
    strides
        Pixels of the image to one position of each coarser map, along each spatial axis, finest first.
    """

    def __init__(self, image_channels: int, width: int, strides: Sequence[tuple[int, ...]]):
        super().__init__(strides)
        dimensions = len(strides[0])
        steps = pairwise([(1,) * dimensions, *strides])
        self.factors = [tuple(above // below for below, above in zip(*step, strict=True)) for step in steps]
        widths = [width * 2**scale for scale in range(len(strides) + 1)]
        self.pool = MAX_POOLS[dimensions]
        self.down = nn.ModuleList(
            _two_convolutions(below, above, dimensions) for below, above in pairwise([image_channels, *widths])
        )
        self.up = nn.ModuleList(
            _two_convolutions(below + above, below, dimensions) for below, above in reversed(list(pairwise(widths)))
        )
        self.head = CONVOLUTIONS[dimensions](width, image_channels, 1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    @property
    def halo(self) -> tuple[int, ...]:
        """The pixels that an output pixel sees to each side along each axis, rounded up to the coarsest map."""
        # Two convolutions on the way down and two on the way up at each resolution but the coarsest, which has two;
        # pooling and growing reach within one position of the next coarser map.
        reach = [4 + sum(5 * step for step in along_axis) for along_axis in zip(*self.strides, strict=True)]
        return padded_shape(reach, self.strides[-1])

    def denoise_padded(self, x: Tensor) -> Tensor:
        """Denoise an image with sides that are multiples of the last stride.

        Parameters
        ----------
        x
            Normalised noisy image, (N, image_channels, ...).

        Returns
        -------
        Tensor
            Normalised clean image, (N, image_channels, ...).
        """
        maps = [self.down[0](x)]  # (N, width, ...), the sides of the image
        for factors, layers in zip(self.factors, self.down[1:], strict=True):
            maps.append(layers(self.pool(maps[-1], factors)))  # (N, twice the width before, ...), shorter sides
        h = maps.pop()
        for factors, layers in zip(reversed(self.factors), self.up, strict=True):
            h = layers(torch.cat([upsampled(h, factors), maps.pop()], dim=1))
        return x + self.head(h)


def _two_convolutions(entering: int, leaving: int, dimensions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (entering, leaving):
        convolution = CONVOLUTIONS[dimensions](channels, leaving, 3, padding=1)
        # Without normalisation, PyTorch's own initial weights would let the maps fade away from layer to layer.
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        assert convolution.bias is not None
        nn.init.zeros_(convolution.bias)
        layers += [convolution, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class WithoutNoiseModel(Denoiser):
    """Our own network without the autoregressive decoder: the ladder with all latents at their means, and the signal.

    Parameters
    ----------
    image_channels
        Channels of the image.
    channels, latent_channels
        Channels of the maps, and of the latent of each level.
    strides
        Pixels of the image to one position of each level's grid, along each spatial axis, finest first.
    """

    def __init__(self, image_channels: int, channels: int, latent_channels: int, strides: Sequence[tuple[int, ...]]):
        super().__init__(strides)
        dimensions = len(strides[0])
        self.ladder_vae = LadderVAE(
            image_channels, channels, latent_channels, len(strides), 1, dimensions, stride=strides[-1]
        )
        self.signal_decoder = SignalDecoder(channels, image_channels, dimensions)

    @property
    def halo(self) -> tuple[int, ...]:
        """The pixels that an output pixel sees to each side along each axis, rounded up to the coarsest map."""
        levels = len(self.strides)
        up, down = bottom_up_halo(self.ladder_vae, levels), top_down_halo(self.ladder_vae, levels)
        return tuple(map(sum, zip(up, down, strict=True)))

    def denoise_padded(self, x: Tensor) -> Tensor:
        """Denoise an image with sides that are multiples of the last stride.

        Parameters
        ----------
        x
            Normalised noisy image, (N, image_channels, ...).

        Returns
        -------
        Tensor
            Normalised clean image, (N, image_channels, ...).
        """
        return self.signal_decoder(self.ladder_vae.code_of_means(x))
