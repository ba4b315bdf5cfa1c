"""The Gaussians of the ladder VAE's latents: their parameters, samples, and divergences.

For each value z of a latent the networks give a mean and a raw number, of its posterior q and of its prior p:

    log_std = 5 tanh(raw / 5)
    z = mean_q + exp(log_std_q) noise,   noise ~ Normal(0, 1)
    KL(q || p) = E_q[log q(z) - log p(z)]
               = (exp(2 d) + ((mean_q - mean_p) exp(-log_std_p))^2 - 1) / 2 - d,   d = log_std_q - log_std_p

What differs from the paper: its authors' code takes the softplus of the raw number for the standard deviation, without
a bound.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# A standard deviation is between e^-5 and e^5, so that no exponential overflows.
_MAX_LOG_STD = 5.0

# Maps a level's number, mean and standard deviation to a latent; all but the number are (N, Z, ...).
LatentSampler = Callable[[int, Tensor, Tensor], Tensor]
# Maps a latent, and mean and log standard deviation of its posterior and of its prior, to a divergence in nats, element
# by element; all are (N, Z, ...).
Divergence = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def sample_randomly(level: int, mean: Tensor, std: Tensor) -> Tensor:
    """Sample a latent with torch's global generator: z = mean + std * noise.

    Parameters
    ----------
    level
        Not used: all levels share the generator.
    mean, std
        Mean and standard deviation of the latent, (N, Z, ...).

    Returns
    -------
    Tensor
        The latent, (N, Z, ...).
    """
    # The noise has the memory layout of the mean, channels last. In another layout, PyTorch samples the numbers one by
    # one, nine times as slowly.
    noise = torch.randn_like(mean.movedim(1, -1)).movedim(-1, 1)  # (N, Z, ...)
    return torch.addcmul(mean, std, noise)


def take_mean(level: int, mean: Tensor, std: Tensor) -> Tensor:
    """Return the mean of a latent instead of a sample.

    Parameters
    ----------
    level
        Not used.
    mean
        Mean of the latent, (N, Z, ...).
    std
        Not used.

    Returns
    -------
    Tensor
        ``mean``, unchanged.
    """
    return mean


def sample_part(rows: slice | list[int], total: int) -> LatentSampler:
    """Return a sampler for part of a batch, which samples what :func:`sample_randomly` does in the complete batch.

    Parameters
    ----------
    rows
        Numbers of the images in the part.
    total
        Number of images in the complete batch.

    Returns
    -------
    LatentSampler
        Takes torch's global generator.
    """

    def sample(level: int, mean: Tensor, std: Tensor) -> Tensor:
        # Noise for the complete batch is sampled, with the memory layout that `sample_randomly` gives it.
        one = torch.empty_like(mean[:1].movedim(1, -1))  # (1, ..., Z)
        shape, strides = (total, *one.shape[1:]), (one.numel(), *one.stride()[1:])
        noise = torch.empty_strided(shape, strides, dtype=mean.dtype, device=mean.device).normal_()
        return torch.addcmul(mean, std, noise[rows].movedim(-1, 1))

    return sample


def gaussian_kl(mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor) -> Tensor:
    """KL(q || p) of diagonal Gaussians, element by element, in float32 whatever the inputs' precision.

    Parameters
    ----------
    mean_q, log_std_q, mean_p, log_std_p
        Means and log standard deviations of q and of p, (N, Z, ...).

    Returns
    -------
    Tensor
        (N, Z, ...), in nats.
    """
    mean_q, log_std_q, mean_p, log_std_p = (t.float() for t in (mean_q, log_std_q, mean_p, log_std_p))
    difference = (mean_q - mean_p) * torch.exp(-log_std_p)
    log_ratio = log_std_q - log_std_p
    return 0.5 * (torch.exp(2 * log_ratio) + difference.square() - 1) - log_ratio


def analytic_kl(latent: Tensor, mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor) -> Tensor:
    """KL(q || p), which does not depend on the sampled latent.

    Parameters
    ----------
    latent
        Not used.
    mean_q, log_std_q, mean_p, log_std_p
        Means and log standard deviations of q and of p, (N, Z, ...).

    Returns
    -------
    Tensor
        (N, Z, ...), in nats.
    """
    return gaussian_kl(mean_q, log_std_q, mean_p, log_std_p)


def log_density_ratio(latent: Tensor, mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor) -> Tensor:
    """Log q(z) - log p(z) of the latent that was sampled; its mean over q is KL(q || p).

    Parameters
    ----------
    latent
        z, (N, Z, ...).
    mean_q, log_std_q, mean_p, log_std_p
        Means and log standard deviations of q and of p, (N, Z, ...).

    Returns
    -------
    Tensor
        (N, Z, ...), in nats.
    """
    deviation_q = (latent - mean_q) * torch.exp(-log_std_q)
    deviation_p = (latent - mean_p) * torch.exp(-log_std_p)
    return 0.5 * (deviation_p.square() - deviation_q.square()) + log_std_p - log_std_q


def split_parameters(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Split the parameters of a Gaussian into mean and bounded log standard deviation.

    Parameters
    ----------
    parameters
        (N, 2 Z, ...): first the means, then the raw log standard deviations.

    Returns
    -------
    mean, log_std
        Each (N, Z, ...).
    """
    # The cut is along the last axis in memory, so that the gradients have the memory layout of the convolutions.
    mean, raw = (part.movedim(-1, 1) for part in parameters.movedim(1, -1).chunk(2, dim=-1))  # (N, Z, ...)
    return mean, _MAX_LOG_STD * torch.tanh(raw / _MAX_LOG_STD)
