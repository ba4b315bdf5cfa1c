"""The objective of a training, as one module: its ``forward`` is what several devices compute together."""

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from dvlae.models.direct_denoiser import DirectDenoiser
from dvlae.models.dvlae import DVLAE
from dvlae.models.latents import sample_part, sample_randomly
from dvlae.models.loss_terms import LossTerms
from dvlae.training.objectives.distillation import distillation_loss
from dvlae.training.workers import Workers

logger = logging.getLogger(__name__)


class Objective(nn.Module):
    """The loss of a batch with a model, and of held-out images with the average of its weights.

    Parameters
    ----------
    model
        The networks, which are trained in place. Their average is initially a copy of them.
    free_bits
        KL divergence of each level that costs nothing, in nats per pixel value.
    direct_fraction
        Share of a batch that the direct denoiser learns from. With more than a quarter, a step would take over 1.4
        times as long.
    compiled
        Whether to compile the model with ``torch.compile``. If that fails, the model runs without.
    workers, batch_size
        Workers that share each batch, and the crops in a complete one; None: each batch is complete.
    """

    def __init__(
        self,
        model: DVLAE,
        *,
        free_bits: float = 0.0,
        direct_fraction: float = 0.25,
        compiled: bool = False,
        workers: Workers | None = None,
        batch_size: int | None = None,
    ):
        super().__init__()
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False).eval()
        self.free_bits = free_bits
        self.direct_fraction = direct_fraction
        self._compiled: Callable[..., LossTerms] | None = torch.compile(model.forward) if compiled else None
        self._part: _Part | None = None
        if workers is not None and workers.count > 1 and batch_size is not None:
            self._part = _Part(workers, batch_size)

    @property
    def stride(self) -> tuple[int, ...]:
        """The number of pixels to multiples of which an image is padded, along each spatial axis."""
        return self.model.stride

    def forward(
        self, batch: Tensor, kl_weight: float, counts: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of one batch, or of this worker's crops. The mean over all crops is the loss of the batch.

        Parameters
        ----------
        batch
            Noisy images in their own units, (N, C, ...).
        kl_weight
            Weight of the KL divergence, 0 to 1.
        counts
            1 where a value counts, else 0, (N, C, ...); None: everywhere.

        Returns
        -------
        loss : Tensor
            Scalar.
        values : dict of str to Tensor
            Values for the history: scalars without gradients.
        """
        terms = self._with_distillation(self._terms(batch, counts), self.model, batch, self._part)
        if self.free_bits and self._part is not None:
            terms = replace(terms, kl_of_levels=self._part.mean(terms.kl_of_levels))
        return terms.loss(kl_weight, self.free_bits), self._values(terms)

    def evaluate(self, batch: Tensor, counts: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the values for the history of one batch of held-out images, with the averaged weights.

        Parameters
        ----------
        batch
            Noisy images in their own units, (N, C, ...).
        counts
            1 where a value counts, else 0, (N, C, ...); None: everywhere.

        Returns
        -------
        dict of str to Tensor
            Scalars.
        """
        return self._values(self._with_distillation(self.average(batch, counts=counts), self.average, batch))

    def _terms(self, batch: Tensor, counts: Tensor | None) -> LossTerms:
        inputs = (batch, sample_randomly if self._part is None else self._part.sample, counts)
        if self._compiled is not None:
            try:
                return self._compiled(*inputs)
            except Exception as error:  # A missing compiler or an unknown processor can raise an error of any kind.
                reason = str(error).strip().splitlines()[0]
                logger.warning(f"train: torch.compile failed, continuing without it ({reason})")
                self._compiled = None
        return self.model(*inputs)

    def _with_distillation(
        self, terms: LossTerms, learner: DVLAE, batch: Tensor, part: "_Part | None" = None
    ) -> LossTerms:
        """Add the loss of the direct denoiser on part of a batch; its teacher is the averaged model, the one saved."""
        if not isinstance(learner.direct_denoiser, DirectDenoiser):
            return terms
        crops, batch_size = (range(len(batch)), len(batch)) if part is None else (part.crops, part.batch_size)
        count = math.ceil(self.direct_fraction * batch_size)
        rows = range(min(crops.start, count), min(crops.stop, count))
        if not rows:  # Other workers have these crops.
            return replace(terms, direct=torch.zeros_like(terms.mse))
        loss = distillation_loss(self.average, learner.direct_denoiser, batch[: len(rows)], rows, count)
        return replace(terms, direct=loss * (len(rows) / count * batch_size / len(crops)))

    def _values(self, terms: LossTerms) -> dict[str, Tensor]:
        """Return the values for the history; free bits affect the loss alone, which is minimised."""
        values = {"loss": terms.loss(free_bits=self.free_bits)}
        values |= {name: getattr(terms, name) for name in ("elbo", "kl", "log_likelihood", "mse")}
        if terms.direct is not None:
            values["direct"] = terms.direct
        values |= {f"kl_level{level}": kl for level, kl in enumerate(terms.kl_of_levels)}
        return {name: value.detach() for name, value in values.items()}


class _Part:
    """The part of each batch that one of several workers computes."""

    def __init__(self, workers: Workers, batch_size: int):
        self.workers, self.batch_size = workers, batch_size
        self.crops = workers.share(batch_size)
        self.sample = sample_part(slice(self.crops.start, self.crops.stop), batch_size)

    def mean(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return scalars whose values are those of the complete batch, and whose gradients are those of this part."""
        parts = self.workers.exchange((len(self.crops), [float(value.detach()) for value in values]))
        means = np.average([of_part for _, of_part in parts], axis=0, weights=[count for count, _ in parts])
        return [value + (mean - value.detach()) for value, mean in zip(values, means.tolist(), strict=True)]
