"""The terms of the loss of the complete model."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class LossTerms:
    """The terms of the loss, each a scalar per pixel value of the image.

    Attributes
    ----------
    log_likelihood
        log p(x | c), in nats.
    kl_of_levels
        KL divergence of each level, finest first, in nats.
    mse
        Mean squared error of the signal decoder's output to the noisy image, in squared normalised units; at the upper
        limit of the recording, to what is expected of the noise there.
    direct
        Mean squared or absolute error of the direct denoiser's output to a sample, in normalised units.
    """

    log_likelihood: Tensor
    kl_of_levels: list[Tensor]
    mse: Tensor
    direct: Tensor | None = None

    @property
    def kl(self) -> Tensor:
        """The divergence KL(q(z | x) || p(z)) of all levels."""
        return torch.stack(self.kl_of_levels).sum()

    @property
    def elbo(self) -> Tensor:
        """The evidence lower bound."""
        return self.log_likelihood - self.kl

    def loss(self, kl_weight: float = 1.0, free_bits: float = 0.0) -> Tensor:
        """Return what training minimises.

        Parameters
        ----------
        kl_weight
            Weight of the KL divergence, 0 to 1. Training raises it from 0, as in Sonderby et al. (arXiv 1602.02282,
            2016).
        free_bits
            KL divergence of each level that costs nothing, as a mean over the batch, in nats per pixel value of the
            image. A level with less is not pulled towards its prior. Kingma et al., "Improved variational inference
            with inverse autoregressive flow" (arXiv 1606.04934, 2016); their groups of latents are the levels here.

        Returns
        -------
        Tensor
            A scalar, in nats per pixel value.
        """
        kl = self.kl if free_bits == 0 else torch.stack(self.kl_of_levels).clamp(min=free_bits).sum()
        loss = self.mse - self.log_likelihood + kl_weight * kl
        return loss if self.direct is None else loss + self.direct
