"""What a model is built from: the sizes and kinds of its networks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dvlae.axes import mirrored_axes


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build the networks.

    Attributes
    ----------
    image_channels
        Channels of the image.
    channels, latent_channels
        Channels of the feature maps, and of the latent of each level of the ladder VAE.
    levels, levels_per_scale
        Levels of the ladder VAE, and how many of them share a resolution.
    components
        Gaussians in the mixture of each pixel.
    receptive_field, noise_direction
        Those of the autoregressive decoder: in pixels; ``"x"``, ``"y"``, ``"z"`` or ``"none"``.
    dimensions
        Spatial axes: 1 for traces, 2 for images, 3 for volumes.
    blocks
        Residual blocks on each of the two ways of a level.
    direct_denoiser
        ``"mean"`` or ``"median"`` of the posterior, or ``"refined"``; None: there is no direct denoiser.
    autoregression
        ``"nonlinear"`` or ``"linear"``.
    stride
        Stride of the coarsest level along each spatial axis, in pixels; None: each halving is along all axes.
    network
        ``"dvlae"``: our own layers; ``"paper"``: those of the authors' code, :mod:`dvlae.models.paper`.
    decoder_channels
        Channels of the hidden layers of the paper's autoregressive decoder; None: half of ``channels``, as in the
        paper.
    top_grid
        Sides of the grid of the paper's coarsest level in training, if the prior differs from position to position, as
        in the authors' code; None: it is the same.
    """

    image_channels: int
    channels: int
    latent_channels: int
    levels: int
    levels_per_scale: int
    components: int
    receptive_field: int
    noise_direction: str
    dimensions: int = 2
    blocks: int = 1
    direct_denoiser: str | None = None
    autoregression: str = "nonlinear"
    stride: Sequence[int] | None = None
    network: str = "dvlae"
    decoder_channels: int | None = None
    top_grid: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Refuse what the sizes of the weights do not tell.

        Raises
        ------
        ValueError
            If the network has no such name, or there is not one power of two for each axis, at most that of the levels.
        """
        if self.network not in ("dvlae", "paper"):
            raise ValueError(f"network: found {self.network!r}, allowed: dvlae, paper")
        if self.stride is not None:
            halvings = [side.bit_length() - 1 for side in self.stride]
            fitting = all(0 <= n <= self.levels // self.levels_per_scale for n in halvings)
            if list(self.stride) != [2**n for n in halvings] or len(halvings) != self.dimensions or not fitting:
                raise ValueError(f"stride: found {self.stride}, allowed: a power of two for each of the axes")

    @property
    def ladder(self) -> tuple[Any, ...]:
        """The arguments of :class:`dvlae.models.ladder.Ladder`."""
        sizes = (self.image_channels, self.channels, self.latent_channels, self.levels, self.levels_per_scale)
        return (*sizes, self.dimensions, self.blocks, self.stride)

    @property
    def mirrored_axes(self) -> list[int]:
        """The spatial axes, from the end, that can be mirrored without mirroring the direction of the noise."""
        return mirrored_axes(self.dimensions, self.noise_direction)
