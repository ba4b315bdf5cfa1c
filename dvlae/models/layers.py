"""Layers that several networks share."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that falls back on its running statistics where a batch has one value a channel.

    That happens at the top of a deep model that trains on one small image: a variance of one value is not defined.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, Y, X)."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


class ResidualBlock(nn.Module):
    """(batch norm, Mish, 3x3 convolution) twice, then a gate, added to the input. Keeps the shape (N, C, Y, X).

    Parameters
    ----------
    channels
        C, of the input and of the output.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm1 = BatchNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = BatchNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.gate = nn.Conv2d(channels, 2 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, Y, X) to (N, C, Y, X)."""
        h = self.conv1(F.mish(self.norm1(x)))
        h = self.conv2(F.mish(self.norm2(h)))
        value, gate = self.gate(h).chunk(2, dim=1)
        return x + torch.tanh(value) * torch.sigmoid(gate)
