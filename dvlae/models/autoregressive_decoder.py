"""The decoder that models the noise: one direction, strictly causal."""

from torch import Tensor, nn
from torch.nn import functional as F

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
        ``"x"`` (along a row) or ``"y"`` (along a column).
    delay
        Pixels by which the input is shifted first: with 1, the current pixel is not seen.
    """

    def __init__(self, in_channels: int, channels: int, kernel: int, dilation: int, direction: str, delay: int = 0):
        super().__init__()
        self.axis = {"x": -1, "y": -2}[direction]
        along = (lambda value, other: (other, value)) if direction == "x" else (lambda value, other: (value, other))
        reach = (kernel - 1) * dilation + delay
        # Padding on both sides and cropping the far end costs less than a padded copy of the input.
        self.conv = nn.Conv2d(
            in_channels, channels, along(kernel, 1), dilation=along(dilation, 1), padding=along(reach, 0)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, Y, X) to (N, C, Y, X)."""
        return self.conv(x).narrow(self.axis, 0, x.shape[self.axis])


class AutoregressiveDecoder(nn.Module):
    """Predict the distribution of each pixel from the signal code there and from previous pixels of its line.

    The output at pixel j depends on pixels j-1 ... j-R of the same row (direction ``"x"``) or column (``"y"``),
    where R is the receptive field, on no other pixel, and on the signal code (DESIGN.md section 3).

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
        ``"x"``, ``"y"`` or ``"none"``.
    """

    def __init__(self, image_channels: int, channels: int, components: int, receptive_field: int, noise_direction: str):
        super().__init__()
        kernel, blocks = kernel_and_blocks(receptive_field)
        self.components = components
        self.image_channels = image_channels
        self.convolutions = nn.ModuleList()
        for i, dilation in enumerate(dilations(blocks)):
            if i == 0:
                first = CausalConvolution(image_channels, channels, kernel - 1, 1, noise_direction, delay=1)
            else:
                first = CausalConvolution(channels, channels, kernel, dilation, noise_direction)
            self.convolutions += [first, CausalConvolution(channels, channels, kernel, 1, noise_direction)]
        self.code = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(max(1, 2 * blocks)))
        self.hidden = nn.Conv2d(channels, channels, 1)
        self.parameters_of_mixture = nn.Conv2d(channels, 3 * components * image_channels, 1)

    def forward(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict the mixture of every pixel.

        Parameters
        ----------
        x
            Normalised noisy image, (N, C, Y, X).
        code
            Signal code, (N, channels, Y, X).

        Returns
        -------
        logits, means, raw_scales
            Each (N, components, C, Y, X), as :func:`dvlae.models.likelihood.mixture_log_likelihood` takes them.
        """
        h = self.code[0](code)
        if self.convolutions:
            h = h + self.convolutions[0](x)
        for convolution, from_code in zip(self.convolutions[1:], self.code[1:], strict=True):
            h = h + convolution(F.relu(h)) + from_code(code)
        h = F.relu(self.hidden(F.relu(h)))
        mixture = self.parameters_of_mixture(h)
        return tuple(part.unflatten(1, (self.components, self.image_channels)) for part in mixture.chunk(3, dim=1))
