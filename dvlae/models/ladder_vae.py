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
and stem, merge and from_latent are smaller (docs/differences_from_the_paper.md).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dvlae.config.patch_size import level_strides
from dvlae.models.latents import Divergence, LatentSampler, analytic_kl, sample_randomly, split_parameters
from dvlae.models.layers import CONVOLUTIONS, Pointwise, ResidualBlock, mish, upsampled

Result = TypeVar("Result")


class Level(nn.Module):
    """One level of the ladder: its bottom-up step, its latent, and its top-down step.

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

    Attributes
    ----------
    prior
        Predicts the parameters of the prior; None at the top.
    top_prior
        The parameters of the top's prior; None below.
    """

    prior: nn.Module
    top_prior: nn.Parameter

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

    def bottom_up(self, h: Tensor) -> Tensor:
        """Map the feature of the level below, (N, C, ...), to this level's; sides that it downsamples are halved.

        Parameters
        ----------
        h
            Feature of the level below, (N, C, ...).

        Returns
        -------
        Tensor
            Feature of this level, (N, C, ...).
        """
        return self.up_blocks(self.shrink(h))

    def top_down(
        self,
        state: Tensor | None,
        feature: Tensor,
        number: int,
        sample_latent: LatentSampler,
        divergence: Divergence = analytic_kl,
    ) -> tuple[Tensor, Tensor]:
        """Sample this level's latent and pass the state on.

        Parameters
        ----------
        state
            State from the level above, (N, C, ...); None at the top.
        feature
            Bottom-up feature of this level, (N, C, ...).
        number
            Number of this level, which is passed to ``sample_latent``.
        sample_latent
            Maps this level's number, mean and standard deviation to a latent.
        divergence
            Divergence of posterior and prior.

        Returns
        -------
        state
            State for the level below, (N, C, ...). Sides that this level halved are doubled, but not by the finest.
        kl
            Output of ``divergence``, by default KL(q || p), (N, Z, ...) in nats.
        """
        if state is None:
            prior = self.top_prior  # (1, 2 Z, 1, ...): the same for all images and positions
            merged = feature  # (N, C, ...)
        else:
            prior = self.prior(state)  # (N, 2 Z, ...)
            merged = torch.cat([state, feature], dim=1)  # (N, 2 C, ...)
        posterior = self.posterior(mish(self.merge(merged)))  # (N, 2 Z, ...)
        mean_q, log_std_q = split_parameters(posterior)  # (N, Z, ...)
        latent = sample_latent(number, mean_q, log_std_q.exp())  # (N, Z, ...)
        mean_p, log_std_p = split_parameters(prior)  # (N, Z, ...), or (1, Z, 1, ...)
        kl = divergence(latent, mean_q, log_std_q, mean_p, log_std_p)  # (N, Z, ...)
        return self._next_state(state, latent), kl

    def top_down_from_prior(
        self, state: Tensor | None, shape: tuple[int, ...], number: int, sample_latent: LatentSampler
    ) -> Tensor:
        """Sample this level's latent from its prior and pass the state on.

        Parameters
        ----------
        state
            State from the level above, (N, C, ...); None at the top.
        shape
            (N, ...): the number of images and the sides of this level's grid.
        number
            Number of this level, which is passed to ``sample_latent``.
        sample_latent
            Maps this level's number, mean and standard deviation to a latent.

        Returns
        -------
        Tensor
            The state for the level below, (N, C, ...).
        """
        if state is None:
            count, *sides = shape
            prior = self.top_prior.expand(count, -1, *sides)  # (N, 2 Z, ...)
        else:
            prior = self.prior(state)  # (N, 2 Z, ...)
        mean, log_std = split_parameters(prior)  # (N, Z, ...)
        latent = sample_latent(number, mean, log_std.exp())  # (N, Z, ...)
        return self._next_state(state, latent)

    def _next_state(self, state: Tensor | None, latent: Tensor) -> Tensor:
        """Return the state for the level below, (N, C, ...); the sum is the skip connection around the latent."""
        h = self.from_latent(latent)  # (N, C, ...), with the sides of this level
        h = self.down_blocks(h if state is None else state + h)
        # The 1x1 convolution commutes with nearest-neighbour upsampling, and costs a quarter before it.
        h = self.grow(h)
        return upsampled(h, self.factors_up)


class LadderVAE(nn.Module):
    """Hierarchical variational autoencoder whose output is the signal code.

    Shapes are written (N, C, ...), where ... are the spatial axes: X, Y X, or Z Y X.

    Parameters
    ----------
    image_channels
        Channels of the image.
    channels, latent_channels
        Channels of the states and of each level's latent.
    levels
        Number of latents. Level 0 is the finest.
    levels_per_scale
        Number of levels that share a resolution: with 1 each level halves it, with 2 (as in the paper) every second
        one.
    dimensions
        Number of spatial axes: 1 for traces, 2 for images, 3 for volumes.
    blocks
        Number of residual blocks in each of the two steps of a level.
    stride
        Stride of the top along each spatial axis, in pixels, a power of two; None: each halving is along all axes.

    Attributes
    ----------
    strides
        Pixels of the image to one position of each level's grid, along each spatial axis, finest level first.
    recompute
        Whether each level is computed a second time in the backward pass, which takes less memory and more time.
    """

    def __init__(
        self,
        image_channels: int,
        channels: int,
        latent_channels: int,
        levels: int,
        levels_per_scale: int,
        dimensions: int = 2,
        blocks: int = 1,
        stride: Sequence[int] | None = None,
    ):
        super().__init__()
        self.strides = level_strides(levels, levels_per_scale, dimensions, stride)
        steps = pairwise([(1,) * dimensions, *self.strides])
        self.stem = CONVOLUTIONS[dimensions](image_channels, channels, 3, padding=1)
        built = [
            Level(
                channels,
                latent_channels,
                factors=tuple(above // below for below, above in zip(*step, strict=True)),
                finest=i == 0,
                top=i == levels - 1,
                blocks=blocks,
                dimensions=dimensions,
            )
            for i, step in enumerate(steps)
        ]
        self.levels = cast(Sequence[Level], nn.ModuleList(built))
        self.last_block = ResidualBlock(channels, dimensions, factors=self.strides[0])
        self.blocks = blocks
        self.recompute = False

    def _run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a method of a level; with :attr:`recompute`, call it a second time in the backward pass."""
        if self.recompute and self.training:
            # Batch norms see each batch twice, so their running statistics follow it slightly faster.
            return checkpoint(function, *arguments, use_reentrant=False)
        return function(*arguments)

    def bottom_up(self, h: Tensor, start: int = 0, stop: int | None = None) -> list[Tensor]:
        """Run the bottom-up path through levels ``start`` to ``stop - 1``; return each level's feature.

        Parameters
        ----------
        h
            The feature below ``start``, (N, C, ...): for level 0 that is ``stem`` of the image.
        start
            The finest level to run.
        stop
            The level after the coarsest one to run; None: all levels from ``start`` on.

        Returns
        -------
        list of Tensor
            Features of each level, (N, C, ...), finest first.
        """
        features = []
        for level in self.levels[start:stop]:
            h = self._run(level.bottom_up, h)  # (N, C, ...), with the sides of the level
            features.append(h)
        return features

    def top_down(
        self,
        state: Tensor | None,
        features: list[Tensor],
        sample_latent: LatentSampler,
        start: int = 0,
        divergence: Divergence = analytic_kl,
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Run the top-down path from level ``start + len(features) - 1`` to ``start``.

        Parameters
        ----------
        state
            The state from above; None if the run begins at the top.
        features
            Bottom-up features of those levels, finest first.
        sample_latent
            Maps a level's number, mean and standard deviation to a latent.
        start
            The finest level to run.
        divergence
            Divergence of a level's posterior and prior.

        Returns
        -------
        state
            State for the level below ``start``, (N, C, ...); that of level 0 is for ``last_block``. Without features it
            is the given state.
        kls
            Output of ``divergence`` for each level, finest first, by default KL(q || p), (N, Z, ...) in nats.
        """
        kls: list[Tensor] = []
        for offset in reversed(range(len(features))):
            number = start + offset
            level = self.levels[number]
            state, kl = self._run(level.top_down, state, features[offset], number, sample_latent, divergence)
            kls.insert(0, kl)
        return state, kls

    def forward(self, x: Tensor, sample_latent: LatentSampler = sample_randomly) -> tuple[Tensor, list[Tensor]]:
        """Encode a normalised image, (N, C, ...) with sides that are multiples of the last stride.

        Parameters
        ----------
        x
            Normalised image.
        sample_latent
            Maps a level's number, mean and standard deviation to a latent.

        Returns
        -------
        code
            Signal code, (N, channels, ...).
        kls
            KL(q || p) of each level, finest first, in nats.
        """
        features = self.bottom_up(self.stem(x))
        return self.to_code(features, sample_latent)

    def to_code(
        self, features: list[Tensor], sample_latent: LatentSampler = sample_randomly
    ) -> tuple[Tensor, list[Tensor]]:
        """Compute the signal code from the bottom-up features of all levels.

        Parameters
        ----------
        features
            Features of each level, (N, C, ...), finest first.
        sample_latent
            Maps a level's number, mean and standard deviation to a latent.

        Returns
        -------
        tuple
            Signal code (N, channels, ...), and KL(q || p) of each level, finest first, in nats.
        """
        state, kls = self.top_down(None, features, sample_latent)
        return self.last_block(state), kls

    def sample_prior(self, shape: tuple[int, ...], sample_latent: LatentSampler = sample_randomly) -> Tensor:
        """Sample a signal code from the priors alone, top-down.

        Parameters
        ----------
        shape
            (N, ...): the number of images and their sides, each a multiple of the last stride.
        sample_latent
            Maps a level's number, mean and standard deviation to a latent.

        Returns
        -------
        Tensor
            Signal code, (N, channels, ...).
        """
        count, *sides = shape
        state: Tensor | None = None
        for number, stride in reversed(list(enumerate(self.strides))):
            grid = (count, *(side // step for side, step in zip(sides, stride, strict=True)))  # (N, ...), of this level
            state = self.levels[number].top_down_from_prior(state, grid, number, sample_latent)
        return self.last_block(state)
