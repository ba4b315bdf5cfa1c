"""The likelihood of a pixel: the mixture of Gaussians that the autoregressive decoder predicts.

In the paper's figure this is the distribution at the output of the autoregressive decoder. With x_j the value of pixel
j in one channel, and K components,

    p(x_j | previous pixels, code) = sum_k w_k N(x_j; mu_k, sigma_k^2)

where the network gives logits, means mu_k and raw scales, w = softmax(logits), sigma_k = floor + softplus(raw scale).
Channels are independent of each other given the previous pixels, which all channels see.

PixelCNN++ (Salimans et al., arXiv 1701.05517, 2017) predicts a mixture of discretised logistic distributions; here, as
in the paper, it is one of Gaussians on continuous values. What differs from the paper: the floor, the sum over
components, which is taken of log w_k + log N(...), so that no weight and no density can underflow, and pixels at the
limits of a recording.

**Limits.** A detector gives everything above its largest value b that value. Such a pixel does not say what the noise
made of the signal, only that it was at least b. With F the distribution function of the mixture, and h the width of a
bin of grey values, the last of which begins at b - h / 2, its likelihood is that of a censored observation (Tobin,
"Estimation of relationships for limited dependent variables", Econometrica 26, 1958),

    p(x_j = b) = (1 - F(b - h / 2)) / h

and that of a pixel at the smallest value a is F(a + h / 2) / h. The division makes it a density, as that of all other
pixels. The signal decoder learns the mean of the values that it is shown. Those at the upper limit are shown as what is
expected there, E[y | y > b - h / 2] (Buckley and James, "Linear regression with censored data", Biometrika 66, 1979).
It then learns the signal, and not the lower mean of what was recorded. Values at the lower limit are shown as they are:
where photons are counted, there may be none, and the mean of what was recorded is the signal.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
_SQRT_TWO_PI = math.sqrt(2 * math.pi)
_SQRT_HALF = math.sqrt(0.5)
# Half the width of a bin of grey values, in floors of the scale.
HALF_BIN = math.sqrt(3)
# In scales of a component. Of a signal that lies farther beyond the limit, hardly any pixel says how far.
MAX_BEYOND = 2.0
# In units of the normalised image. It applies to continuous grey values.
_MIN_SCALE = 1e-3


@dataclass(frozen=True)
class Limits:
    """Where grey values end.

    Attributes
    ----------
    lower, upper
        The smallest and the largest value of each channel, (C, 1, ...), in the units of the normalised image; infinite
        where there is none.
    """

    lower: Tensor
    upper: Tensor

    def clip(self, x: Tensor) -> Tensor:
        """Bring what lies beyond the limits to them.

        Parameters
        ----------
        x
            (N, C, ...).

        Returns
        -------
        Tensor
            (N, C, ...).
        """
        return torch.clamp(x, self.lower, self.upper)

    def side(self, x: Tensor, half_bin: Tensor) -> Tensor:
        """Find the pixels at the limits; what lies beyond was not recorded with these limits, and is not at them.

        Parameters
        ----------
        x
            (N, C, ...).
        half_bin
            Half the width of a bin, (C, 1, ...).

        Returns
        -------
        Tensor
            1 at the upper limit, -1 at the lower one, 0 elsewhere, (N, C, ...).
        """
        return ((x - self.upper).abs() <= half_bin).to(x.dtype) - ((x - self.lower).abs() <= half_bin).to(x.dtype)


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
    scales = floor + F.softplus(raw_scales)  # (N, K, C, ...), as are the next three
    deviation = (x.unsqueeze(1) - means) / scales
    log_weights = F.log_softmax(logits, dim=1)
    components = log_weights - 0.5 * deviation.square() - scales.log() - _HALF_LOG_TWO_PI
    return torch.logsumexp(components, dim=1)  # (N, C, ...)


def censored_log_likelihood(
    x: Tensor, logits: Tensor, means: Tensor, raw_scales: Tensor, floor: Tensor, limits: Limits
) -> tuple[Tensor, Tensor]:
    """Log density of each pixel value of a recording whose grey values end.

    Parameters
    ----------
    x, logits, means, raw_scales, floor
        As :func:`mixture_log_likelihood` takes them.
    limits
        Where grey values end.

    Returns
    -------
    log_likelihood
        (N, C, ...), in nats.
    expected
        ``x`` with the expectation of what lies beyond at the pixels at the upper limit, (N, C, ...), without gradient.
    """
    log_density = mixture_log_likelihood(x, logits, means, raw_scales, floor)
    x, logits, means, raw_scales = x.float(), logits.float(), means.float(), raw_scales.float()
    half_bin = HALF_BIN * floor
    side = limits.side(x, half_bin)  # (N, C, ...)
    edge = x - side * half_bin
    scales = floor + F.softplus(raw_scales)  # (N, K, C, ...), as are the next four
    reach = side.unsqueeze(1) * (means - edge.unsqueeze(1)) / scales
    log_cdf, hazard = normal_tail(reach)
    components = F.log_softmax(logits, dim=1) + log_cdf
    with torch.no_grad():
        beyond = scales * (reach + hazard).clamp(max=MAX_BEYOND)
        expected = edge + (F.softmax(components, dim=1) * beyond).sum(1)
    log_mass = torch.logsumexp(components, dim=1) - (2 * half_bin).log()
    return torch.where(side == 0, log_density, log_mass), torch.where(side > 0, expected, x)


def normal_tail(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logarithm of the distribution function of the standard normal distribution, and its derivative.

    The gradient of :func:`torch.special.log_ndtr` is a difference of large numbers: at -1000 it is off by 5 %, and
    farther away by any factor. Here it is right up to rounding.

    Parameters
    ----------
    z
        Any numbers.

    Returns
    -------
    log_cdf, hazard
        Of the same shape. The hazard at z is the expectation of a standard normal number above -z.
    """
    if z.device.type == "mps":  # It lacks the function.
        log_cdf, hazard = normal_tail(z.cpu())
        return log_cdf.to(z.device), hazard.to(z.device)
    # Each branch is given numbers that it can take, as the gradient of the other one would be NaN.
    below, above = z.clamp(max=0), z.clamp(min=0)
    scaled, upper_tail = torch.special.erfcx(-_SQRT_HALF * below), 0.5 * torch.erfc(_SQRT_HALF * above)
    log_cdf = torch.where(z < 0, torch.log(0.5 * scaled) - 0.5 * below.square(), torch.log1p(-upper_tail))
    with torch.no_grad():
        density = torch.exp(-0.5 * above.square()) / _SQRT_TWO_PI
        hazard = torch.where(z < 0, 2 / (_SQRT_TWO_PI * scaled), density / (1 - upper_tail))
    return log_cdf, hazard


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
    cumulative = F.softmax(logits, dim=1).cumsum(1)  # (N, K, C, ...)
    passed = cumulative < uniform.unsqueeze(1)
    # Because of rounding, the last sum can be slightly below 1, and the number above it.
    chosen = passed.sum(1, keepdim=True).clamp(max=logits.shape[1] - 1)  # (N, 1, C, ...)
    mean = means.gather(1, chosen).squeeze(1)  # (N, C, ...)
    raw_scale = raw_scales.gather(1, chosen).squeeze(1)
    return mean + (floor + F.softplus(raw_scale)) * normal


def scale_floor(step: Tensor, std: Tensor) -> Tensor:
    """Smallest allowed scale of a mixture component, in units of the normalised image.

    A grey value that is rounded to multiples of ``step`` has an error that is uniform over one step.

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

    Examples
    --------
    Integer grey values in images whose standard deviation is 40, and continuous grey values:

    >>> scale_floor(torch.tensor([1.0, 0.0]), torch.tensor([40.0, 40.0]))
    tensor([0.0072, 0.0010])
    """
    return (step / (math.sqrt(12) * std)).clamp(min=_MIN_SCALE)
