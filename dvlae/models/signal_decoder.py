"""The signal decoder: the branch of the paper's figure from the signal code to the denoised image.

With the code c and the noisy image x, both normalised, it learns

    s(c) = argmin E (s(c) - x)^2,   hence   s(c) = E[x | c],

the noisy image averaged over all that the code does not hold. The autoregressive decoder explains the noise, so the
code holds the signal, and s is an estimate of it. Codes of different latents z ~ q(z | x) give different samples of s;
their mean is the MMSE estimate. No gradient goes from here to the code (:class:`dvlae.models.dvlae.DVLAE` detaches it):
else the code would carry noise to make this loss smaller.

Source: Salmon & Krull, arXiv 2310.07887. What differs from the paper: convolutions pad with zeros instead of
reflections (those of :mod:`dvlae.models.paper` do not), and there are one to three spatial axes.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from dvlae.models.layers import CONVOLUTIONS


class SignalDecoder(nn.Sequential):
    """Four 3x3 convolutions with ReLU between them.

    They map the signal code, (N, channels, ...), to a normalised denoised image, (N, image_channels, ...).

    Parameters
    ----------
    channels
        Channels of the signal code and of the hidden layers.
    image_channels
        Channels of the image.
    dimensions
        Number of spatial axes.
    convolution
        Makes a 3x3 convolution, given the channels of its input and of its output; None: one that pads with zeros.

    Attributes
    ----------
    radius
        Pixels of the signal code that an output pixel sees to each side.
    """

    radius = 4

    def __init__(
        self,
        channels: int,
        image_channels: int,
        dimensions: int = 2,
        convolution: Callable[[int, int], nn.Module] | None = None,
    ):
        if convolution is None:
            convolution = partial(CONVOLUTIONS[dimensions], kernel_size=3, padding=1)
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [convolution(channels, channels), nn.ReLU(inplace=True)]
        super().__init__(*layers, convolution(channels, image_channels))
