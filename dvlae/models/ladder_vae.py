"""The hierarchical encoder and prior."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dvlae.models.layers import CONVOLUTIONS, Pointwise, ResidualBlock, checkpointed, mish, upsampled

_MAX_LOG_STD = 5.0

LatentSampler = Callable[[int, Tensor, Tensor], Tensor]  # (level, mean, standard deviation) -> latent
# (latent, mean and log standard deviation of the posterior, of the prior) -> divergence, element by element, in nats
Divergence = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def sample_randomly(level: int, mean: Tensor, std: Tensor) -> Tensor:
    """Sample a latent from torch's global generator, (N, Z, ...)."""
    # Channels last, as the mean lies in memory: in another order PyTorch draws number by number, nine times as slowly.
    noise = torch.randn_like(mean.movedim(1, -1)).movedim(-1, 1)
    return torch.addcmul(mean, std, noise)


def gaussian_kl(mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor) -> Tensor:
    """KL(q || p) of diagonal Gaussians, element by element, in nats; in float32 whatever the inputs' precision."""
    mean_q, log_std_q, mean_p, log_std_p = (t.float() for t in (mean_q, log_std_q, mean_p, log_std_p))
    difference = (mean_q - mean_p) * torch.exp(-log_std_p)
    log_ratio = log_std_q - log_std_p
    return 0.5 * (torch.exp(2 * log_ratio) + difference.square() - 1) - log_ratio


def analytic_kl(latent: Tensor, mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor) -> Tensor:
    """KL(q || p), whatever the latent that was drawn."""
    return gaussian_kl(mean_q, log_std_q, mean_p, log_std_p)


def log_density_ratio(latent: Tensor, mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor) -> Tensor:
    """Log q(z) - log p(z) of the latent that was drawn; its mean over q is KL(q || p)."""
    deviation_q = (latent - mean_q) * torch.exp(-log_std_q)
    deviation_p = (latent - mean_p) * torch.exp(-log_std_p)
    return 0.5 * (deviation_p.square() - deviation_q.square()) + log_std_p - log_std_q


def split_parameters(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Split into mean and bounded log standard deviation, each (N, Z, ...)."""
    # Cut along the last axis of the memory: the gradients are then put together in the layout of convolutions.
    mean, raw = (part.movedim(-1, 1) for part in parameters.movedim(1, -1).chunk(2, dim=-1))
    return mean, _MAX_LOG_STD * torch.tanh(raw / _MAX_LOG_STD)


class Level(nn.Module):
    """One level of the ladder: its step up, its latent, its step down.

    Parameters
    ----------
    channels, latent_channels
        Channels of the states and of the latent.
    downsamples
        Whether this level stands at half the resolution of the one below.
    finest, top
        Whether nothing stands below, or above. The finest level's state is upsampled by what comes after it. The top's
        prior is one learned Gaussian a channel, the same at every position, so that it fits images of any size.
    blocks
        Residual blocks on each of its two ways.
    dimensions
        Number of spatial axes.
    """

    def __init__(
        self,
        channels: int,
        latent_channels: int,
        downsamples: bool,
        finest: bool,
        top: bool,
        blocks: int,
        dimensions: int,
    ):
        super().__init__()
        convolution = CONVOLUTIONS[dimensions]
        self.downsamples, self.upsamples = downsamples, downsamples and not finest
        self.shrink = convolution(channels, channels, 3, stride=2, padding=1) if downsamples else nn.Identity()
        self.up_blocks = nn.Sequential(*(ResidualBlock(channels, dimensions) for _ in range(blocks)))
        self.prior = None if top else convolution(channels, 2 * latent_channels, 3, padding=1)
        self.top_prior = nn.Parameter(torch.zeros(1, 2 * latent_channels, *[1] * dimensions)) if top else None
        self.merge = Pointwise(channels if top else 2 * channels, channels)
        self.posterior = convolution(channels, 2 * latent_channels, 3, padding=1)
        self.from_latent = Pointwise(latent_channels, channels)
        self.down_blocks = nn.Sequential(*(ResidualBlock(channels, dimensions) for _ in range(blocks)))
        self.grow = Pointwise(channels, channels) if downsamples else nn.Identity()

    def bottom_up(self, h: Tensor) -> Tensor:
        """Map the feature of the level below, (N, C, ...), to this level's; where it downsamples, sides are halved."""
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
            From the level above, (N, C, ...); None at the top.
        feature
            Of the bottom-up path at this level, (N, C, ...).
        number
            This level's number, which ``sample_latent`` is given.
        sample_latent
            What turns a mean and a standard deviation into a latent.
        divergence
            What compares posterior and prior.

        Returns
        -------
        state
            For the level below, (N, C, ...); where this level downsamples, sides are twice as long, but for the finest.
        kl
            What ``divergence`` gives, by default KL(q || p), (N, Z, ...) in nats.
        """
        prior = self.top_prior if state is None else self.prior(state)
        merged = feature if state is None else torch.cat([state, feature], dim=1)
        mean, log_std = split_parameters(self.posterior(mish(self.merge(merged))))
        latent = sample_latent(number, mean, log_std.exp())
        kl = divergence(latent, mean, log_std, *split_parameters(prior))
        return self._next_state(state, latent), kl

    def top_down_from_prior(
        self, state: Tensor | None, shape: tuple[int, ...], number: int, sample_latent: LatentSampler
    ) -> Tensor:
        """Sample this level's latent from its prior and pass the state on.

        ``shape``, (N, ...), holds the number of images and the sides of this level's grid; all else as in
        :meth:`top_down`.
        """
        prior = self.top_prior.expand(shape[0], -1, *shape[1:]) if state is None else self.prior(state)
        mean, log_std = split_parameters(prior)
        return self._next_state(state, sample_latent(number, mean, log_std.exp()))

    def _next_state(self, state: Tensor | None, latent: Tensor) -> Tensor:
        h = self.from_latent(latent)
        h = self.down_blocks(h if state is None else state + h)
        # The 1x1 convolution commutes with nearest-neighbour upsampling, and costs a quarter before it.
        h = self.grow(h)
        return upsampled(h) if self.upsamples else h


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
        How many levels share a resolution: with 1 each level halves it, with 2 (the paper's) every second.
    dimensions
        Number of spatial axes: 1 for traces, 2 for images, 3 for volumes.
    blocks
        Residual blocks on each of a level's two ways.
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
    ):
        super().__init__()
        self.stem = CONVOLUTIONS[dimensions](image_channels, channels, 3, padding=1)
        self.levels = nn.ModuleList(
            Level(
                channels,
                latent_channels,
                downsamples=(i + 1) % levels_per_scale == 0,
                finest=i == 0,
                top=i == levels - 1,
                blocks=blocks,
                dimensions=dimensions,
            )
            for i in range(levels)
        )
        self.last_block = ResidualBlock(channels, dimensions, upsamples=self.levels[0].downsamples)
        self.blocks = blocks
        self.recompute = False  # the levels in the backward pass: less memory, more time

    def _run(self, function: Callable, *arguments):
        return checkpointed(function, *arguments) if self.recompute and self.training else function(*arguments)

    @property
    def strides(self) -> list[int]:
        """Pixels of the image to one position of each level's grid."""
        strides, stride = [], 1
        for level in self.levels:
            stride *= 2 if level.downsamples else 1
            strides.append(stride)
        return strides

    def bottom_up(self, h: Tensor, start: int = 0, stop: int | None = None) -> list[Tensor]:
        """Run the bottom-up path through levels ``start`` to ``stop - 1``; return each level's feature.

        ``h`` is the feature below: for level 0 that is ``stem`` of the image, (N, C, ...).
        """
        features = []
        for level in self.levels[start:stop]:
            h = self._run(level.bottom_up, h)
            features.append(h)
        return features

    def top_down(
        self,
        state: Tensor | None,
        features: list[Tensor],
        sample_latent: LatentSampler,
        start: int = 0,
        divergence: Divergence = analytic_kl,
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the top-down path from level ``start + len(features) - 1`` to ``start``.

        Parameters
        ----------
        state
            The state from above; None where the run begins at the top.
        features
            Bottom-up features of those levels, finest first.
        sample_latent
            What turns a level's number, mean and standard deviation into a latent.
        start
            The finest level to run.
        divergence
            What compares a level's posterior and prior.

        Returns
        -------
        state
            For the level below ``start``; that of level 0 is for ``last_block``.
        kls
            What ``divergence`` gives for each level, finest first, by default KL(q || p), (N, Z, ...) in nats.
        """
        kls = []
        for offset in reversed(range(len(features))):
            number = start + offset
            state, kl = self._run(
                self.levels[number].top_down, state, features[offset], number, sample_latent, divergence
            )
            kls.insert(0, kl)
        return state, kls

    def forward(self, x: Tensor, sample_latent: LatentSampler = sample_randomly) -> tuple[Tensor, list[Tensor]]:
        """Encode a normalised image, (N, C, ...) with each side a multiple of the last stride.

        Returns
        -------
        code
            Signal code, (N, channels, ...).
        kls
            KL(q || p) of each level, finest first, in nats.
        """
        return self.to_code(self.bottom_up(self.stem(x)), sample_latent)

    def to_code(
        self, features: list[Tensor], sample_latent: LatentSampler = sample_randomly
    ) -> tuple[Tensor, list[Tensor]]:
        """Do what :meth:`forward` does from the bottom-up features of all levels on."""
        state, kls = self.top_down(None, features, sample_latent)
        return self.last_block(state), kls

    def sample_prior(self, shape: tuple[int, ...], sample_latent: LatentSampler = sample_randomly) -> Tensor:
        """Sample a signal code from the priors alone, top-down.

        Parameters
        ----------
        shape
            (N, ...): the number of images and their sides, each a multiple of the last stride.
        sample_latent
            What turns a level's number, mean and standard deviation into a latent.

        Returns
        -------
        Tensor
            Signal code, (N, channels, ...).
        """
        count, *sides = shape
        state = None
        for number, stride in reversed(list(enumerate(self.strides))):
            grid = (count, *(side // stride for side in sides))
            state = self.levels[number].top_down_from_prior(state, grid, number, sample_latent)
        return self.last_block(state)
