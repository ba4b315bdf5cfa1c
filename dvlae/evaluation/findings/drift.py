"""Whether clean images lie on their noisy ones, where the settings do not ask to move them there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dvlae.axes import middle
from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_clean, read_mask, read_noisy
from dvlae.data.manifest import Image
from dvlae.evaluation.findings.finding import Finding
from dvlae.evaluation.target import Alignment, Target, find_region
from dvlae.system.wording import count

# Less is not seen in the noise.
MIN_DRIFT = 0.25  # pixels
# Registration must lower the variance of noisy minus clean by this fraction. Its interpolation alone, which smooths the
# noise of the clean image, lowers it less where that has less noise than the noisy one.
MIN_GAIN = 0.1
# Of the region, so much is looked at along each axis.
MAX_SIDE = 1024  # pixels


@dataclass(frozen=True)
class Drift:
    """How far a clean image lies from its place.

    Attributes
    ----------
    pixels
        The largest drift along an axis.
    variances
        Of noisy minus clean, as the images lie and after registration.
    """

    pixels: float
    variances: tuple[float, float]


def measure_drift(image: Image, settings: EvaluationSettings) -> Drift:
    """Register a clean image to its noisy one, and compare what is taken for noise with and without.

    Parameters
    ----------
    image
        An image with a clean one.
    settings
        How the dataset is evaluated.

    Returns
    -------
    Drift
        In the middle of the region that is evaluated.
    """
    region = find_region(image.shape[1:], settings)
    part = middle([side.stop - side.start for side in region], [MAX_SIDE] * len(region))
    noisy, clean = (read(image)[:, *region][:, *part] for read in (read_noisy, read_clean))
    mask = read_mask(image)
    mask = None if mask is None else mask[region][part]
    if np.ptp(clean) == 0 or (mask is not None and not mask.any()):
        return Drift(0.0, (0.0, 0.0))
    as_it_lies = EvaluationSettings(fit=settings.fit, data_range=1.0)
    registered = as_it_lies.model_copy(update={"register": True})
    alignment = Alignment.find(noisy, clean, registered, mask)
    before = Target.build(noisy, clean, as_it_lies, mask=mask)
    after = Target.build(noisy, clean, registered, alignment, mask)
    counts = ... if mask is None else mask
    variances = [float(np.nanvar(target.noise()[:, counts])) for target in (before, after)]
    return Drift(max(map(abs, alignment.shift or (0.0,))), (variances[0], variances[1]))


def compare_drifts(drifts: Sequence[Drift]) -> list[Finding]:
    """Say so if clean images lie beside their noisy ones.

    Parameters
    ----------
    drifts
        Of some images.

    Returns
    -------
    list of Finding
        One, or none.
    """
    beside = [
        drift.pixels
        for drift in drifts
        if drift.pixels >= MIN_DRIFT and drift.variances[1] < (1 - MIN_GAIN) * drift.variances[0]
    ]
    if not beside:
        return []
    before, after = (sum(drift.variances[i] for drift in drifts) for i in range(2))
    verb = "lies" if len(beside) == 1 else "lie"
    line = (
        f"{len(beside)} of {count(len(drifts), 'clean image')} {verb} beside the noisy ones, by up to "
        f"{max(beside):.1f} px, so that noise and PSNR are measured wrongly; registered, noisy − clean has "
        f"{1 - after / before:.0%} less variance; `evaluation.register: true` helps"
    )
    return [Finding("drift", max(beside), line)]
