"""The objective of a training, as one module: its ``forward`` is what several devices compute together."""

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dvlae.models.direct_denoiser import DirectDenoiser
from dvlae.models.dvlae import DVLAE, LossTerms
from dvlae.models.latents import sample_randomly

# The direct denoiser learns from this part of a batch. With more, a step would take over 1.4 times as long.
DISTILLED_FRACTION = 0.25
# In strides. Two windows that are shifted by up to a stride are cut from sides that are at least this long.
MIN_SIDE_STRIDES = 4
# The mean minimises the mean squared error, the median the mean absolute error.
DISTILLATION_LOSSES = {"mean": F.mse_loss, "median": F.l1_loss}

logger = logging.getLogger(__name__)


class Objective(nn.Module):
    """The loss of a batch with a model, and of held-out images with the average of its weights.

    Parameters
    ----------
    model
        The networks, which are trained in place. Their average is initially a copy of them.
    free_bits
        KL divergence of each level that costs nothing, in nats per pixel value.
    compiled
        Whether to compile the model with ``torch.compile``. If that fails, the model runs without.
    """

    def __init__(self, model: DVLAE, *, free_bits: float = 0.0, compiled: bool = False):
        super().__init__()
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False).eval()
        self.free_bits = free_bits
        self._compiled: Callable[[Tensor], LossTerms] | None = torch.compile(model.forward) if compiled else None

    def forward(self, batch: Tensor, kl_weight: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of one batch.

        Parameters
        ----------
        batch
            Noisy images in their own units, (N, C, ...).
        kl_weight
            Weight of the KL divergence, 0 to 1.

        Returns
        -------
        loss : Tensor
            Scalar.
        values : dict of str to Tensor
            Values for the history: scalars without gradients.
        """
        terms = self._with_distillation(self._terms(batch), self.model, batch)
        return terms.loss(kl_weight, self.free_bits), self._values(terms)

    def evaluate(self, batch: Tensor) -> dict[str, Tensor]:
        """Compute the values for the history of one batch of held-out images, with the averaged weights.

        Parameters
        ----------
        batch
            Noisy images in their own units, (N, C, ...).

        Returns
        -------
        dict of str to Tensor
            Scalars.
        """
        return self._values(self._with_distillation(self.average(batch), self.average, batch))

    def _terms(self, batch: Tensor) -> LossTerms:
        if self._compiled is not None:
            try:
                return self._compiled(batch)
            except Exception as error:  # A missing compiler or an unknown processor can raise an error of any kind.
                reason = str(error).strip().splitlines()[0]
                logger.warning(f"train: torch.compile failed, continuing without it ({reason})")
                self._compiled = None
        return self.model(batch)

    def _with_distillation(self, terms: LossTerms, learner: DVLAE, batch: Tensor) -> LossTerms:
        """Add the loss of the direct denoiser on part of a batch; its teacher is the averaged model, the one saved."""
        if learner.direct_denoiser is None:
            return terms
        part = batch[: math.ceil(DISTILLED_FRACTION * len(batch))]
        return replace(terms, direct=distillation_loss(self.average, learner.direct_denoiser, part))

    def _values(self, terms: LossTerms) -> dict[str, Tensor]:
        """Return the values for the history; free bits affect the loss alone, which is minimised."""
        values = {"loss": terms.loss(free_bits=self.free_bits)}
        values |= {name: getattr(terms, name) for name in ("elbo", "kl", "log_likelihood", "mse")}
        if terms.direct is not None:
            values["direct"] = terms.direct
        values |= {f"kl_level{level}": kl for level, kl in enumerate(terms.kl_of_levels)}
        return {name: value.detach() for name, value in values.items()}


def distillation_loss(teacher: DVLAE, network: DirectDenoiser, image: Tensor) -> Tensor:
    """Return the loss of a direct denoiser that learns from samples of a model.

    Only the direct denoiser has gradients. The samples come from another view of the images, which is mirrored and
    shifted against the model's grid, so the direct denoiser learns the mean over views, as prediction takes it.

    Parameters
    ----------
    teacher
        The model that samples.
    network
        The direct denoiser that learns.
    image
        Noisy images in their own units, (N, C, ...); each side a multiple of the model's stride.

    Returns
    -------
    Tensor
        Scalar: mean squared or absolute error to the samples, in normalised units.
    """
    x = teacher.normalise(image)  # (N, C, ...)
    number, sides, stride = len(x), x.shape[2:], teacher.stride
    # Two windows of each image are shifted by less than a stride; in a small image they are the same.
    room = [stride if side >= MIN_SIDE_STRIDES * stride else 0 for side in sides]
    shifts = [int(torch.randint(most, ())) if most else 0 for most in room]
    lengths = [side - most for side, most in zip(sides, room, strict=True)]
    fixed = _cut(x, [0] * len(sides), lengths)  # (N, C, ...), each side shorter by its room
    shifted = _cut(x, shifts, lengths)
    flipped = [axis for axis in teacher.architecture.mirrored_axes if torch.rand(()) < 0.5]
    both = torch.cat([fixed, shifted.flip(flipped)])  # (2 N, C, ...)

    def sample_latent(level: int, mean: Tensor, std: Tensor) -> Tensor:
        # The first window takes the mean, for the guess, and the second one a sample.
        latent = sample_randomly(level, mean, std)  # (2 N, Z, ...)
        latent[:number] = mean[:number]
        return latent

    ladder_vae = teacher.ladder_vae
    with torch.no_grad():
        features = ladder_vae.bottom_up(ladder_vae.stem(both))  # (2 N, channels, ...) each
        code, _ = ladder_vae.to_code(features, sample_latent)
        guess, sample = teacher.signal_decoder(code).chunk(2)  # (N, C, ...)
    estimate = network(both[:number], guess, [features[level][:number] for level in network.levels])
    # Only what both windows show is compared.
    common = [length - shift for length, shift in zip(lengths, shifts, strict=True)]
    estimate = _cut(estimate, shifts, common)
    sample = _cut(sample.flip(flipped), [0] * len(sides), common)
    statistic = teacher.architecture.direct_denoiser
    assert statistic is not None, "the model has no direct denoiser"
    return DISTILLATION_LOSSES[statistic](estimate.float(), sample.float())


def _cut(maps: Tensor, starts: list[int], lengths: list[int]) -> Tensor:
    """Return a view of a box of maps (N, C, ...), given its start and its length along each spatial axis."""
    for axis, (start, length) in enumerate(zip(starts, lengths, strict=True), 2):
        maps = maps.narrow(axis, start, length)
    return maps
