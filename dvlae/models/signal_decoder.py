"""The decoder of the signal."""

from torch import Tensor, nn

from dvlae.models.layers import CONVOLUTIONS


class SignalDecoder(nn.Sequential):
    """Map the signal code to a denoised image: four 3x3 convolutions with ReLU between them.

    Parameters
    ----------
    channels
        Channels of the signal code and of the hidden layers.
    image_channels
        Channels of the image.
    dimensions
        Number of spatial axes.
    """

    radius = 4  # pixels: how far an output pixel sees in the signal code

    def __init__(self, channels: int, image_channels: int, dimensions: int = 2):
        convolution = CONVOLUTIONS[dimensions]
        layers = []
        for _ in range(3):
            layers += [convolution(channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
        super().__init__(*layers, convolution(channels, image_channels, 3, padding=1))

    def forward(self, code: Tensor) -> Tensor:
        """Map (N, channels, ...) to a normalised image (N, image_channels, ...)."""
        return super().forward(code)
