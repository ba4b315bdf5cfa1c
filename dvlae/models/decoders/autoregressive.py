"""The autoregressive decoder: the branch of the paper's figure from the signal code to the noisy image.

Symbols: x_j is the noisy pixel j of a line along the noise direction, R the receptive field, c the signal code.

    p(x | c) = prod_j p(x_j | x_{j-R} ... x_{j-1}, c)

Each factor is a mixture of Gaussians (:mod:`dvlae.models.likelihood`). The previous pixels of the line predict the
correlated noise, so the code does not have to hold it. What they do not predict, above all structure across lines, has
to be in the code: the signal. This is the argument of the variational lossy autoencoder (Chen et al., arXiv 1611.02731,
2017). With i = 1 ... 2n - 1, and 1x1 convolutions C_i, Q and P,

    h_0 = conv_0(x) + C_0 c                                  conv_0 sees x_{j-1}, x_{j-2} ..., and not x_j
    h_i = h_{i-1} + conv_i(relu(h_{i-1})) + C_i c            conv_i is causal; its dilation is 1 for odd i
    mixture = P relu(Q relu(h_{2n-1}))

Sources: Salmon & Krull, arXiv 2310.07887; rising dilations as in WaveNet, van den Oord et al., arXiv 1609.03499 (2016).
What differs from the authors' code: a block is ReLU and convolution, without a further 1x1 convolution; the first
convolution is shifted, not masked; lines may also run along z; and there is the :class:`LinearAutoregressiveDecoder`.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dvlae.axes import AXES
from dvlae.config.sizes.receptive_field import dilations, kernel_and_blocks
from dvlae.models.layers import CONVOLUTIONS, Pointwise

# Logits, means and raw scales, each (N, K, C, ...), as dvlae.models.likelihood takes them.
Mixture = tuple[Tensor, Tensor, Tensor]


class CausalConvolution(nn.Module):
    """A 1-D convolution along the noise direction that sees the current and previous pixels only.

    Parameters
    ----------
    in_channels, channels
        Channels of the input and of the output.
    kernel
        Number of taps.
    dilation
        Spacing of the taps, in pixels.
    direction
        ``"x"`` (along a row), ``"y"`` (along a column) or ``"z"`` (across planes).
    dimensions
        Number of spatial axes.
    delay
        Pixels by which the input is shifted first: with 1, the current pixel is not seen.
    rectify
        Whether to apply a ReLU first.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int,
        dilation: int,
        direction: str,
        dimensions: int,
        delay: int = 0,
        rectify: bool = True,
    ):
        super().__init__()
        self.axis = AXES[direction]

        def along(value: int, other: int) -> tuple[int, ...]:
            values = [other] * dimensions
            values[self.axis] = value
            return tuple(values)

        self.rectify = rectify
        reach = (kernel - 1) * dilation + delay
        # F.pad takes the last axis first. A negative padding cuts the newest pixels off: that is the delay.
        self.padding = [0, 0] * (-self.axis - 1) + [reach, -delay]
        self.conv = CONVOLUTIONS[dimensions](in_channels, channels, along(kernel, 1), dilation=along(dilation, 1))

    @property
    def weight(self) -> Tensor:
        """The weights of the taps, (C, C_in, ...), oldest first."""
        return self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, ...) to (N, C, ...).

        Parameters
        ----------
        x
            (N, C_in, ...).

        Returns
        -------
        Tensor
            (N, C, ...).
        """
        padded = F.pad(x, self.padding)  # (N, C_in, ...), longer by (kernel - 1) * dilation along the lines
        return self.conv(padded.relu_() if self.rectify else padded)


class MixtureDecoder(nn.Module):
    """The last layers of both kinds of autoregressive decoder: they predict the mixture of Gaussians of each pixel.

    Parameters
    ----------
    components
        Number of Gaussians in the mixture of a pixel.
    image_channels
        Channels of the image, C.

    Attributes
    ----------
    axis
        The spatial axis of the noise, from the end; None where no pixel depends on another.
    """

    axis: int | None
    hidden: Pointwise
    parameters_of_mixture: Pointwise

    def __init__(self, components: int, image_channels: int):
        super().__init__()
        self.components = components
        self.image_channels = image_channels

    def mixture_parameters(self, h: Tensor) -> Tensor:
        """Map hidden features (N, channels, ...) to the parameters of mixtures, (N, 3 components C, ...).

        Parameters
        ----------
        h
            (N, channels, ...).

        Returns
        -------
        Tensor
            (N, 3 components C, ...).
        """
        h = F.relu(self.hidden(F.relu(h)))  # (N, channels, ...)
        return self.parameters_of_mixture(h)

    def split(self, mixture: Tensor) -> Mixture:
        """Split what :meth:`mixture_parameters` returns into three tensors (N, components, C, ...).

        Parameters
        ----------
        mixture
            (N, 3 components C, ...).

        Returns
        -------
        Mixture
            Logits, means and raw scales.
        """
        # Contiguous, so that each parameter is one piece of memory.
        parts = mixture.contiguous().chunk(3, dim=1)  # (N, components C, ...)
        logits, means, raw_scales = (part.unflatten(1, (self.components, self.image_channels)) for part in parts)
        return logits, means, raw_scales


class AutoregressiveDecoder(MixtureDecoder):
    """Predict the distribution of each pixel from the signal code there and from previous pixels of its line.

    The output at pixel j depends on pixels j-1 ... j-R of the same row (direction ``"x"``), column (``"y"``) or line
    across planes (``"z"``), where R is the receptive field, on no other pixel, and on the signal code. Convolutions of
    k taps come in pairs: the first of pair i has dilation d_i, the second has dilation 1. The very first has k - 1
    taps, which leave out pixel j. The network is therefore strictly causal, with R = (k - 1) sum_i (d_i + 1)
    (:mod:`dvlae.config.sizes.receptive_field`).

    Parameters
    ----------
    image_channels
        Channels of the image.
    channels
        Channels of the signal code and of the hidden layers.
    components
        Gaussians in the mixture of each pixel.
    receptive_field
        R, in pixels; 0 for pixel-independent noise.
    noise_direction
        ``"x"``, ``"y"``, ``"z"`` or ``"none"``.
    dimensions
        Number of spatial axes.
    """

    def __init__(
        self,
        image_channels: int,
        channels: int,
        components: int,
        receptive_field: int,
        noise_direction: str,
        dimensions: int = 2,
    ):
        super().__init__(components, image_channels)
        line = (noise_direction, dimensions)
        kernel, blocks = kernel_and_blocks(receptive_field)
        convolutions: list[CausalConvolution] = []
        for i, dilation in enumerate(dilations(blocks)):
            if i == 0:
                first = CausalConvolution(image_channels, channels, kernel - 1, 1, *line, delay=1, rectify=False)
            else:
                first = CausalConvolution(channels, channels, kernel, dilation, *line)
            second = CausalConvolution(channels, channels, kernel, 1, *line)
            convolutions += [first, second]
        self.convolutions = cast(Sequence[CausalConvolution], nn.ModuleList(convolutions))
        self.axis = convolutions[0].axis if convolutions else None
        from_code = [Pointwise(channels, channels) for _ in range(max(1, 2 * blocks))]
        self.code = cast(Sequence[Pointwise], nn.ModuleList(from_code))
        self.hidden = Pointwise(channels, channels)
        self.parameters_of_mixture = Pointwise(channels, 3 * components * image_channels)

    def forward(self, x: Tensor, code: Tensor) -> Mixture:
        """Predict the mixture of every pixel.

        Parameters
        ----------
        x
            Normalised noisy image, (N, C, ...).
        code
            Signal code, (N, channels, ...).

        Returns
        -------
        logits, means, raw_scales
            Each (N, components, C, ...), as :func:`dvlae.models.likelihood.mixture_log_likelihood` takes them.
        """
        h = self.code[0](code)  # (N, channels, ...) all along
        if self.convolutions:
            h = h + self.convolutions[0](x)
        for convolution, from_code in zip(self.convolutions[1:], self.code[1:], strict=True):
            h = h + convolution(h) + from_code(code)
        mixture = self.mixture_parameters(h)  # (N, 3 components C, ...)
        return self.split(mixture)


class LinearAutoregressiveDecoder(MixtureDecoder):
    """Model each pixel as a signal plus noise that is a linear autoregression.

    A 1x1 convolution of the signal code gives a signal s. The means of pixel j's mixture lie around

        s_j + sum_{k = 1 ... R} a_k (x_{j-k} - s_{j-k})

    with the same a_k everywhere; their offsets, and the mixture's weights and scales, are functions of s_j alone.
    The paper has no such decoder. :class:`AutoregressiveDecoder` can mistake fine texture for strong noise, whose
    strength it infers from the code or from the previous pixels; here texture has to go through the code.

    The methods take and return the same as those of :class:`AutoregressiveDecoder`.

    Parameters
    ----------
    image_channels, channels, components, receptive_field, noise_direction, dimensions
        As for :class:`AutoregressiveDecoder`.
    """

    def __init__(
        self,
        image_channels: int,
        channels: int,
        components: int,
        receptive_field: int,
        noise_direction: str,
        dimensions: int = 2,
    ):
        super().__init__(components, image_channels)
        line = (noise_direction, dimensions)
        self.signal = Pointwise(channels, image_channels)
        self.regression: CausalConvolution | None = None
        self.axis = None
        if receptive_field:
            self.regression = CausalConvolution(
                image_channels, image_channels, receptive_field, 1, *line, delay=1, rectify=False
            )
            self.axis = self.regression.axis
        self.first = Pointwise(image_channels, channels)
        self.hidden = Pointwise(channels, channels)
        self.parameters_of_mixture = Pointwise(channels, 3 * components * image_channels)

    def decode(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Return the signal and the mixtures that depend on the signal code alone.

        Parameters
        ----------
        code
            Signal code, (N, channels, ...).

        Returns
        -------
        signal
            (N, C, ...), never in less than float32: noise may be a small part of it.
        mixture
            (N, 3 components C, ...): unnormalised log weights, offsets of the means, scales before softplus.
        """
        with torch.autocast(code.device.type, enabled=False):
            signal = self.signal(code.to(self.signal.weight.dtype))  # (N, C, ...)
        mixture = self.mixture_parameters(self.first(signal))  # (N, 3 components C, ...)
        return signal, mixture

    def forward(self, x: Tensor, code: Tensor) -> Mixture:
        """Predict the mixture of every pixel.

        Parameters
        ----------
        x
            Normalised image, (N, C, ...).
        code
            Signal code, (N, channels, ...).

        Returns
        -------
        Mixture
            Logits, means and raw scales, each (N, components, C, ...).
        """
        signal, mixture = self.decode(code)
        logits, offsets, raw_scales = self.split(mixture)  # (N, components, C, ...)
        mean = signal  # (N, C, ...)
        if self.regression is not None:
            with torch.autocast(code.device.type, enabled=False):
                mean = signal + self.regression(x - signal)
        return logits, offsets + mean.unsqueeze(1), raw_scales


DECODERS = {"nonlinear": AutoregressiveDecoder, "linear": LinearAutoregressiveDecoder}
