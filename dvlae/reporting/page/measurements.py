"""The numbers of a page: the noise before, what was removed, and, with clean images, the error."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dvlae.axes import middle
from dvlae.evaluation.diagnosis import MAX_ERROR, MIN_CORRELATION
from dvlae.evaluation.noise_samples import MAX_SIDES, NoiseSample, estimate_noise, known_noise
from dvlae.evaluation.noise_statistics import SIGNAL_GROUPS, masked_autocorrelation, robust_variance, variance_by_signal
from dvlae.evaluation.register import Targets
from dvlae.reporting.page.markup import decimal
from dvlae.reporting.page.views import Frame, counted

# The estimate of the noise was wrong by up to 12 % on photographs with known noise.
MAX_RATIO = 1.2


@dataclass(frozen=True)
class Measurement:
    """What was measured in one channel of a frame, in the middle of it.

    Attributes
    ----------
    image
        Name of the image.
    channel
        Number or name of the channel; empty if there is only one.
    noise
        Standard deviation of the noise before, in grey values; None if it is not known.
    removed
        Standard deviation of what was removed, in grey values.
    correlation
        Correlation of neighbours in what was removed, by axis; missing where there are few neighbours.
    """

    image: str
    channel: str
    noise: float | None
    removed: float
    correlation: Mapping[str, float]


@dataclass(frozen=True)
class Score:
    """How far an image is from its clean one, before and after: PSNR in decibels, and SSIM, which may be NaN."""

    before: tuple[float, float]
    after: tuple[float, float]

    @property
    def numbers(self) -> list[float]:
        """The PSNR before and after, and the SSIM before and after."""
        return [value for pair in zip(self.before, self.after, strict=True) for value in pair]


def measure(frame: Frame, direction: str | None, targets: Targets) -> list[Measurement]:
    """Measure each channel of a frame.

    Parameters
    ----------
    frame
        The frame.
    direction
        The direction of the noise; None if it cannot be told, so that noise without a clean image is not measured.
    targets
        What estimates are compared with.

    Returns
    -------
    list of Measurement
        One for each channel.
    """
    spatial = frame.noisy.shape[1:]
    part = middle(spatial, [MAX_SIDES[axis] for axis in "zyx"[-len(spatial) :]])
    noisy, denoised = frame.noisy[:, *part], frame.denoised[:, *part]
    counts = counted(noisy, None if frame.mask is None else frame.mask[part])
    if frame.image.clean is not None:
        target = targets.target(frame.image, frame.noisy)
        samples = known_noise(frame.noisy, counted(frame.noisy, frame.mask), target)
        noise: list[float | None] = [sample.std["x"] for sample in samples]
    elif direction is None:
        noise = [None] * len(noisy)
    else:
        axis = "x" if direction == "none" else direction
        noise = [_estimate(sample, axis) for sample in estimate_noise(noisy, counts)]
    found = []
    for number, level in enumerate(noise):
        removed = np.where(counts[number], noisy[number] - denoised[number], np.nan)
        # With fewer pixels, a correlation says nothing.
        enough = np.count_nonzero(counts[number]) * MAX_ERROR**2 >= 1
        lags = masked_autocorrelation(removed, 1) if enough else {}
        found.append(
            Measurement(
                frame.image.name,
                (frame.channels[number] if frame.channels else str(number)) if len(noise) > 1 else "",
                None if level is None else level * frame.info.scale,
                float(np.nanstd(removed)) * frame.info.scale,
                {name: float(values[1]) for name, values in lags.items() if np.isfinite(values[1:2]).any()},
            )
        )
    return found


def _estimate(sample: NoiseSample, axis: str) -> float | None:
    """Return the standard deviation of noise that depends on the signal: its mean variance over the signal."""
    if axis not in sample.noise:
        return None
    there = np.isfinite(sample.noise[axis])
    if np.count_nonzero(there) < SIGNAL_GROUPS:
        return None
    _, variances = variance_by_signal(sample.noise[axis][there], sample.signal[there], robust_variance)
    return math.sqrt(np.mean(variances))


def score(frame: Frame, targets: Targets) -> Score | None:
    """Compare a frame with its clean image.

    Parameters
    ----------
    frame
        The frame.
    targets
        What estimates are compared with.

    Returns
    -------
    Score or None
        Before and after; None without a clean image.
    """
    if frame.image.clean is None:
        return None
    target = targets.target(frame.image, frame.noisy)
    return Score(target.score(frame.noisy), target.score(frame.denoised))


def judge(found: Sequence[Measurement], diagnosis: Mapping[str, Any]) -> list[str]:
    """Say what the numbers mean.

    Parameters
    ----------
    found
        What was measured.
    diagnosis
        The content of the JSON file of ``dvlae diagnose``.

    Returns
    -------
    list of str
        Sentences.
    """
    said, ratio = find_doubt(found), _ratio(found)
    if said is None and ratio is not None:
        said = f"what was removed is about as strong as the noise ({ratio:.2f} times)"
    return [*([] if said is None else [f"{said.capitalize()}."]), *_judge_correlation(found, diagnosis)]


def find_doubt(found: Sequence[Measurement]) -> str | None:
    """Say that another amount than the noise was removed.

    Parameters
    ----------
    found
        What was measured.

    Returns
    -------
    str or None
        The words; None if what was removed is about as strong as the noise, or that is not known.
    """
    ratio = _ratio(found)
    if ratio is None or 1 / MAX_RATIO <= ratio <= MAX_RATIO:
        return None
    if ratio == 0:
        return "nothing was removed"
    if ratio > 1:
        return f"what was removed is {ratio:.2f} times as strong as the noise: it may contain signal"
    return f"what was removed is only {ratio:.2f} times as strong as the noise: some noise may be left"


def _ratio(found: Sequence[Measurement]) -> float | None:
    ratios = [one.removed / one.noise for one in found if one.noise]
    return float(np.median(ratios)) if ratios else None


def _judge_correlation(found: Sequence[Measurement], diagnosis: Mapping[str, Any]) -> list[str]:
    axes = [axis for axis in "xyz" if all(axis in one.correlation for one in found)]
    if not axes:
        return []
    removed = {axis: float(np.median([one.correlation[axis] for one in found])) for axis in axes}
    text = f"Neighbours in what was removed correlate {_numbers(removed)}"
    noise = {axis: lags[1] for axis, lags in diagnosis["autocorrelation"].items() if axis in axes and len(lags) > 1}
    if diagnosis["direction"] is None or set(noise) != set(axes) or None in noise.values():
        return [f"{text}."]
    text += f"; in the noise, {_numbers(noise)}."
    other = [axis for axis in axes if abs(removed[axis] - noise[axis]) > MIN_CORRELATION]
    if other:
        return [f"{text} They differ along {' and '.join(other)}: look for structure in what was removed."]
    return [f"{text} They agree."]


def _numbers(correlation: Mapping[str, float]) -> str:
    return ", ".join(f"{decimal(value, 2)} along {axis}" for axis, value in correlation.items())
