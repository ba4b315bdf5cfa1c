"""The paper's network, as its authors' code of October 2023 builds it: ``model: {network: paper}``.

Symbols are those of :mod:`dvlae.models.ladder_vae`, our own network. B is the residual block of
:mod:`dvlae.models.layers`; [a, b] are maps on top of each other; W are 1x1 convolutions, K 3x3 convolutions:

    stem        h_{-1} = B'(mish(K5 x))                                  K5 is 5x5, and B' has no gate
    bottom-up   h_l = B ... B(K h_{l-1})                                 K only where the resolution is halved
    prior       p(z_l | z_{>l}) = Normal(K t_{l+1})                      at the top: a learned Gaussian
    posterior   q(z_l | z_{>l}, x) = Normal(K B(W [h_l, t_{l+1}]))       at the top: Normal(K h_l)
    top-down    t_l = B ... B(upsample(W' B(W [K z_l, t_{l+1}])))        at the top: W' K z_l; W' as K above
    code        c = B ... B(t_0)
    signal      s = K relu(K relu(K relu(K c)))

A latent's raw number r gives log_std = log softplus(r). Blocks pad with zeros, other convolutions of the ladder with
the pixels at the border, and those of the signal decoder with reflections. In the autoregressive decoder, with
i = 0 ... 2n - 1 and causal convolutions as in :mod:`dvlae.models.decoders.autoregressive`,

    h_i = W relu(conv_i(h_{i-1}) + W c) + h_{i-1}                        h_{-1} = x, which is not added to h_0
    mixture = W h_{2n-1}

Source: github.com/krulllab/COSDD at acbab39, MIT, which was read, not copied. It computes the same with the same
weights (``dvlae import-weights``) but for these four faults: its prior of the top fits the training crops only; its
signal decoder uses one layer twice; a mixture whose nearest component has no weight has a likelihood of 0; and weights
of the first causal convolution are set to 0 before each use, where here they have no use.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dvlae.config.sizes.receptive_field import dilations, kernel_and_blocks
from dvlae.models.decoders.autoregressive import CausalConvolution, Mixture, MixtureDecoder
from dvlae.models.ladder import Ladder, LadderLevel
from dvlae.models.layers import CONVOLUTIONS, Pointwise, ResidualBlock, mish

# Smallest scale of a mixture component, in units of the normalised image: none may be 0.
MIN_SCALE = 1e-6
# Below this, softplus is the exponential function, and its logarithm would be that of 0.
_EXPONENTIAL = -15.0


class BorderConvolution(nn.Module):
    """A convolution that pads with values of its input.

    Parameters
    ----------
    in_channels, channels
        Channels of the input and of the output.
    dimensions
        Number of spatial axes.
    kernel
        Taps along each axis, an odd number.
    stride
        Stride along each spatial axis.
    mode
        ``"replicate"`` or ``"reflect"``. An image with a side of one pixel has nothing to reflect, and is replicated.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        dimensions: int,
        kernel: int = 3,
        stride: int | tuple[int, ...] = 1,
        mode: str = "replicate",
    ):
        super().__init__()
        self.mode, self.padding = mode, [kernel // 2] * 2 * dimensions
        self.conv = CONVOLUTIONS[dimensions](in_channels, channels, kernel, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, ...) to (N, C, ...).

        Parameters
        ----------
        x
            (N, C_in, ...).

        Returns
        -------
        Tensor
            (N, C, ...).
        """
        mode = self.mode if min(x.shape[2:]) > 1 else "replicate"
        return self.conv(F.pad(x, self.padding, mode))


class PaperStem(nn.Module):
    """The stem: a 5x5 convolution, Mish, and a residual block without a gate.

    Parameters
    ----------
    image_channels, channels
        Channels of the image and of the feature.
    dimensions
        Number of spatial axes.
    """

    def __init__(self, image_channels: int, channels: int, dimensions: int):
        super().__init__()
        self.conv = BorderConvolution(image_channels, channels, dimensions, kernel=5)
        self.block = ResidualBlock(channels, dimensions, bias=True, gated=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map a normalised image to the feature below level 0.

        Parameters
        ----------
        x
            (N, image_channels, ...).

        Returns
        -------
        Tensor
            (N, channels, ...).
        """
        return self.block(mish(self.conv(x)))


class PaperLevel(LadderLevel):
    """The layers of one level.

    Parameters
    ----------
    channels, latent_channels, factors, top, blocks, dimensions
        As for :class:`dvlae.models.ladder_vae.Level`.
    finest
        Not used: each level that halves the resolution doubles it again.
    """

    def __init__(
        self,
        channels: int,
        latent_channels: int,
        factors: tuple[int, ...],
        finest: bool,
        top: bool,
        blocks: int,
        dimensions: int,
    ):
        super().__init__()
        convolution = partial(BorderConvolution, dimensions=dimensions)
        block = partial(ResidualBlock, channels, dimensions, bias=True)
        halves = max(factors) > 1
        self.shrink = convolution(channels, channels, stride=factors) if halves else nn.Identity()
        self.up_blocks = nn.Sequential(*(block() for _ in range(blocks)))
        if top:
            self.register_module("prior", None)
            self.top_prior = nn.Parameter(torch.zeros(1, 2 * latent_channels, *[1] * dimensions))
        else:
            self.register_parameter("top_prior", None)
            self.prior = convolution(channels, 2 * latent_channels)
            self.merge, self.merge_block = Pointwise(2 * channels, channels), block()
            self.skip, self.skip_block = Pointwise(2 * channels, channels), block()
        self.posterior = convolution(channels, 2 * latent_channels)
        self.from_latent = convolution(latent_channels, channels)
        self.grow = Pointwise(channels, channels) if halves else nn.Identity()
        # The first block upsamples, as its 1x1 convolution commutes with that.
        self.down_blocks = nn.Sequential(block(factors), *(block() for _ in range(blocks - 1)))

    def _prior_parameters(self, state: Tensor | None, sides: Sequence[int]) -> Tensor:
        if state is not None:
            return self.prior(state)
        grid = self.top_prior.shape[2:]
        # The authors' own prior has a value for each position of the training crops' grid.
        return self.top_prior if list(grid) == list(sides) else self.top_prior.mean([*range(2, 2 + len(grid))], True)

    def _posterior_parameters(self, state: Tensor | None, feature: Tensor) -> Tensor:
        if state is not None:
            feature = self.merge_block(self.merge(torch.cat([feature, state], dim=1)))  # (N, C, ...)
        return self.posterior(feature)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return split_softplus(parameters)

    def _next_state(self, state: Tensor | None, latent: Tensor) -> Tensor:
        h = self.from_latent(latent)  # (N, C, ...), with the sides of this level
        if state is not None:
            h = self.skip_block(self.skip(torch.cat([h, state], dim=1)))
        return self.down_blocks(self.grow(h))


def split_softplus(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Split the parameters of a Gaussian into mean and log standard deviation.

    Parameters
    ----------
    parameters
        (N, 2 Z, ...): first the means, then the standard deviations before softplus.

    Returns
    -------
    mean, log_std
        Each (N, Z, ...).
    """
    mean, raw = (part.movedim(-1, 1) for part in parameters.movedim(1, -1).chunk(2, dim=-1))  # (N, Z, ...)
    return mean, torch.where(raw > _EXPONENTIAL, F.softplus(raw.clamp(min=_EXPONENTIAL)).log(), raw)


class PaperLadderVAE(Ladder):
    """The ladder VAE.

    Parameters
    ----------
    *sizes
        As for :class:`dvlae.models.ladder.Ladder`.
    top_grid
        Sides of the grid for which the top has a prior for each position, as in the authors' code. On other grids it is
        the mean of these. None: one prior for all positions.
    """

    level_type = PaperLevel
    stem_radius = 2 + ResidualBlock.radius
    # Two convolutions around the latent, and the blocks after merge and skip.
    level_radius = 2 + 2 * ResidualBlock.radius
    upsamples_first = True
    levels: Sequence[PaperLevel]
    last_block: nn.Sequential

    def __init__(self, *sizes: Any, top_grid: Sequence[int] | None = None):
        super().__init__(*sizes)
        if top_grid is not None:
            top = self.levels[-1]
            top.top_prior = nn.Parameter(torch.zeros(*top.top_prior.shape[:2], *top_grid))

    @property
    def last_radius(self) -> int:
        """The pixels that the last block sees to each side."""
        return self.blocks * ResidualBlock.radius

    def _make_stem(self, image_channels: int) -> nn.Module:
        return PaperStem(image_channels, self.channels, self.dimensions)

    def _make_last_block(self) -> nn.Module:
        return nn.Sequential(*(ResidualBlock(self.channels, self.dimensions, bias=True) for _ in range(self.blocks)))


class MaskedConvolution(CausalConvolution):
    """The first causal convolution: it has a tap for the current pixel, which is not used.

    Parameters
    ----------
    in_channels, channels, kernel, direction, dimensions
        As for :class:`CausalConvolution`, whose dilation is 1.
    """

    def __init__(self, in_channels: int, channels: int, kernel: int, direction: str, dimensions: int):
        super().__init__(in_channels, channels, kernel, 1, direction, dimensions, rectify=False)
        self.padding[-1] = -1
        self.convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[dimensions]

    @property
    def weight(self) -> Tensor:
        """The weights of the taps that are used, (C, C_in, ...), oldest first."""
        return self.conv.weight.narrow(self.axis, 0, self.conv.weight.shape[self.axis] - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, ...) to (N, C, ...).

        Parameters
        ----------
        x
            (N, C_in, ...).

        Returns
        -------
        Tensor
            (N, C, ...).
        """
        return self.convolve(F.pad(x, self.padding), self.weight, self.conv.bias)


class PaperBlock(nn.Module):
    """One layer of the autoregressive decoder.

    Parameters
    ----------
    convolution
        The causal convolution; None where no pixel depends on another.
    code_channels, channels
        Channels of the signal code and of the layer.
    adds
        Whether the input is added to the output.
    """

    def __init__(self, convolution: CausalConvolution | None, code_channels: int, channels: int, adds: bool):
        super().__init__()
        self.convolution, self.adds = convolution, adds
        self.from_code = Pointwise(code_channels, channels)
        self.leave = Pointwise(channels, channels)

    def forward(self, h: Tensor, code: Tensor) -> Tensor:
        """Return the output of the layer.

        Parameters
        ----------
        h
            Output of the layer before, (N, channels, ...); for the first one the image, (N, C, ...).
        code
            Signal code, (N, code_channels, ...).

        Returns
        -------
        Tensor
            (N, channels, ...).
        """
        inner = self.from_code(code)  # (N, channels, ...), as are those below
        if self.convolution is not None:
            inner = inner + self.convolution(h)
        leaving = self.leave(F.relu(inner))
        return leaving + h if self.adds else leaving


class PaperAutoregressiveDecoder(MixtureDecoder):
    """The autoregressive decoder, with the receptive fields of ours.

    Parameters
    ----------
    image_channels, components, receptive_field, noise_direction, dimensions
        As for :class:`dvlae.models.decoders.autoregressive.AutoregressiveDecoder`.
    code_channels, channels
        Channels of the signal code and of the hidden layers.
    """

    def __init__(
        self,
        image_channels: int,
        code_channels: int,
        channels: int,
        components: int,
        receptive_field: int,
        noise_direction: str,
        dimensions: int = 2,
    ):
        super().__init__(components, image_channels)
        line = (noise_direction, dimensions)
        kernel, pairs = kernel_and_blocks(receptive_field)
        convolutions: list[CausalConvolution] = []
        for dilation in dilations(pairs):
            convolutions += [
                CausalConvolution(channels, channels, kernel, dilation, *line, rectify=False),
                CausalConvolution(channels, channels, kernel, 1, *line, rectify=False),
            ]
        if convolutions:
            convolutions[0] = MaskedConvolution(image_channels, channels, kernel, *line)
        self.axis = convolutions[0].axis if convolutions else None
        # Where no pixel depends on another, one layer sees the code alone.
        layers = [
            PaperBlock(convolution, code_channels, channels, adds=i > 0)
            for i, convolution in enumerate(convolutions or [None])
        ]
        self.layers = cast(Sequence[PaperBlock], nn.ModuleList(layers))
        self.parameters_of_mixture = Pointwise(channels, 3 * components * image_channels)

    def mixture_parameters(self, h: Tensor) -> Tensor:
        """Map the output of the last layer to the parameters of mixtures.

        Parameters
        ----------
        h
            (N, channels, ...).

        Returns
        -------
        Tensor
            (N, 3 components C, ...).
        """
        return self.parameters_of_mixture(h)

    def forward(self, x: Tensor, code: Tensor) -> Mixture:
        """Predict the mixture of every pixel.

        Parameters
        ----------
        x
            Normalised noisy image, (N, C, ...).
        code
            Signal code, (N, code_channels, ...).

        Returns
        -------
        Mixture
            Logits, means and raw scales, each (N, components, C, ...).
        """
        h = x
        for layer in self.layers:
            h = layer(h, code)  # (N, channels, ...)
        return self.split(self.mixture_parameters(h))
