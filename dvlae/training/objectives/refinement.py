"""How the refined denoiser learns: from noisy images that are made noisier, with noise that the model has learned.

Let x = s + n be a noisy image with the signal s, and n' a sample of the noise that the model expects of it. If n and n'
are independent given s and have the same covariance, the noise of the two images

    x + a n'    and    x - n' / a

is uncorrelated; if it is Gaussian, independent. The denoiser D that brings the first image closest to the second one is
then closest to the clean image as well. For other noise this holds as far as D is linear within the range of a n'. With
each n' taken with both signs, which takes most of the chance out of it, and without the terms that do not depend on D,

    E (D(x + a n') - s)^2  =  E [(D(x + a n') - x)^2 + 2 (D(x + a n') - x) n' / a - n'^2].

The right side needs no clean image: training minimises it, and the history has it as ``error``, in normalised units. It
is the error for an image with a little more noise than x; the smaller a is, the less. It has an offset, the difference
between the variances of n and n', which can exceed the error, and does not depend on D.

The noise is a sample of the autoregressive decoder, given a sample of the signal code, minus the signal of this code.

Source: Pang et al., "Recorrupted-to-recorrupted: unsupervised deep learning for image denoising", CVPR 2021, for
Gaussian noise of known strength and without the signs. Stein, "Estimation of the mean of a multivariate normal
distribution", Ann. Statist. 9, 1981, is the limit for small a.
"""

import copy

import torch
from torch import Tensor, nn

from dvlae.config.training import TrainingSettings
from dvlae.models.decoders.sampling import sample_autoregressively
from dvlae.models.direct_denoiser import RefinedDenoiser
from dvlae.models.dvlae import DVLAE
from dvlae.models.latents import sample_part
from dvlae.models.layers import cut_padding
from dvlae.models.likelihood import Limits
from dvlae.training.workers import Workers

# a: the noise that is added, as a part of that which is there.
ADDED_NOISE = 0.3
# The highest learning rate, as a part of that of the model.
RATE = 0.25


def refinement_settings(limits: TrainingSettings, workers: int) -> TrainingSettings:
    """Return the settings of a refinement.

    Parameters
    ----------
    limits
        The settings of the training of the model, with the limits of the refinement.
    workers
        Number of workers that share each batch, at least one crop for each.

    Returns
    -------
    TrainingSettings
        Half as many crops, as each is denoised twice; a lower learning rate, which always follows a cosine; and no
        early end.
    """
    return limits.model_copy(
        update={
            "batch_size": max(workers, limits.batch_size // 2),
            "learning_rate": RATE * limits.learning_rate,
            "schedule": "cosine",
            "patience": None,
        }
    )


class Refinement(nn.Module):
    """The loss of a batch with the refined denoiser, and of held-out images with the average of its weights.

    Parameters
    ----------
    teacher
        The trained model, which samples the noise and does not change.
    workers
        Workers that share each batch.
    batch_size
        Crops in a complete batch.

    Attributes
    ----------
    model, average
        The denoiser, and the average of its weights; at first both are the networks of the model.
    """

    def __init__(self, teacher: DVLAE, workers: Workers, batch_size: int):
        super().__init__()
        self.teacher = teacher.requires_grad_(False).eval()
        self.average = copy.deepcopy(RefinedDenoiser(teacher.ladder_vae, teacher.signal_decoder)).eval()
        # The statistics of batches stay those of the model: few crops, each of them twice, have no good ones.
        self.model = copy.deepcopy(self.average).requires_grad_()
        for level in self.model.ladder_vae.levels:
            # A denoiser has no prior.
            for parameters in (level.prior, level.top_prior):
                if parameters is not None:
                    parameters.requires_grad_(False)
        self._crops, self._batch_size = workers.share(batch_size), batch_size

    @property
    def stride(self) -> tuple[int, ...]:
        """The number of pixels to multiples of which an image is padded, along each spatial axis."""
        return self.teacher.stride

    def forward(
        self, batch: Tensor, kl_weight: float, counts: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of one batch, or of this worker's crops.

        Parameters
        ----------
        batch
            Noisy images in their own units, (N, C, ...).
        kl_weight
            Not used, as there is no KL divergence.
        counts
            1 where a value counts, else 0, (N, C, ...); None: everywhere.

        Returns
        -------
        loss : Tensor
            Estimate of the squared error to the clean image, in normalised units, a scalar.
        values : dict of str to Tensor
            The same for the history, without a gradient.
        """
        loss = self._error(self.model, batch, counts, self._crops, self._batch_size)
        return loss, {"error": loss.detach()}

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
            A scalar, by its name.
        """
        return {"error": self._error(self.average, batch, counts, range(len(batch)), len(batch))}

    def _error(
        self, denoiser: RefinedDenoiser, batch: Tensor, counts: Tensor | None, crops: range, total: int
    ) -> Tensor:
        """Estimate the squared error of a denoiser; the crops are those with these numbers, of ``total``."""
        sides = batch.shape[2:]
        x = self.teacher.pad(self.teacher.normalise(batch))  # (N, C, ...), padded, as all below
        noise, wanted = self._sample_noise(x, crops, total)
        added = ADDED_NOISE * noise
        signal = denoiser(torch.cat([x + added, x - added]))  # (2 N, C, ...)
        signal, wanted, noise = (cut_padding(maps, sides) for maps in (signal, wanted, noise))  # without padding
        excess = signal.float().unflatten(0, (2, -1)) - wanted  # (2, N, C, ...): both signs of the noise
        error = excess.square() + 2 / ADDED_NOISE * excess * torch.stack([noise, -noise]) - noise.square()
        return (error if counts is None else error * counts).mean()

    @torch.no_grad()
    def _sample_noise(self, x: Tensor, crops: range, total: int) -> tuple[Tensor, Tensor]:
        """Return a sample of the noise, and ``x`` with what is expected where the recording ends; each (N, C, ...)."""
        teacher, decoder = self.teacher, self.teacher.autoregressive_decoder
        rows = slice(crops.start, crops.stop)
        code, _ = teacher.ladder_vae(x, sample_part(rows, total))  # (N, channels, ...)
        normal = torch.randn(total, 2 * x.shape[1], *x.shape[2:], device=x.device)[rows]  # (N, 2 C, ...)
        axes = tuple(range(2, x.ndim))
        with torch.autocast(x.device.type, enabled=False):
            code = code.float()
            seen = Limits(*(reduce(x, axes, keepdim=True) for reduce in (torch.amin, torch.amax)))
            noisy = sample_autoregressively(decoder, code, normal, teacher.floor, seen=seen).clone()
            if teacher.limits is None:
                return noisy - teacher.signal_decoder(code), x
            # The sample ends where the recording does, so that its noise is like that of the image.
            noisy, wanted = (
                teacher.pixel_log_likelihood(image, *decoder(image, code))[1]
                for image in (teacher.limits.clip(noisy), x)
            )
            return noisy - teacher.signal_decoder(code), wanted
