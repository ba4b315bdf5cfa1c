"""The paper's network with some of its parts replaced by ours, for `waterfall.py`.

With all :data:`PARTS` it is our network: same names and shapes of the weights, same output.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dvlae.config.settings import TrainSettings
from dvlae.models.decoders.autoregressive import AutoregressiveDecoder
from dvlae.models.dvlae import DVLAE, build_model
from dvlae.models.ladder_vae import LadderVAE, Level
from dvlae.models.layers import to_channels_last, upsampled
from dvlae.models.paper import BorderConvolution, PaperLadderVAE, PaperLevel

PARTS = ("stem", "padding", "deviation", "merge", "skip", "blocks", "decoder", "likelihood")


class MixedLevel(PaperLevel):
    """The paper's level with parts of ours."""

    def __init__(self, parts: Collection[str], *sizes: Any, **kinds: Any):
        super().__init__(*sizes, **kinds)
        self.parts, ours = parts, Level(*sizes, **kinds)
        self.factors_up = ours.factors_up
        if "merge" in parts:
            self.merge = ours.merge
            self.merge_block = None
        if "skip" in parts:
            self.from_latent = ours.from_latent
            self.skip = self.skip_block = None
        if "blocks" in parts:
            self.up_blocks, self.down_blocks = ours.up_blocks, ours.down_blocks

    def _posterior_parameters(self, state: Tensor | None, feature: Tensor) -> Tensor:
        kind = Level if "merge" in self.parts else PaperLevel
        return kind._posterior_parameters(self, state, feature)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        kind = Level if "deviation" in self.parts else PaperLevel
        return kind._split(self, parameters)

    def _next_state(self, state: Tensor | None, latent: Tensor) -> Tensor:
        h = self.from_latent(latent)  # (N, C, ...), with the sides of this level
        if state is not None:
            h = state + h if "skip" in self.parts else self.skip_block(self.skip(torch.cat([h, state], dim=1)))
        if "blocks" in self.parts:
            return upsampled(self.grow(self.down_blocks(h)), self.factors_up)
        return self.down_blocks(self.grow(h))


class MixedLadderVAE(PaperLadderVAE):
    """The paper's ladder VAE with parts of ours.

    What a tile of an image sees is not known of it, so it is run on complete images.
    """

    def __init__(self, parts: Collection[str], *sizes: Any):
        self.parts, self.level_type = parts, partial(MixedLevel, parts)
        super().__init__(*sizes)

    def _make_stem(self, image_channels: int) -> nn.Module:
        return (LadderVAE if "stem" in self.parts else PaperLadderVAE)._make_stem(self, image_channels)

    def _make_last_block(self) -> nn.Module:
        return (LadderVAE if "blocks" in self.parts else PaperLadderVAE)._make_last_block(self)


def build_mixed_model(
    parts: Collection[str],
    settings: TrainSettings,
    description: dict[str, Any],
    crop: Sequence[int],
    receptive_field: int,
    noise_direction: str,
) -> DVLAE:
    """Build the untrained model of the paper, with some of our parts, as `dvlae.models.dvlae.build_model` does."""
    model = build_model(settings, description, crop, receptive_field, noise_direction)
    a = model.architecture
    model.ladder_vae = MixedLadderVAE(parts, *a.ladder)
    if "decoder" in parts:
        line = (a.components, receptive_field, noise_direction, a.dimensions)
        model.autoregressive_decoder = AutoregressiveDecoder(a.image_channels, a.channels, *line)
    if "padding" in parts:
        _pad_with_zeros(model)
    if "likelihood" in parts:
        # In a model that is built, the name decides about the floor and the limits of the likelihood alone.
        model.architecture = replace(a, network="dvlae")
    to_channels_last(model, a.dimensions)
    return model


def _pad_with_zeros(model: nn.Module) -> None:
    """Replace all convolutions that pad with values of their input."""
    for module in list(model.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, BorderConvolution):
                layer.conv.padding = tuple(side // 2 for side in layer.conv.kernel_size)
                setattr(module, name, layer.conv)
