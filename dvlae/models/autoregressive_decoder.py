"""The decoder that models the noise: one direction, strictly causal."""

from torch import Tensor, nn
from torch.nn import functional as F

from dvlae.data.images import AXES
from dvlae.models.layers import CONVOLUTIONS, Pointwise
from dvlae.models.receptive_field import dilations, kernel_and_blocks


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


class AutoregressiveDecoder(nn.Module):
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
        super().__init__()
        line = (noise_direction, dimensions)
        kernel, blocks = kernel_and_blocks(receptive_field)
        self.components = components
        self.image_channels = image_channels
        self.convolutions = nn.ModuleList()
        for i, dilation in enumerate(dilations(blocks)):
            if i == 0:
                first = CausalConvolution(image_channels, channels, kernel - 1, 1, *line, delay=1, rectify=False)
            else:
                first = CausalConvolution(channels, channels, kernel, dilation, *line)
            self.convolutions += [first, CausalConvolution(channels, channels, kernel, 1, *line)]
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
        h = F.relu(self.hidden(F.relu(h)))
        mixture = self.parameters_of_mixture(h).contiguous()  # so that each parameter is one piece of memory
        return tuple(part.unflatten(1, (self.components, self.image_channels)) for part in mixture.chunk(3, dim=1))
