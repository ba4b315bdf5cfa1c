"""What is odd in a sequence of frames: blank and repeated ones, and a mean that falls."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from dvlae.data.defects.frames import ExaminedFrame
from dvlae.evaluation.findings.finding import Finding
from dvlae.system.arrays import frame_bands
from dvlae.system.wording import count, list_names

MIN_TREND_FRAMES = 6
MIN_TREND = 0.8  # Spearman's rank correlation
MIN_FALL = 0.05


@dataclass(frozen=True)
class FrameIdentity:
    """What tells frames of a sequence apart. Only pixels that count are looked at.

    Attributes
    ----------
    name
        Name of the image.
    digest
        A hash of the values.
    mean
        Mean grey value; NaN if no pixel counts.
    problem
        Why no model can use the frame, as of :class:`dvlae.data.defects.frames.ExaminedFrame`; empty if one can.
    """

    name: str
    digest: bytes
    mean: float
    problem: str


def identify_frame(name: str, frame: ExaminedFrame) -> FrameIdentity:
    """Hash a frame, and measure how bright it is.

    Parameters
    ----------
    name
        Name of the image.
    frame
        The image.

    Returns
    -------
    FrameIdentity
        A few bytes.
    """
    noisy, mask, learned = frame.noisy, frame.mask, frame.learned
    digest, total, number = hashlib.blake2b(digest_size=16, salt=str(noisy.shape).encode()[:16]), 0.0, 0
    for channel, band in frame_bands(noisy.shape, noisy, mask, learned):
        values = noisy[channel, band]
        digest.update(np.ascontiguousarray(values if mask is None else np.where(mask[band], values, 0)).data)
        counted = values if learned is None else values[learned[channel, band]]
        total, number = total + float(counted.sum(dtype=np.float64)), number + counted.size
    return FrameIdentity(name, digest.digest(), total / number if number else np.nan, frame.problem)


def compare_sequence(frames: Sequence[FrameIdentity], total: int) -> list[Finding]:
    """Look for frames that show nothing, for repeated ones, and for a mean that falls.

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
    number = count(len(frames), "frame") if len(frames) == total else f"{len(frames)} examined frames, of {total},"
    findings = []
    shown = [frame for frame in frames if not frame.problem]
    for problem in sorted({frame.problem for frame in frames} - {""}):
        names = [frame.name for frame in frames if frame.problem == problem]
        line = (
            f"{len(names)} of {number} {'is' if len(names) == 1 else 'are'} {problem}: {list_names(names)}; nothing is "
            "learned from them; `evaluation.images` leaves them out"
        )
        findings.append(Finding(f"{problem} frames", len(names), line))
    originals: dict[bytes, str] = {}
    copies = [
        f"{frame.name} of {original}"
        for frame in shown
        if (original := originals.setdefault(frame.digest, frame.name)) != frame.name
    ]
    if copies:
        what = "is a copy" if len(copies) == 1 else "are copies"
        line = (
            f"{len(copies)} of {number} {what}: {list_names(copies)}; `training.images` and `evaluation.images` leave "
            "them out"
        )
        findings.append(Finding("duplicate frames", len(copies), line))
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
