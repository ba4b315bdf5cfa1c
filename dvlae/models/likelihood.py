"""The mixture of Gaussians that the autoregressive decoder predicts for each pixel."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def mixture_log_likelihood(x: Tensor, logits: Tensor, means: Tensor, raw_scales: Tensor, floor: Tensor) -> Tensor:
    """Log density of each pixel value under its own mixture of Gaussians.

    The weights are normalised in log space and the components are summed with log-sum-exp, so that no component can
    underflow to minus infinity. Scales are ``floor + softplus(raw)``: on integer or clipped pixels the density
    would otherwise grow without bound.

    Parameters
    ----------
    x
        Normalised image, (N, C, ...).
    logits, means, raw_scales
        Mixture parameters, (N, K, C, ...): unnormalised log weights, means in the units of
        ``x``, scales before softplus.
    floor
        Smallest scale allowed, (C, 1, ...), in the units of ``x``.

    Returns
    -------
    Tensor
        (N, C, ...), in nats.
    """
    x, logits, means, raw_scales = x.float(), logits.float(), means.float(), raw_scales.float()
    scales = floor + F.softplus(raw_scales)
    deviation = (x.unsqueeze(1) - means) / scales
    components = F.log_softmax(logits, dim=1) - 0.5 * deviation.square() - scales.log() - _HALF_LOG_TWO_PI
    return torch.logsumexp(components, dim=1)


def sample_mixture(
    logits: Tensor, means: Tensor, raw_scales: Tensor, floor: Tensor, normal: Tensor, uniform: Tensor
) -> Tensor:
    """Sample each pixel value from its own mixture of Gaussians.

    Parameters
    ----------
    logits, means, raw_scales, floor
        As :func:`mixture_log_likelihood` takes them.
    normal, uniform
        Standard normal numbers, and numbers between 0 and 1 that choose the component, each (N, C, ...).

    Returns
    -------
    Tensor
        (N, C, ...), in the units of the means.
    """
    passed = F.softmax(logits, dim=1).cumsum(1) < uniform.unsqueeze(1)
    # Rounding can leave the last sum a little below 1, and the number above it.
    chosen = passed.sum(1, keepdim=True).clamp(max=logits.shape[1] - 1)
    mean, raw_scale = (part.gather(1, chosen).squeeze(1) for part in (means, raw_scales))
    return mean + (floor + F.softplus(raw_scale)) * normal


def scale_floor(step: Tensor, std: Tensor) -> Tensor:
    """Smallest allowed scale of a mixture component, in units of the normalised image.

    Parameters
    ----------
    step
        Smallest spacing of the grey values of each channel, (C,); 0 where they are continuous.
    std
        Standard deviation that each channel is normalised with, (C,), in the same units.

    Returns
    -------
    Tensor
        (C,): the standard deviation of the rounding error, ``step / sqrt(12)``, but at least 0.001.
    """
    return (step / (math.sqrt(12) * std)).clamp(min=1e-3)
