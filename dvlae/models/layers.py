"""Layers that several networks share, for traces, images and volumes: one, two or three spatial axes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

# By the number of spatial axes.
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED_CONVOLUTIONS = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def memory_format(dimensions: int) -> torch.memory_format:
    """Return the layout in which convolutions with so many spatial axes are fastest."""
    return {2: torch.channels_last, 3: torch.channels_last_3d}.get(dimensions, torch.contiguous_format)


def checkpointed(function: Callable, *arguments):
    """Call a function; keep nothing of it for the backward pass, which calls it again.

    Batch norms see the batch twice, so that their running statistics follow it a little faster.
    """
    return checkpoint(function, *arguments, use_reentrant=False)


def to_channels_last(model: nn.Module, dimensions: int) -> nn.Module:
    """Bring the convolutions of a model with so many spatial axes into their :func:`memory_format`, in place.

    Module.to() would stop at other tensors that happen to have four or five axes, and leave the weights of a
    convolution of one channel as they are, which lie in both layouts: its output would then have the slow one.
    """
    for parameter in model.parameters():
        if parameter.ndim == dimensions + 2:
            parameter.data = parameter.data.clone(memory_format=memory_format(dimensions))
    return model


def upsampled(x: Tensor) -> Tensor:
    """Double the sides of (N, C, ...) by nearest neighbours."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def fused_upsample_kernel(weight: Tensor) -> Tensor:
    """Return the kernel of the transposed convolution that equals a 3x3 one of an upsampled map (stride 2, padding 1).

    Along each axis three neighbours of an upsampled pixel are two different values. The kernel holds the sums of the
    weights that meet the same value; an image then takes 4/9 of the operations.
    """
    for axis in range(2, weight.ndim):
        before, at, after = weight.unbind(axis)
        weight = torch.stack([after, at + after, before + at, before], axis)
    return weight.transpose(0, 1).contiguous(memory_format=memory_format(weight.ndim - 2))


def fused_upsample_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Return the 3x3 convolution of ``upsampled(x)``, (N, C, ...) with twice the sides of ``x``, without upsampling."""
    return TRANSPOSED_CONVOLUTIONS[weight.ndim - 2](x, fused_upsample_kernel(weight), stride=2, padding=1)


class Pointwise(nn.Linear):
    """A 1x1 convolution, computed as one product of matrices: faster than a convolution where channels come last."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_features, ...) to (N, out_features, ...)."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class _Mish(torch.autograd.Function):
    """Mish with one sigmoid, and its derivative computed with it; in float32 inside."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        dtype, x = x.dtype, x.float()
        sigmoid = torch.sigmoid(x)
        # With q = 1 - sigmoid(x), tanh(log(1 + exp(x))) is (1 - q^2) / (1 + q^2).
        squared = (1 - sigmoid).square_()
        tanh = (1 - squared).div_(squared.add_(1))
        y = x * tanh
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(torch.addcmul(tanh, torch.addcmul(x, y, tanh, value=-1), sigmoid).to(dtype))
        return y.to(dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (derivative,) = ctx.saved_tensors
        return gradient * derivative


def mish(x: Tensor) -> Tensor:
    """Return x tanh(log(1 + exp(x))) (Misra, arXiv 1908.08681); on a CPU over twice as fast as PyTorch's."""
    return _Mish.apply(x) if x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) else F.mish(x)


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

    Where it upsamples, all that is done to the input after :func:`upsampled`; what commutes with that is done before.

    Parameters
    ----------
    channels
        C, of the input and of the output.
    dimensions
        Number of spatial axes.
    upsamples
        Whether the sides of the output are twice as long as those of the input.
    """

    radius = 2  # pixels of the output: how far one of them sees

    def __init__(self, channels: int, dimensions: int, upsamples: bool = False):
        super().__init__()
        convolution = CONVOLUTIONS[dimensions]
        self.upsamples = upsamples
        self.norm1 = BatchNorm(channels)
        self.conv1 = convolution(channels, channels, 3, padding=1, bias=False)
        self.norm2 = BatchNorm(channels)
        self.conv2 = convolution(channels, channels, 3, padding=1)
        # Two layers, not one that is then cut in two: gradients of slices are slow.
        self.value = Pointwise(channels, channels)
        self.gate = Pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, ...) to (N, C, ...)."""
        h = mish(self.norm1(x))
        if self.upsamples:
            x, h = upsampled(x), fused_upsample_conv(h, self.conv1.weight)
        else:
            h = self.conv1(h)
        h = self.conv2(mish(self.norm2(h)))
        return x + torch.tanh(self.value(h)) * torch.sigmoid(self.gate(h))
