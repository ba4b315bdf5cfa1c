"""The ladder VAE: encoder and prior, the part of the paper's figure from the noisy image to the signal code.

Symbols: x is the normalised noisy image; z_l is the latent of level l, from 0 (the finest) to L-1 (the top), and z_{>l}
are the latents above it; h_l are bottom-up features, t_l top-down states. The decoders see the latents only through the
signal code.

    bottom-up   h_l = blocks(downsample(h_{l-1})),  h_{-1} = stem(x)
    posterior   q(z | x) = q(z_{L-1} | x) prod_{l < L-1} q(z_l | z_{>l}, x)
    prior       p(z) = p(z_{L-1}) prod_{l < L-1} p(z_l | z_{>l})
    divergence  KL(q(z | x) || p(z)) = E_q sum_l KL(q(z_l | z_{>l}, x) || p(z_l | z_{>l}))
    code        last_block(t_0)

Each factor is a diagonal Gaussian. The top-down pass through level l, whose latents above are in t_{l+1}, is

    p(z_l | z_{>l})    = Normal(prior(t_{l+1}))
    q(z_l | z_{>l}, x) = Normal(posterior(mish(merge(t_{l+1}, h_l))))
    z_l ~ q(z_l | z_{>l}, x)                     or z_l ~ p(z_l | z_{>l}), to sample from the prior
    t_l = upsample(blocks(t_{l+1} + from_latent(z_l)))

The top has no state above it: its prior is a learned Gaussian, and its posterior depends on h_{L-1} alone.

Sources: ladder VAE, Sonderby et al., arXiv 1602.02282 (2016); this one, Salmon & Krull, arXiv 2310.07887. What differs
from the paper: the top's prior fits images of any size, standard deviations are bounded, convolutions pad with zeros,
and stem, merge and from_latent are smaller (docs/paper.md).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dvlae.models.ladder import Ladder, LadderLevel
from dvlae.models.latents import split_parameters
from dvlae.models.layers import CONVOLUTIONS, Pointwise, ResidualBlock, mish, upsampled


class Level(LadderLevel):
    """The layers of one level.

    Parameters
    ----------
    channels, latent_channels
        Channels of the states and of the latent.
    factors
        For each spatial axis, 2 if this level has half the resolution of the one below, otherwise 1.
    finest, top
        Whether no level is below, or above. The prior of the top is one learned Gaussian for each channel, the same at
        every position, and fits images of any size.
    blocks
        Number of residual blocks in each of its two steps.
    dimensions
        Number of spatial axes.
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
        convolution = CONVOLUTIONS[dimensions]
        downsamples = max(factors) > 1
        # The state of the finest level is upsampled by the block after it.
        self.factors_up = tuple(1 for _ in factors) if finest else factors
        self.shrink = convolution(channels, channels, 3, stride=factors, padding=1) if downsamples else nn.Identity()
        self.up_blocks = nn.Sequential(*(ResidualBlock(channels, dimensions) for _ in range(blocks)))
        if top:
            self.register_module("prior", None)
            self.top_prior = nn.Parameter(torch.zeros(1, 2 * latent_channels, *[1] * dimensions))
        else:
            self.prior = convolution(channels, 2 * latent_channels, 3, padding=1)
            self.register_parameter("top_prior", None)
        self.merge = Pointwise(channels if top else 2 * channels, channels)
        self.posterior = convolution(channels, 2 * latent_channels, 3, padding=1)
        self.from_latent = Pointwise(latent_channels, channels)
        self.down_blocks = nn.Sequential(*(ResidualBlock(channels, dimensions) for _ in range(blocks)))
        self.grow = Pointwise(channels, channels) if downsamples else nn.Identity()

    def _posterior_parameters(self, state: Tensor | None, feature: Tensor) -> Tensor:
        merged = feature if state is None else torch.cat([state, feature], dim=1)  # (N, C or 2 C, ...)
        return self.posterior(mish(self.merge(merged)))

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return split_parameters(parameters)

    def _next_state(self, state: Tensor | None, latent: Tensor) -> Tensor:
        h = self.from_latent(latent)  # (N, C, ...), with the sides of this level
        # The sum is the skip connection around the latent.
        h = self.down_blocks(h if state is None else state + h)
        # The 1x1 convolution commutes with nearest-neighbour upsampling, and costs a quarter before it.
        h = self.grow(h)
        return upsampled(h, self.factors_up)


class LadderVAE(Ladder):
    """Our own ladder VAE.

    The parameters are those of :class:`dvlae.models.ladder.Ladder`.
    """

    level_type = Level
    stem_radius = 1
    # The posterior sees one position to each side.
    level_radius = 1
    upsamples_first = False
    levels: Sequence[Level]
    last_block: ResidualBlock

    @property
    def last_radius(self) -> int:
        """The pixels that the last block sees to each side."""
        return ResidualBlock.radius

    def _make_stem(self, image_channels: int) -> nn.Module:
        return CONVOLUTIONS[self.dimensions](image_channels, self.channels, 3, padding=1)

    def _make_last_block(self) -> nn.Module:
        return ResidualBlock(self.channels, self.dimensions, factors=self.strides[0])
