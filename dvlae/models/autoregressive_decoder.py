"""The decoder that models the noise: one direction, strictly causal."""

from torch import Tensor, nn
from torch.nn import functional as F

from dvlae.data.images import AXES
from dvlae.models.layers import CONVOLUTIONS
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
    ):
        super().__init__()
        self.axis = AXES[direction]

        def along(value: int, other: int) -> tuple[int, ...]:
            values = [other] * dimensions
            values[self.axis] = value
            return tuple(values)

        reach = (kernel - 1) * dilation + delay
        # Padding on both sides and cropping the far end costs less than a padded copy of the input.
        self.conv = CONVOLUTIONS[dimensions](
            in_channels, channels, along(kernel, 1), dilation=along(dilation, 1), padding=along(reach, 0)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, ...) to (N, C, ...)."""
        return self.conv(x).narrow(self.axis, 0, x.shape[self.axis])


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
        convolution = CONVOLUTIONS[dimensions]
        line = (noise_direction, dimensions)
        kernel, blocks = kernel_and_blocks(receptive_field)
        self.components = components
        self.image_channels = image_channels
        self.convolutions = nn.ModuleList()
        for i, dilation in enumerate(dilations(blocks)):
            if i == 0:
                first = CausalConvolution(image_channels, channels, kernel - 1, 1, *line, delay=1)
            else:
                first = CausalConvolution(channels, channels, kernel, dilation, *line)
            self.convolutions += [first, CausalConvolution(channels, channels, kernel, 1, *line)]
        self.code = nn.ModuleList(convolution(channels, channels, 1) for _ in range(max(1, 2 * blocks)))
        self.hidden = convolution(channels, channels, 1)
        self.parameters_of_mixture = convolution(channels, 3 * components * image_channels, 1)

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
            h = h + convolution(F.relu(h)) + from_code(code)
        h = F.relu(self.hidden(F.relu(h)))
        mixture = self.parameters_of_mixture(h)
        return tuple(part.unflatten(1, (self.components, self.image_channels)) for part in mixture.chunk(3, dim=1))
