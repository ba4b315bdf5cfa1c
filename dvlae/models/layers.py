"""Layers that several networks share, for traces, images and volumes: one, two or three spatial axes."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}  # by the number of spatial axes


def memory_format(dimensions: int) -> torch.memory_format:
    """Return the layout in which convolutions with so many spatial axes are fastest."""
    return {2: torch.channels_last, 3: torch.channels_last_3d}.get(dimensions, torch.contiguous_format)


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over any number of spatial axes.

    It falls back on its running statistics where a batch has one value a channel.

    That happens at the top of a deep model that trains on one small image: a variance of one value is not defined.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, ...)."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of spatial axes."""


class ResidualBlock(nn.Module):
    """(batch norm, Mish, 3x3 convolution) twice, then a gate, added to the input. Keeps the shape (N, C, ...).

    Parameters
    ----------
    channels
        C, of the input and of the output.
    dimensions
        Number of spatial axes.
    """

    def __init__(self, channels: int, dimensions: int):
        super().__init__()
        convolution = CONVOLUTIONS[dimensions]
        self.norm1 = BatchNorm(channels)
        self.conv1 = convolution(channels, channels, 3, padding=1, bias=False)
        self.norm2 = BatchNorm(channels)
        self.conv2 = convolution(channels, channels, 3, padding=1)
        self.gate = convolution(channels, 2 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, ...) to (N, C, ...)."""
        h = self.conv1(F.mish(self.norm1(x)))
        h = self.conv2(F.mish(self.norm2(h)))
        value, gate = self.gate(h).chunk(2, dim=1)
        return x + torch.tanh(value) * torch.sigmoid(gate)
