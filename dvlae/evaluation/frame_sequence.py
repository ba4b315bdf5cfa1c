"""What is odd in a sequence of frames: blank and repeated ones, and a mean that falls."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from dvlae.evaluation.frame_checks import Finding
from dvlae.system.arrays import frame_bands

MIN_TREND_FRAMES = 6
MIN_TREND = 0.8  # Spearman's rank correlation
MIN_FALL = 0.05


@dataclass(frozen=True)
class FrameIdentity:
    """What tells frames of a sequence apart.

    Attributes
    ----------
    digest
        A hash of the values.
    mean
        Mean grey value.
    blank
        Whether each channel is constant.
    """

    digest: bytes
    mean: float
    blank: bool


def identify_frame(frame: np.ndarray) -> FrameIdentity:
    """Hash a frame, and measure how bright it is.

    Parameters
    ----------
    frame
        (C, ...).

    Returns
    -------
    FrameIdentity
        A few bytes.
    """
    digest, total, number = hashlib.blake2b(digest_size=16), 0.0, 0
    lowest, highest = np.full(len(frame), np.nan), np.full(len(frame), np.nan)
    for channel, band in frame_bands(frame.shape, frame):
        part = np.ascontiguousarray(frame[channel, band])
        digest.update(part.data)
        finite = part[np.isfinite(part)]
        total, number = total + float(finite.sum(dtype=np.float64)), number + finite.size
        lowest[channel] = np.fmin(lowest[channel], np.fmin.reduce(part, axis=None))
        highest[channel] = np.fmax(highest[channel], np.fmax.reduce(part, axis=None))
    return FrameIdentity(digest.digest(), total / number if number else math.nan, bool((lowest == highest).all()))


def compare_sequence(frames: Sequence[FrameIdentity], total: int) -> list[Finding]:
    """Look for blank and repeated frames, and for a mean that falls.

    Parameters
    ----------
    frames
        Frames in their order.
    total
        Number of frames in the dataset, of which these are some.

    Returns
    -------
    list of Finding
        At most one of each kind.
    """
    number = f"{len(frames)} frames" if len(frames) == total else f"{len(frames)} examined frames, of {total},"
    findings = []
    shown = [frame for frame in frames if not frame.blank]
    if blank := len(frames) - len(shown):
        line = f"{blank} of {number} are constant; nothing is learned from them; `evaluation.images` leaves them out"
        findings.append(Finding("blank frames", blank, line))
    if repeated := len(shown) - len({frame.digest for frame in shown}):
        line = f"{repeated} of {number} are equal to another; `training.images` and `evaluation.images` leave them out"
        findings.append(Finding("duplicate frames", repeated, line))
    means = np.array([frame.mean for frame in shown])
    if len(means) >= MIN_TREND_FRAMES and np.ptp(means) > 0:
        part = max(1, len(means) // 10)
        first, last = means[:part].mean(), means[-part:].mean()
        fall = (first - last) / abs(first) if first else 0.0
        if fall >= MIN_FALL and stats.spearmanr(np.arange(len(means)), means).statistic <= -MIN_TREND:
            line = (
                f"the mean falls by {fall:.0%}, from {first:.4g} to {last:.4g}, over {number}; `training.rescale: "
                "true` and `prediction.rescale: true` help where the contrast falls alike"
            )
            findings.append(Finding("bleaching", float(fall), line))
    return findings
