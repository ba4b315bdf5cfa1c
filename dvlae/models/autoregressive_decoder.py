"""The decoders that model the noise: one direction, strictly causal."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dvlae.axes import AXES
from dvlae.config.receptive_field import dilations, kernel_and_blocks
from dvlae.models.layers import CONVOLUTIONS, Pointwise


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
        Whether to apply ReLU first.
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

        reach = (kernel - 1) * dilation + delay
        self.rectify = rectify
        self.padding = [0, 0] * (-self.axis - 1) + [reach, -delay]  # of the last axis first, as F.pad takes it
        self.conv = CONVOLUTIONS[dimensions](in_channels, channels, along(kernel, 1), dilation=along(dilation, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, ...) to (N, C, ...)."""
        padded = F.pad(x, self.padding)
        return self.conv(padded.relu_() if self.rectify else padded)


class MixtureDecoder(nn.Module):
    """What both kinds of autoregressive decoder do at their end: predict the mixture of Gaussians of each pixel.

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
        self.components, self.image_channels = components, image_channels

    def mixture_parameters(self, h: Tensor) -> Tensor:
        """Map hidden features (N, channels, ...) to the parameters of mixtures, (N, 3 components C, ...)."""
        return self.parameters_of_mixture(F.relu(self.hidden(F.relu(h))))

    def split(self, mixture: Tensor) -> tuple[Tensor, ...]:
        """Split what :meth:`mixture_parameters` returns into three tensors (N, components, C, ...)."""
        parts = mixture.contiguous().chunk(3, dim=1)  # contiguous, so that each parameter is one piece of memory
        return tuple(part.unflatten(1, (self.components, self.image_channels)) for part in parts)


class AutoregressiveDecoder(MixtureDecoder):
    """Predict the distribution of each pixel from the signal code there and from previous pixels of its line.

    The output at pixel j depends on pixels j-1 ... j-R of the same row (direction ``"x"``), column (``"y"``) or line
    across planes (``"z"``), where R is the receptive field, on no other pixel, and on the signal code (DESIGN.md
    section 3).

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
        self.convolutions = nn.ModuleList()
        for i, dilation in enumerate(dilations(blocks)):
            if i == 0:
                first = CausalConvolution(image_channels, channels, kernel - 1, 1, *line, delay=1, rectify=False)
            else:
                first = CausalConvolution(channels, channels, kernel, dilation, *line)
            self.convolutions += [first, CausalConvolution(channels, channels, kernel, 1, *line)]
        self.axis = self.convolutions[0].axis if self.convolutions else None
        self.code = nn.ModuleList(Pointwise(channels, channels) for _ in range(max(1, 2 * blocks)))
        self.hidden = Pointwise(channels, channels)
        self.parameters_of_mixture = Pointwise(channels, 3 * components * image_channels)

    def forward(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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
        h = self.code[0](code)
        if self.convolutions:
            h = h + self.convolutions[0](x)
        for convolution, from_code in zip(self.convolutions[1:], self.code[1:], strict=True):
            h = h + convolution(h) + from_code(code)
        return self.split(self.mixture_parameters(h))


class LinearAutoregressiveDecoder(MixtureDecoder):
    """Explain each pixel by a signal, and by noise that is a linear autoregression.

    A 1x1 convolution of the signal code gives a signal s. The means of pixel j's mixture lie around
    s_j + sum_k w_k (x_{j-k} - s_{j-k}), k = 1 ... R, with the same w_k everywhere; their offsets, and the mixture's
    weights and scales, are functions of s_j alone. :class:`AutoregressiveDecoder` can take fine texture for strong
    noise, whose strength it tells by the code or by the pixels before; here texture has to go through the code.

    Parameters are those of :class:`AutoregressiveDecoder`, and so is what :meth:`forward` takes and returns.
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
        self.regression = (
            CausalConvolution(image_channels, image_channels, receptive_field, 1, *line, delay=1, rectify=False)
            if receptive_field
            else None
        )
        self.axis = self.regression.axis if receptive_field else None
        self.first, self.hidden = Pointwise(image_channels, channels), Pointwise(channels, channels)
        self.parameters_of_mixture = Pointwise(channels, 3 * components * image_channels)

    def decode(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the signal code (N, channels, ...) says alone.

        Returns
        -------
        signal
            (N, C, ...), never in less than float32: noise may be a small part of it.
        mixture
            (N, 3 components C, ...): unnormalised log weights, offsets of the means, scales before softplus.
        """
        with torch.autocast(code.device.type, enabled=False):
            signal = self.signal(code.to(self.signal.weight.dtype))
        return signal, self.mixture_parameters(self.first(signal))

    def forward(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict the mixture of every pixel."""
        signal, mixture = self.decode(code)
        logits, offsets, raw_scales = self.split(mixture)
        if self.regression is not None:
            with torch.autocast(code.device.type, enabled=False):
                signal = signal + self.regression(x - signal)
        return logits, offsets + signal.unsqueeze(1), raw_scales


DECODERS = {"nonlinear": AutoregressiveDecoder, "linear": LinearAutoregressiveDecoder}
