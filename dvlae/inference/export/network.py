"""The direct denoiser as one network, from grey values to grey values, in layers that every program knows.

It computes what :func:`dvlae.inference.direct.denoise_directly` computes of a complete image, up to rounding: it
normalises and pads the image, encodes it, decodes the signal with each latent at its mean, corrects this guess, and
cuts the padding off. Networks of other parts of the model are left out, as are the standard deviations of the latents.

Three kinds of layers are replaced by others that compute the same:

- 1x1 convolutions as matrix products, by convolutions;
- convolutions of an upsampled map, by transposed convolutions whose kernels are computed once;
- Mish in a function of our own, by PyTorch's.
"""

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dvlae.inference.posterior import bottom_up_halo
from dvlae.inference.tiling import padded_shape
from dvlae.inference.top_down import top_down_halo
from dvlae.models.direct_denoiser import DirectDenoiser, RefinedDenoiser
from dvlae.models.dvlae import DVLAE
from dvlae.models.ladder_vae import Level
from dvlae.models.layers import CONVOLUTIONS, Convolution, Pointwise, ResidualBlock, fused_upsample_kernel, upsampled

TRANSPOSED: dict[int, Callable[..., nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
# The longest overlap of tiles that is asked for, in pixels along each axis, before it is rounded up to the stride.
# Other programs refuse images that are shorter than twice the overlap.
MAX_HALO = {1: (48,), 2: (48, 48), 3: (8, 16, 16)}


class ExportedDenoiser(nn.Module):
    """The direct denoiser of a model.

    Parameters
    ----------
    model
        Model with a direct denoiser, in evaluation mode, on the CPU. It is not changed.

    Attributes
    ----------
    stride
        Pixels along each spatial axis to multiples of which the network pads an image.
    reach
        Pixels that an output pixel sees to each side along each spatial axis, rounded up to the stride.
    halo
        Pixels to each side by which tiles have to overlap: the reach, but not more than is practical.
    smallest
        Sides of the smallest tile.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: DVLAE):
        super().__init__()
        denoiser = model.direct_denoiser
        assert denoiser is not None, "the model has no direct denoiser"
        if isinstance(denoiser, RefinedDenoiser):
            model, denoiser = model.with_refined(), None
        dimensions = model.architecture.dimensions
        ladder_vae = model.ladder_vae
        self.stride = model.stride
        self.reach = _reach(model)
        most = padded_shape(MAX_HALO[dimensions], self.stride)
        self.halo = tuple(map(min, self.reach, most))
        self.smallest = tuple(2 * halo + stride for halo, stride in zip(self.halo, self.stride, strict=True))
        self.stem = copy.deepcopy(ladder_vae.stem)
        self.levels = nn.ModuleList(_Level(cast(Level, level), dimensions) for level in ladder_vae.levels)
        self.last_block = _Block(cast(ResidualBlock, ladder_vae.last_block))
        self.signal_decoder = copy.deepcopy(model.signal_decoder)
        # A refined denoiser is complete with the signal decoder.
        self.direct_denoiser = copy.deepcopy(denoiser)
        if self.direct_denoiser is not None:
            for layers in (self.direct_denoiser.enter, self.direct_denoiser.grow):
                for number, layer in enumerate(layers):
                    layers[number] = _convolution(layer, dimensions)
        self.register_buffer("mean", model.mean.clone())
        self.register_buffer("std", model.std.clone())
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """Denoise images.

        Parameters
        ----------
        image
            Noisy images in their own units, (N, C, ...). Each side is at least half as long as after padding.

        Returns
        -------
        Tensor
            Clean images in the same units, (N, C, ...).
        """
        sides = image.shape[2:]
        x = (image - self.mean) / self.std
        for axis, stride in enumerate(self.stride, start=2):
            # Without a condition, as a trace would keep the one case that it saw.
            side = x.shape[axis]
            x = torch.cat([x, x.flip(axis)], axis).narrow(axis, 0, side + -side % stride)

        h, features = self.stem(x), []
        for level in self.levels:
            h = cast(_Level, level).bottom_up(h)
            features.append(h)
        state: Tensor | None = None
        for level, feature in zip(reversed(self.levels), reversed(features), strict=True):
            state = cast(_Level, level).top_down(state, feature)
        signal = self.signal_decoder(self.last_block(state))
        if self.direct_denoiser is not None:
            signal = self.direct_denoiser(x, signal, [features[number] for number in self.direct_denoiser.levels])

        for axis, side in enumerate(sides, start=2):
            signal = signal.narrow(axis, 0, side)
        return signal * self.std + self.mean


class _Block(nn.Module):
    """A :class:`~dvlae.models.layers.ResidualBlock`."""

    def __init__(self, block: ResidualBlock):
        super().__init__()
        dimensions = block.conv1.weight.ndim - 2
        self.factors = block.factors
        self.norm1, self.norm2 = copy.deepcopy(block.norm1), copy.deepcopy(block.norm2)
        self.conv1: nn.Module = copy.deepcopy(block.conv1)
        if max(block.factors) > 1:
            kernel = fused_upsample_kernel(block.conv1.weight.detach(), block.factors).contiguous()
            self.conv1 = TRANSPOSED[dimensions](
                *kernel.shape[:2], tuple(kernel.shape[2:]), stride=block.factors, padding=1, bias=False
            )
            self.conv1.load_state_dict({"weight": kernel})
        self.conv2 = copy.deepcopy(block.conv2)
        self.value, self.gate = _convolution(block.value, dimensions), _convolution(block.gate, dimensions)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.mish(self.norm1(x)))
        h = self.conv2(F.mish(self.norm2(h)))
        return upsampled(x, self.factors) + torch.tanh(self.value(h)) * torch.sigmoid(self.gate(h))


class _Level(nn.Module):
    """The way of the mean of the posterior through a :class:`~dvlae.models.ladder_vae.Level`."""

    def __init__(self, level: Level, dimensions: int):
        super().__init__()
        self.shrink = copy.deepcopy(level.shrink)
        self.up_blocks, self.down_blocks = (
            nn.Sequential(*(_Block(cast(ResidualBlock, block)) for block in blocks))
            for blocks in (level.up_blocks, level.down_blocks)
        )
        self.merge = _convolution(level.merge, dimensions)
        self.mean = _first_half(level.posterior, dimensions)
        self.from_latent = _convolution(level.from_latent, dimensions)
        self.grow = _convolution(level.grow, dimensions)
        self.factors_up = level.factors_up

    def bottom_up(self, h: Tensor) -> Tensor:
        return self.up_blocks(self.shrink(h))

    def top_down(self, state: Tensor | None, feature: Tensor) -> Tensor:
        merged = feature if state is None else torch.cat([state, feature], 1)
        h = self.from_latent(self.mean(F.mish(self.merge(merged))))
        h = self.down_blocks(h if state is None else state + h)
        return upsampled(self.grow(h), self.factors_up)


def _convolution(layer: nn.Module, dimensions: int) -> nn.Module:
    """Return a 1x1 convolution as a convolution; the identity stays as it is."""
    if not isinstance(layer, Pointwise):
        return copy.deepcopy(layer)
    convolution = CONVOLUTIONS[dimensions](layer.in_features, layer.out_features, 1)
    ones = [1] * dimensions
    convolution.load_state_dict({"weight": layer.weight.view(*layer.weight.shape, *ones), "bias": layer.bias})
    return convolution


def _first_half(layer: Convolution, dimensions: int) -> nn.Module:
    """Return a 3x3 convolution that computes the first half of the channels."""
    channels = layer.out_channels // 2
    convolution = CONVOLUTIONS[dimensions](layer.in_channels, channels, 3, padding=1)
    assert layer.bias is not None
    convolution.load_state_dict({"weight": layer.weight[:channels], "bias": layer.bias[:channels]})
    return convolution


def _reach(model: DVLAE) -> tuple[int, ...]:
    """Return the pixels that an output pixel sees to each side along each axis, rounded up to the stride."""
    ladder_vae = model.ladder_vae
    every = len(ladder_vae.levels)
    parts = [top_down_halo(ladder_vae, every), bottom_up_halo(ladder_vae, every)]
    if isinstance(model.direct_denoiser, DirectDenoiser):
        parts.append(model.direct_denoiser.halo)
    return padded_shape([sum(sides) for sides in zip(*parts, strict=True)], model.stride)
