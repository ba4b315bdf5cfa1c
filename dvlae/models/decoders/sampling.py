"""Sample noisy images x ~ p(x | c) from the autoregressive decoder, pixel after pixel, all lines at once.

With c the signal code and R the receptive field, for each position j along the lines in turn,

    x_j ~ p(x_j | x_{j-R} ... x_{j-1}, c)

A direct implementation runs the network over the image for each j, at a cost that grows with the square of the length
of a line. Here each causal convolution keeps the inputs that it needs again. A pixel then takes one small matrix
product for each layer, and the cost grows linearly with the length of a line: docs/benchmarks.md measures some hundreds
of times less. WaveNet introduced this caching (Paine et al., "Fast Wavenet generation algorithm", arXiv 1611.09482,
2016).
"""

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from dvlae.models.decoders.autoregressive import (
    AutoregressiveDecoder,
    CausalConvolution,
    LinearAutoregressiveDecoder,
    MixtureDecoder,
)
from dvlae.models.layers import Pointwise
from dvlae.models.likelihood import Limits, sample_mixture
from dvlae.models.paper import PaperAutoregressiveDecoder

# Values of the projected signal code that are held at a time: 16 MiB.
MAX_PROJECTED_VALUES = 2**22

PixelSampler = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # (position, logits, means, raw_scales) -> value


class CachedConvolution:
    """A causal convolution that receives its input one pixel of each line at a time.

    The past inputs are kept in ring buffers, one for each remainder of the position divided by the dilation: the taps
    of any pixel are the slots of one ring. Instead of the rings, the weights are rotated, once for each turn.

    Parameters
    ----------
    layer
        The convolution to follow.
    lines
        Number of lines that are run together.
    """

    def __init__(self, layer: CausalConvolution, lines: int):
        weight = layer.weight.flatten(2)  # (C, C_in, taps), the newest input last
        taps = weight.shape[2]
        self.in_channels = weight.shape[1]
        self.dilation = max(layer.conv.dilation)
        slots = torch.arange(taps, device=weight.device)
        # The age of each slot when slot `turn` is the newest one.
        ages = [(turn - slots) % taps for turn in range(taps)]
        self.weights = [weight[:, :, taps - 1 - age].permute(2, 1, 0).flatten(0, 1).contiguous() for age in ages]
        self.rings = weight.new_zeros(self.dilation, lines, taps * self.in_channels)

    def _ring_and_turn(self, position: int) -> tuple[Tensor, int]:
        return self.rings[position % self.dilation], position // self.dilation % len(self.weights)

    def slot(self, position: int) -> Tensor:
        """Return the slot for the input at this position, (lines, C_in).

        Parameters
        ----------
        position
            Number of the pixel along the lines.

        Returns
        -------
        Tensor
            View to write to.
        """
        ring, turn = self._ring_and_turn(position)
        return ring[:, turn * self.in_channels : (turn + 1) * self.in_channels]

    def add_to(self, h: Tensor, position: int) -> None:
        """Add the output at this position, without the bias, to ``h``, (lines, C).

        Parameters
        ----------
        h
            (lines, C), changed in place.
        position
            Number of the pixel along the lines, whose input was written to :meth:`slot`.
        """
        ring, turn = self._ring_and_turn(position)
        torch.addmm(h, ring, self.weights[turn], out=h)


class CachedDecoder:
    """An autoregressive decoder that goes along its lines, one pixel of each at a time.

    Parameters
    ----------
    decoder
        The network, with a receptive field above 0.
    lines
        Number of lines that are run together.
    """

    def __init__(self, decoder: AutoregressiveDecoder, lines: int):
        self._take_layers(decoder, decoder.code, decoder.convolutions, lines)
        self.head = [
            (layer.weight.T.contiguous(), layer.bias) for layer in (decoder.hidden, decoder.parameters_of_mixture)
        ]

    def _take_layers(
        self, decoder: MixtureDecoder, code: Iterable[Pointwise], convolutions: Iterable[CausalConvolution], lines: int
    ) -> None:
        """Keep the causal convolution of each layer, and what maps the code to all layers at once."""
        layers = list(zip(code, convolutions, strict=True))
        self.mixture_shape = (3, decoder.components, decoder.image_channels)
        self.convolutions = [CachedConvolution(convolution, lines) for _, convolution in layers]
        self.from_code = torch.cat([from_code.weight for from_code, _ in layers]).T.contiguous()
        self.bias = torch.cat([from_code.bias + cast(Tensor, each.conv.bias) for from_code, each in layers])
        self.width = len(self.bias)

    def project(self, code: Tensor) -> Tensor:
        """Map the signal code (..., C) to its contribution and the biases of each layer, (..., layers * C).

        Parameters
        ----------
        code
            The signal code, (..., C).

        Returns
        -------
        Tensor
            (..., layers * C), to be passed to :meth:`step` position by position.
        """
        return F.linear(code, self.from_code.T, self.bias)

    def step(self, position: int, previous: Tensor, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict the mixtures of the pixels at one position of each line.

        Parameters
        ----------
        position
            Position along the lines, which increases by one from 0 with each call.
        previous
            Normalised pixels at the previous position, (lines, C); zeros at the first one.
        projected
            Output of :meth:`project` for this position, (lines, layers * C).

        Returns
        -------
        logits, means, raw_scales
            Each (lines, components, C).
        """
        first, *others = self.convolutions
        from_code = projected.chunk(len(self.convolutions), dim=1)
        h = from_code[0].clone()
        first.slot(position).copy_(previous)
        first.add_to(h, position)
        for convolution, addend in zip(others, from_code[1:], strict=True):
            torch.clamp(h, min=0, out=convolution.slot(position))
            h += addend
            convolution.add_to(h, position)
        for weight, bias in self.head:
            h = torch.addmm(bias, h.relu_(), weight)
        return h.unflatten(1, self.mixture_shape).unbind(1)


class CachedPaperDecoder(CachedDecoder):
    """A :class:`PaperAutoregressiveDecoder` as :class:`CachedDecoder` is an :class:`AutoregressiveDecoder`.

    Parameters
    ----------
    decoder
        The network, with a receptive field above 0.
    lines
        Number of lines that are run together.
    """

    def __init__(self, decoder: PaperAutoregressiveDecoder, lines: int):
        convolutions = [cast(CausalConvolution, layer.convolution) for layer in decoder.layers]
        self._take_layers(decoder, [layer.from_code for layer in decoder.layers], convolutions, lines)
        self.leave = [(layer.leave.weight.T, layer.leave.bias) for layer in decoder.layers]
        self.head = [(decoder.parameters_of_mixture.weight.T, decoder.parameters_of_mixture.bias)]

    def step(self, position: int, previous: Tensor, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict the mixtures of the pixels at one position of each line, as :meth:`CachedDecoder.step` does.

        Parameters
        ----------
        position, previous, projected
            As for :meth:`CachedDecoder.step`.

        Returns
        -------
        tuple of Tensor
            Logits, means and raw scales, each (lines, components, C).
        """
        h = previous
        layers = zip(self.convolutions, projected.chunk(len(self.convolutions), dim=1), self.leave, strict=True)
        for number, (convolution, from_code, (weight, bias)) in enumerate(layers):
            convolution.slot(position).copy_(h)
            inner = from_code.clone()
            convolution.add_to(inner, position)
            leaving = torch.addmm(bias, inner.relu_(), weight)
            h = h.add(leaving) if number else leaving
        ((weight, bias),) = self.head
        return torch.addmm(bias, h, weight).unflatten(1, self.mixture_shape).unbind(1)


class CachedLinearDecoder:
    """A :class:`LinearAutoregressiveDecoder` as :class:`CachedDecoder` is an :class:`AutoregressiveDecoder`.

    Parameters
    ----------
    decoder
        The network, with a receptive field above 0.
    lines
        Number of lines that are run together.
    """

    def __init__(self, decoder: LinearAutoregressiveDecoder, lines: int):
        assert decoder.regression is not None
        self.decoder = decoder
        self.mixture_shape = (3, decoder.components, decoder.image_channels)
        self.width = decoder.image_channels * (1 + 3 * decoder.components)
        self.regression = CachedConvolution(decoder.regression, lines)
        self.bias = cast(Tensor, decoder.regression.conv.bias)
        # The signal at the previous position.
        self.signal = decoder.signal.weight.new_zeros(lines, decoder.image_channels)

    def project(self, code: Tensor) -> Tensor:
        """Map the signal code (positions, lines, C) to the signal and the mixtures, (positions, lines, width).

        Parameters
        ----------
        code
            The signal code, (positions, lines, C).

        Returns
        -------
        Tensor
            (positions, lines, width), to be passed to :meth:`step` position by position.
        """
        return torch.cat(self.decoder.decode(code.movedim(-1, 1)), dim=1).movedim(1, -1)

    def step(self, position: int, previous: Tensor, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict the mixtures of the pixels at one position of each line, as :meth:`CachedDecoder.step` does.

        Parameters
        ----------
        position
            As for :meth:`CachedDecoder.step`.
        previous
            As for :meth:`CachedDecoder.step`.
        projected
            Output of :meth:`project` for this position.

        Returns
        -------
        tuple of Tensor
            Logits, means and raw scales, each (lines, components, C).
        """
        self.regression.slot(position).copy_(previous - self.signal)
        self.signal = projected[:, : self.decoder.image_channels]
        mean = self.signal + self.bias
        self.regression.add_to(mean, position)
        mixture = projected[:, self.decoder.image_channels :]
        logits, offsets, raw_scales = mixture.unflatten(1, self.mixture_shape).unbind(1)
        return logits, offsets + mean.unsqueeze(1), raw_scales


CACHED_DECODERS: dict[type[MixtureDecoder], Callable[[Any, int], Any]] = {
    AutoregressiveDecoder: CachedDecoder,
    LinearAutoregressiveDecoder: CachedLinearDecoder,
    PaperAutoregressiveDecoder: CachedPaperDecoder,
}


def to_lines(maps: Tensor, axis: int) -> Tensor:
    """Turn maps (N, C, ...) into (positions, lines, C), a view where it can be; ``axis`` runs along the lines.

    Parameters
    ----------
    maps
        Maps (N, C, ...).
    axis
        The axis of the tensor that the lines run along.

    Returns
    -------
    Tensor
        (positions, lines, C).
    """
    return maps.movedim((axis, 1), (0, -1)).flatten(1, -2)


def from_lines(lines: Tensor, axis: int, shape: torch.Size) -> Tensor:
    """Turn (positions, lines, C) back into maps (N, C, ...) of this shape; the inverse of :func:`to_lines`.

    Parameters
    ----------
    lines
        (positions, lines, C).
    axis
        The axis of the maps that the lines run along.
    shape
        The shape of the maps, (N, C, ...).

    Returns
    -------
    Tensor
        (N, C, ...).
    """
    along = range(len(shape))[axis]
    across = [shape[other] for other in range(len(shape)) if other not in (along, 1)]
    return lines.reshape(shape[along], *across, shape[1]).movedim((0, -1), (along, 1))


@torch.inference_mode()
def walk_along_lines(decoder: MixtureDecoder, code: Tensor, sample_pixel: PixelSampler) -> None:
    """Predict the mixture of every pixel of every line in turn; the caller provides the pixel values.

    Parameters
    ----------
    decoder
        The network, with a receptive field above 0.
    code
        Signal code, (N, C, ...).
    sample_pixel
        Called at each position with its number and the mixtures, each (lines, components, C); it returns the
        normalised pixels there, (lines, C). Lines are in the order of :func:`to_lines`.
    """
    assert decoder.axis is not None
    lines = to_lines(code, decoder.axis)
    cached = CACHED_DECODERS[type(decoder)](decoder, lines.shape[1])
    chunk = max(1, MAX_PROJECTED_VALUES // (lines.shape[1] * cached.width))
    previous = code.new_zeros(lines.shape[1], decoder.image_channels)
    for start in range(0, len(lines), chunk):
        projected = cached.project(lines[start : start + chunk])
        for position, from_code in enumerate(projected, start):
            previous = sample_pixel(position, *cached.step(position, previous, from_code))


@torch.inference_mode()
def sample_autoregressively(
    decoder: MixtureDecoder,
    code: Tensor,
    noise: Tensor,
    floor: Tensor,
    limits: Limits | None = None,
    seen: Limits | None = None,
) -> Tensor:
    """Sample a noisy image given the signal code.

    Parameters
    ----------
    decoder
        The network.
    code
        Signal code, (N, C, ...).
    noise
        Standard normal numbers, (N, 2 C, ...) with C the channels of the image: the first half places each pixel
        within a component of its mixture, the second half chooses the component.
    floor
        Smallest scale, (C, 1, ...), as :attr:`dvlae.models.dvlae.DVLAE.floor`.
    limits
        Where grey values end, at which pixels are clipped before others depend on them; None: nowhere.
    seen
        The range of pixels that others may depend on, in each image, (N, C, 1, ...): beyond what it has learned from,
        the decoder can make each pixel larger than the one before. None: any pixels.

    Returns
    -------
    Tensor
        Normalised image, (N, C, ...).
    """
    if decoder.axis is None:  # No pixel depends on another one.
        normal, choice = noise.chunk(2, dim=1)
        logits, means, raw_scales = decoder(normal, code)
        sampled = sample_mixture(logits, means, raw_scales, floor, normal, torch.special.ndtr(choice))
        return sampled if limits is None else limits.clip(sampled)
    axis, halves = decoder.axis, noise.chunk(2, dim=1)
    normal, choice = (to_lines(half, axis) for half in halves)
    sampled = torch.empty_like(normal, memory_format=torch.contiguous_format)
    floor = floor.flatten()

    def of_lines(ends: Limits | None) -> Limits | None:
        if ends is None:
            return None
        first = halves[0].narrow(axis, 0, 1).shape
        return Limits(*(to_lines(end.expand(first), axis)[0] for end in (ends.lower, ends.upper)))  # each (lines, C)

    ends, seen = of_lines(limits), of_lines(seen)

    def sample_pixel(position: int, logits: Tensor, means: Tensor, raw_scales: Tensor) -> Tensor:
        uniform = torch.special.ndtr(choice[position])
        values = sample_mixture(logits, means, raw_scales, floor, normal[position], uniform)
        sampled[position] = values if ends is None else ends.clip(values)
        return sampled[position] if seen is None else seen.clip(sampled[position])

    walk_along_lines(decoder, code, sample_pixel)
    return from_lines(sampled, axis, halves[0].shape)
