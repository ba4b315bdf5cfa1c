"""A network that shows the signal at once: it learns from samples what their mean or median is."""

from torch import Tensor, nn
from torch.nn import functional as F

from dvlae.models.layers import CONVOLUTIONS, Pointwise

SCALES = 3  # how often the resolution is halved
LOSSES = {"mean": F.mse_loss, "median": F.l1_loss}  # what each is the minimum of


class Scale(nn.Module):
    """One halving of the resolution: the way down into it, and the way back up.

    Parameters
    ----------
    channels, wider
        Channels of the feature maps above and below.
    dimensions
        Number of spatial axes.
    """

    def __init__(self, channels: int, wider: int, dimensions: int):
        super().__init__()
        convolution = CONVOLUTIONS[dimensions]
        self.shrink = convolution(channels, wider, 3, stride=2, padding=1)
        self.down = convolution(wider, wider, 3, padding=1)
        self.grow = Pointwise(wider, channels)
        self.up = convolution(channels, channels, 3, padding=1)

    def descend(self, h: Tensor) -> Tensor:
        """Map (N, channels, ...) to (N, wider, ...), sides half as long."""
        return F.relu_(self.down(F.relu_(self.shrink(h))))

    def climb(self, h: Tensor, skipped: Tensor) -> Tensor:
        """Bring (N, wider, ...) back and add what was there before the way down, (N, channels, ...)."""
        # The 1x1 convolution commutes with nearest-neighbour growth, and costs less before it.
        h = skipped + F.interpolate(self.grow(h), scale_factor=2, mode="nearest")
        return F.relu_(self.up(h))


class DirectDenoiser(nn.Module):
    """U-Net from the noisy image to the mean or the median of the posterior of the signal, in one pass.

    No normalisation: what a pixel gets depends on its surroundings alone, so that tiles can be exact.

    Parameters
    ----------
    image_channels
        Channels of the image.
    channels
        Feature maps at full resolution; twice as many at half of it, four times as many below.
    dimensions
        Number of spatial axes.

    References
    ----------
    Ronneberger, Fischer, Brox: U-Net: convolutional networks for biomedical image segmentation, MICCAI 2015.
    """

    stride = 2**SCALES  # pixels: the sides of an image are multiples of it

    def __init__(self, image_channels: int, channels: int, dimensions: int):
        super().__init__()
        convolution = CONVOLUTIONS[dimensions]
        widths = [channels * min(4, 2**scale) for scale in range(SCALES + 1)]
        self.stem = convolution(image_channels, channels, 3, padding=1)
        self.scales = nn.ModuleList(
            Scale(above, below, dimensions) for above, below in zip(widths[:-1], widths[1:], strict=True)
        )
        self.head = convolution(channels, image_channels, 3, padding=1)

    @property
    def halo(self) -> int:
        """Pixels that a window on the grid of ``stride`` sees to each side."""
        reach = 1 + 1  # stem and head
        for scale in range(1, SCALES + 1):
            finer, stride = 2 ** (scale - 1), 2**scale
            reach += finer + stride + finer  # shrink, down, up
        return reach

    def forward(self, x: Tensor) -> Tensor:
        """Map a normalised noisy image (N, image_channels, ...) to its signal, of the same shape."""
        h = F.relu_(self.stem(x))
        before = []
        for scale in self.scales:
            before.append(h)
            h = scale.descend(h)
        for scale, skipped in zip(reversed(self.scales), reversed(before), strict=True):
            h = scale.climb(h, skipped)
        return self.head(h)
