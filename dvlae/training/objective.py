"""What a training minimises, as one module: what several devices compute together is its ``forward``."""

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from dvlae.models.dvlae import DVLAE, LossTerms

# The direct denoiser learns from this part of a batch; more would make a step more than 1.4 times as long.
DISTILLED_FRACTION = 0.25

logger = logging.getLogger(__name__)


class Objective(nn.Module):
    """The loss of a batch under a model, and of held-out images under the average of its weights.

    Parameters
    ----------
    model
        The networks, trained in place. Their average begins as a copy of them.
    free_bits
        KL divergence that each level may have at no cost, in nats per pixel value.
    compiled
        Translate the model with ``torch.compile``; where that fails, go on without.
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
            Of the KL divergence, 0 to 1.

        Returns
        -------
        loss : Tensor
            Scalar.
        values : dict of str to Tensor
            What the history records, scalars without gradients.
        """
        terms = self._with_distillation(self._terms(batch), self.model, batch)
        return terms.annealed_loss(kl_weight, self.free_bits), self._values(terms)

    def evaluate(self, batch: Tensor) -> dict[str, Tensor]:
        """Compute what the history records for one batch of held-out images, under the averaged weights.

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
            except Exception as error:  # whatever a missing compiler or an unknown processor raises
                reason = str(error).strip().splitlines()[0]
                logger.warning(f"train: torch.compile failed, going on without ({reason})")
                self._compiled = None
        return self.model(batch)

    def _with_distillation(self, terms: LossTerms, learner: DVLAE, batch: Tensor) -> LossTerms:
        """Add the loss of the direct denoiser on part of a batch; its teacher is the averaged model, the one saved."""
        if learner.direct_denoiser is None:
            return terms
        part = batch[: math.ceil(DISTILLED_FRACTION * len(batch))]
        return replace(terms, direct=self.average.distillation_loss(learner.direct_denoiser, part))

    def _values(self, terms: LossTerms) -> dict[str, Tensor]:
        """Return what the history records; free bits are in the loss, which is minimised, and nowhere else."""
        values = {"loss": terms.annealed_loss(1.0, self.free_bits)}
        values |= {name: getattr(terms, name) for name in ("elbo", "kl", "log_likelihood", "mse")}
        if terms.direct is not None:
            values["direct"] = terms.direct
        values |= {f"kl_level{level}": kl for level, kl in enumerate(terms.kl_of_levels)}
        return {name: value.detach() for name, value in values.items()}
