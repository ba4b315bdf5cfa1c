"""Layers that several networks share, for traces, images and volumes: one, two or three spatial axes.

The residual block is the one of the paper's ladder VAE,

    f(x) = conv(mish(norm(conv(mish(norm(x))))))
    y = x + tanh(V f(x)) * sigmoid(G f(x))

with V and G 1x1 convolutions. Mish is x tanh(log(1 + e^x)) (Misra, arXiv 1908.08681, 2019); the gate is that of the
gated PixelCNN (van den Oord et al., arXiv 1606.05328, 2016). The other functions and classes compute what PyTorch's
layers of the same names do, faster or on more shapes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def _rounds_to_bfloat16(x: Tensor) -> bool:
    return torch.is_autocast_enabled("cpu") and x.device.type == "cpu"


def _fails_in_bfloat16(layer: Convolution, sides: Sequence[int]) -> bool:
    """Return whether oneDNN uses memory that does not belong to maps with these sides (PyTorch 2.13, AVX-512).

    With a stride it does so where the result has a side of one pixel, and in the gradients of volumes of one or two
    planes.
    """
    padding = cast(tuple[int, ...], layer.padding)
    along_axes = zip(sides, layer.kernel_size, layer.stride, padding, strict=True)
    return (len(sides) == 3 and sides[0] < 3) or (
        max(layer.stride) > 1 and any(side + 2 * pad < kernel + step for side, kernel, step, pad in along_axes)
    )


class _Convolution:
    """What is common to PyTorch's layers below: on a processor, maps with which bfloat16 fails have float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, ...) to (N, out_channels, ...)."""
        # The shape comes last: a trace would take the comparison for a constant.
        if not (_rounds_to_bfloat16(x) and _fails_in_bfloat16(cast(Convolution, self), x.shape[2:])):
            return super().forward(x)  # type: ignore[misc]
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())  # type: ignore[misc]


class Conv1d(_Convolution, nn.Conv1d):
    """The convolution of traces."""


class Conv2d(_Convolution, nn.Conv2d):
    """The convolution of images."""


class Conv3d(_Convolution, nn.Conv3d):
    """The convolution of volumes."""


# By the number of spatial axes.
CONVOLUTIONS: dict[int, Callable[..., Convolution]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}
TRANSPOSED_CONVOLUTIONS = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def memory_format(dimensions: int) -> torch.memory_format:
    """Return the layout in which convolutions are fastest.

    Parameters
    ----------
    dimensions
        Number of spatial axes.

    Returns
    -------
    torch.memory_format
        Channels last for images and volumes; traces have no such layout.
    """
    return {2: torch.channels_last, 3: torch.channels_last_3d}.get(dimensions, torch.contiguous_format)


def to_channels_last(model: nn.Module, dimensions: int) -> nn.Module:
    """Bring the convolutions of a model to their :func:`memory_format`, in place.

    ``Module.to()`` fails on other tensors that have four or five axes. It also leaves the weights of a convolution of
    one channel unchanged, as they are in both layouts, and the output of that convolution then has the slow layout.

    Parameters
    ----------
    model
        The model, which is changed.
    dimensions
        Number of spatial axes.

    Returns
    -------
    Module
        The same model.
    """
    for parameter in model.parameters():
        if parameter.ndim == dimensions + 2:
            parameter.data = parameter.data.clone(memory_format=memory_format(dimensions))
    return model


def cut_padding(maps: Tensor, sides: Sequence[int]) -> Tensor:
    """Cut what belongs to an image of these sides out of maps of the padded image.

    Parameters
    ----------
    maps
        (N, C, ...), with the sides of the padded image.
    sides
        Sides of the image, in pixels.

    Returns
    -------
    Tensor
        A view (N, C, ...) with these sides.
    """
    for axis, side in enumerate(sides, start=2):
        # Gradients of slices are slow, so an image without padding is not cut.
        maps = maps if maps.shape[axis] == side else maps.narrow(axis, 0, side)
    return maps


def upsampled(x: Tensor, factors: Sequence[int]) -> Tensor:
    """Lengthen the sides by nearest neighbours.

    Parameters
    ----------
    x
        Map, (N, C, ...).
    factors
        For each spatial axis, 2 to double the side, or 1 to keep it.

    Returns
    -------
    Tensor
        (N, C, ...), with the longer sides.
    """
    return x if max(factors) == 1 else F.interpolate(x, scale_factor=list(map(float, factors)), mode="nearest")


def fused_upsample_kernel(weight: Tensor, factors: Sequence[int]) -> Tensor:
    """Return the kernel of the transposed convolution that equals a 3x3 one of an upsampled map (padding 1).

    Along an axis that is doubled, three neighbours of an upsampled pixel have two different values. The kernel holds
    the sums of the weights that apply to the same value, and an image takes 4/9 of the operations.

    Parameters
    ----------
    weight
        Weights of the 3x3 convolution, (C_out, C_in, 3, ...).
    factors
        As for :func:`upsampled`; they are the strides of the transposed convolution.

    Returns
    -------
    Tensor
        (C_in, C_out, ...), with 4 weights along an axis that is doubled, and 3 along one that is not.
    """
    for axis, factor in enumerate(factors, start=2):
        before, at, after = weight.unbind(axis)
        taps = [after, at + after, before + at, before] if factor == 2 else [after, at, before]
        weight = torch.stack(taps, axis)
    return weight.transpose(0, 1).contiguous(memory_format=memory_format(weight.ndim - 2))


def fused_upsample_conv(x: Tensor, weight: Tensor, factors: Sequence[int], bias: Tensor | None = None) -> Tensor:
    """Return the 3x3 convolution of ``upsampled(x, factors)`` without upsampling.

    Parameters
    ----------
    x
        Map, (N, C_in, ...).
    weight
        Weights of the 3x3 convolution, (C_out, C_in, 3, ...).
    factors
        As for :func:`upsampled`.
    bias
        (C_out,); None: no bias.

    Returns
    -------
    Tensor
        (N, C_out, ...), with the longer sides.
    """
    kernel = fused_upsample_kernel(weight, factors)
    transposed = partial(TRANSPOSED_CONVOLUTIONS[weight.ndim - 2], stride=tuple(factors), padding=1)
    # As for convolutions, in the gradients.
    if not (_rounds_to_bfloat16(x) and min(x.shape[2:]) < 3):
        return transposed(x, kernel, bias)
    with torch.autocast("cpu", enabled=False):
        return transposed(x.float(), kernel, bias)


class Pointwise(nn.Linear):
    """A 1x1 convolution, computed as one matrix product, which is faster than a convolution if channels are last."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_features, ...) to (N, out_features, ...).

        Parameters
        ----------
        x
            (N, in_features, ...).

        Returns
        -------
        Tensor
            (N, out_features, ...).
        """
        return pointwise(x, self.weight, self.bias)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the 1x1 convolution of (N, C_in, ...), as :class:`Pointwise` does.

    Parameters
    ----------
    x
        (N, C_in, ...).
    weight
        (C_out, C_in).
    bias
        (C_out,); None: no bias.

    Returns
    -------
    Tensor
        (N, C_out, ...).
    """
    return F.linear(x.movedim(1, -1), weight, bias).movedim(-1, 1)


class _Mish(torch.autograd.Function):
    """Mish with one sigmoid, and its derivative computed with it; in float32 inside.

    With q = 1 - sigmoid(x) and t = tanh(log(1 + e^x)),

        t = (1 - q^2) / (1 + q^2)
        d/dx (x t) = t + (x - x t^2) sigmoid(x)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        dtype = x.dtype
        x = x.float()
        sigmoid = torch.sigmoid(x)
        squared = (1 - sigmoid).square_()
        tanh = (1 - squared).div_(squared.add_(1))
        y = x * tanh
        if ctx.needs_input_grad[0]:
            rest = torch.addcmul(x, y, tanh, value=-1)  # x - x t^2
            derivative = torch.addcmul(tanh, rest, sigmoid)
            ctx.save_for_backward(derivative.to(dtype))
        return y.to(dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (derivative,) = ctx.saved_tensors
        return gradient * derivative


def mish(x: Tensor) -> Tensor:
    """Return x tanh(log(1 + exp(x))) (Misra, arXiv 1908.08681).

    On a CPU it is more than twice as fast as PyTorch's.

    Parameters
    ----------
    x
        Numbers of any shape.

    Returns
    -------
    Tensor
        Tensor of the same shape and data type.
    """
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16):
        return _Mish.apply(x)
    return F.mish(x)


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over any number of spatial axes.

    It uses its running statistics if a batch has one value for each channel, whose variance is not defined.

    That happens at the top of a deep model that is trained on one small image.
    """

    # In PyTorch's class they can be None; here they are always set.
    weight: nn.Parameter
    bias: nn.Parameter
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, ...).

        Parameters
        ----------
        x
            (N, C, ...).

        Returns
        -------
        Tensor
            (N, C, ...).
        """
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)

    def _check_input_dim(self, x: Tensor) -> None:
        """Take any number of spatial axes."""


class ResidualBlock(nn.Module):
    """Twice (batch norm, Mish, 3x3 convolution), then a gate, added to the input. It keeps the shape (N, C, ...).

    A block that upsamples applies this to the upsampled input; operations that commute with upsampling come before it.

    Parameters
    ----------
    channels
        C, of the input and of the output.
    dimensions
        Number of spatial axes.
    factors
        For each spatial axis, how many times as long the side of the output is: 1 or 2. None: the sides are kept.
    bias
        Whether the first convolution has a bias, which only the running mean of the norm after it sees.
    gated
        Whether there is a gate.

    Attributes
    ----------
    radius
        Pixels that an output pixel sees to each side.
    """

    radius = 2

    def __init__(
        self,
        channels: int,
        dimensions: int,
        factors: Sequence[int] | None = None,
        *,
        bias: bool = False,
        gated: bool = True,
    ):
        super().__init__()
        convolution = CONVOLUTIONS[dimensions]
        self.factors = tuple(factors or [1] * dimensions)
        self.norm1 = BatchNorm(channels)
        self.conv1 = convolution(channels, channels, 3, padding=1, bias=bias)
        self.norm2 = BatchNorm(channels)
        self.conv2 = convolution(channels, channels, 3, padding=1)
        self.gated = gated
        if gated:
            # Two layers are faster than one whose output is cut in two: gradients of slices are slow.
            self.value = Pointwise(channels, channels)
            self.gate = Pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, ...) to (N, C, ...).

        Parameters
        ----------
        x
            (N, C, ...).

        Returns
        -------
        Tensor
            (N, C, ...); of a block that upsamples, with the longer sides.
        """
        h = mish(self.norm1(x))  # (N, C, ...), with the sides of x
        if max(self.factors) > 1:
            x = upsampled(x, self.factors)
            h = fused_upsample_conv(h, self.conv1.weight, self.factors, self.conv1.bias)
        else:
            h = self.conv1(h)
        h = self.conv2(mish(self.norm2(h)))  # (N, C, ...), from here on with the sides of the output
        return x + (torch.tanh(self.value(h)) * torch.sigmoid(self.gate(h)) if self.gated else h)
