"""Grey values that end: pixels at the smallest or the largest value that a recording can have.

A detector gives everything above its largest value b that value. Such a pixel does not say what the noise made of the
signal, only that it was at least b. With F the distribution function of the pixel's mixture, and h the width of a bin
of grey values, the last of which begins at b - h / 2, its likelihood is that of a censored observation (Tobin,
"Estimation of relationships for limited dependent variables", Econometrica 26, 1958),

    p(x = b) = (1 - F(b - h / 2)) / h

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

_SQRT_HALF = math.sqrt(0.5)
_SQRT_TWO_PI = math.sqrt(2 * math.pi)


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
