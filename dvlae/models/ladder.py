"""What every ladder VAE does: pass features up its levels, and samples of the latents down.

The layers are those of :mod:`dvlae.models.ladder_vae`, our own, or of :mod:`dvlae.models.paper`, those of the authors'
code. Symbols are as there.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar, cast

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dvlae.config.sizes.patch_size import level_strides
from dvlae.models.latents import Divergence, LatentSampler, analytic_kl, sample_randomly

Result = TypeVar("Result")


class LadderLevel(nn.Module):
    """One level of a ladder: its bottom-up step, its latent, and its top-down step.

    Attributes
    ----------
    shrink, up_blocks
        The bottom-up step.
    prior
        Predicts the parameters of the prior; None at the top.
    top_prior
        The parameters of the top's prior; None below.
    """

    shrink: nn.Module
    up_blocks: nn.Sequential
    prior: nn.Module
    top_prior: nn.Parameter

    @abstractmethod
    def _posterior_parameters(self, state: Tensor | None, feature: Tensor) -> Tensor:
        """Return the parameters of the posterior, (N, 2 Z, ...)."""

    @abstractmethod
    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the log standard deviation of a Gaussian with these parameters, each (N, Z, ...)."""

    @abstractmethod
    def _next_state(self, state: Tensor | None, latent: Tensor) -> Tensor:
        """Return the state for the level below, (N, C, ...)."""

    def _prior_parameters(self, state: Tensor | None, sides: Sequence[int]) -> Tensor:
        """Return the parameters of the prior, (N, 2 Z, ...); at the top (1, 2 Z, 1, ...), for grids of any sides."""
        return self.top_prior if state is None else self.prior(state)

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
            State for the level below, (N, C, ...). Sides that this level halved are doubled, by our own finest level in
            the last block.
        kl
            Output of ``divergence``, by default KL(q || p), (N, Z, ...) in nats.
        """
        prior = self._prior_parameters(state, feature.shape[2:])  # (N, 2 Z, ...), or (1, 2 Z, 1, ...)
        posterior = self._posterior_parameters(state, feature)  # (N, 2 Z, ...)
        mean_q, log_std_q = self._split(posterior)  # (N, Z, ...)
        latent = sample_latent(number, mean_q, log_std_q.exp())  # (N, Z, ...)
        mean_p, log_std_p = self._split(prior)  # (N, Z, ...), or (1, Z, 1, ...)
        kl = divergence(latent, mean_q, log_std_q, mean_p, log_std_p)  # (N, Z, ...)
        return self._next_state(state, latent), kl

    def top_down_at_mean(self, state: Tensor | None, feature: Tensor) -> Tensor:
        """Pass the state on with this level's latent at the mean of its posterior. The prior is not computed.

        Parameters
        ----------
        state
            State from the level above, (N, C, ...); None at the top.
        feature
            Bottom-up feature of this level, (N, C, ...).

        Returns
        -------
        Tensor
            The state for the level below, (N, C, ...).
        """
        mean, _ = self._split(self._posterior_parameters(state, feature))  # (N, Z, ...)
        return self._next_state(state, mean)

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
        count, *sides = shape
        prior = self._prior_parameters(state, sides).expand(count, -1, *sides)  # (N, 2 Z, ...)
        mean, log_std = self._split(prior)  # (N, Z, ...)
        latent = sample_latent(number, mean, log_std.exp())  # (N, Z, ...)
        return self._next_state(state, latent)


class Ladder(nn.Module):
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
    stem_radius
        Pixels that the stem sees to each side.
    level_radius
        Positions of a level's grid that its top-down step sees to each side, apart from its residual blocks.
    upsamples_first
        Whether these blocks come after the upsampling.
    """

    level_type: Callable[..., LadderLevel]
    stem_radius: int
    level_radius: int
    upsamples_first: bool

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
        self.channels, self.blocks, self.dimensions = channels, blocks, dimensions
        self.recompute = False
        self.strides = level_strides(levels, levels_per_scale, dimensions, stride)
        steps = pairwise([(1,) * dimensions, *self.strides])
        self.stem = self._make_stem(image_channels)
        built = [
            self.level_type(
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
        self.levels = cast(Sequence[LadderLevel], nn.ModuleList(built))
        self.last_block = self._make_last_block()

    @property
    @abstractmethod
    def last_radius(self) -> int:
        """The pixels that the last block sees to each side."""

    @abstractmethod
    def _make_stem(self, image_channels: int) -> nn.Module:
        """Return what maps an image to the feature below level 0."""

    @abstractmethod
    def _make_last_block(self) -> nn.Module:
        """Return what maps the state below level 0 to the signal code."""

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

    def code_of_means(self, x: Tensor) -> Tensor:
        """Encode a normalised image with each latent at the mean of its posterior.

        Parameters
        ----------
        x
            Normalised image, (N, C, ...), with sides that are multiples of the last stride.

        Returns
        -------
        Tensor
            Signal code, (N, channels, ...).
        """
        state: Tensor | None = None
        for level, feature in zip(reversed(self.levels), reversed(self.bottom_up(self.stem(x))), strict=True):
            state = self._run(level.top_down_at_mean, state, feature)
        return self.last_block(state)

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
