"""Columns or rows that differ from their neighbours alike in all frames.

The offsets of a detector's columns or rows are such stripes, and go through the whole image. A sample that is the same
in all frames may show such stripes, too, as layers or straight fibres do. Only frames that show different scenes tell
the one from the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dvlae.evaluation.findings.finding import Finding
from dvlae.evaluation.noise_samples import FOURTH_DIFFERENCE, WINDOW
from dvlae.evaluation.noise_statistics import robust_variance

BANDS = 4  # in each of which a stripe is seen
# Of a line in a band, and of a block: with fewer pixels that count, they say nothing.
MIN_SHARE = 0.5
MIN_LINES = 8  # that two bands have in common
# The strength of fixed stripes, in standard deviations of the noise.
MIN_STRENGTH = 0.05
MIN_SIGNIFICANCE = 3.0  # in standard errors
# The part of all stripes of a frame that is fixed.
MIN_FIXED = 0.5
# The correlation of the stripes in two bands: what the scene shows along a line ends somewhere, or bends.
MIN_THROUGH = 0.5

# Sides of the squares by which scenes are compared, in pixels, and how many of them are a larger one along each axis.
BLOCK, LARGER = 8, 4
MIN_BLOCKS = 12
# The variance of larger squares, as a part of that of smaller ones: 1/16 for white noise, about 1 for a scene.
MIN_SCENE = 0.25


@dataclass(frozen=True)
class Profile:
    """How columns, or rows, of a frame differ from their neighbours.

    Attributes
    ----------
    lines
        The median deviation of each line, in each of some bands across them, (bands, lines); NaN where too few pixels
        count, and at the border.
    noise
        Standard deviation of the noise.
    """

    lines: np.ndarray
    noise: float

    @property
    def without_alternation(self) -> "Profile":
        """The same where every second line is as bright, on average, as the others."""
        lines = self.lines.copy()
        for start in (0, 1):
            told = np.isfinite(lines[:, start::2])
            total = lines[:, start::2].sum(axis=1, where=told, keepdims=True)
            lines[:, start::2] -= total / np.maximum(1, told.sum(axis=1, keepdims=True))
        return Profile(lines, self.noise)


def measure_profile(plane: np.ndarray, axis: int) -> Profile:
    """Measure how lines differ from their neighbours.

    Parameters
    ----------
    plane
        (Y, X); NaN where a pixel does not count.
    axis
        -1 to compare columns, -2 to compare rows.

    Returns
    -------
    Profile
        Of all lines.
    """
    filtered = filter_lines(plane, axis)
    noise = math.sqrt(robust_variance(filtered))
    lines = np.moveaxis(filtered, axis, 0)  # (lines, pixels)
    counts = np.isfinite(lines)
    medians = np.full((BANDS, len(lines)), np.nan)
    if not counts.any():
        return Profile(medians, noise)
    pixels, shown = (np.flatnonzero(counts.any(axis=across)) for across in (0, 1))
    # Lines at the border are often odd.
    inner = np.arange(shown[0] + WINDOW, shown[-1] + 1 - WINDOW)
    for median, band in zip(medians, np.array_split(np.arange(pixels[0], pixels[-1] + 1), BANDS), strict=True):
        told = inner[counts[np.ix_(inner, band)].mean(axis=1) >= MIN_SHARE]
        median[told] = np.nanmedian(lines[np.ix_(told, band)], axis=1)
    return Profile(medians, noise)


def filter_lines(plane: np.ndarray, axis: int) -> np.ndarray:
    """Return the difference of each pixel from its neighbours along an axis, in which noise keeps its variance.

    Parameters
    ----------
    plane
        (Y, X); NaN where a pixel does not count.
    axis
        -1 or -2.

    Returns
    -------
    numpy.ndarray
        (Y, X); NaN where one of five pixels does not count.
    """
    return ndimage.correlate1d(plane, FOURTH_DIFFERENCE, axis=axis)


def block_means(values: np.ndarray, side: int) -> np.ndarray:
    """Return the means of squares.

    Parameters
    ----------
    values
        (..., Y, X); NaN does not count.
    side
        Side of a square, in pixels. What is left over at the ends of the axes does not count.

    Returns
    -------
    numpy.ndarray
        (..., Y, X), in squares; NaN where less than half of the values count.
    """
    *leading, height, width = values.shape
    rows, columns = height // side, width // side
    squares = values[..., : rows * side, : columns * side].reshape(*leading, rows, side, columns, side)
    counts = np.isfinite(squares)
    number = counts.sum(axis=(-3, -1))
    means = squares.sum(axis=(-3, -1), where=counts) / np.maximum(1, number)
    return np.where(number >= MIN_SHARE * side**2, means, np.nan)


def find_fixed_stripes(profiles: Sequence[Profile], blocks: Sequence[np.ndarray], kind: str) -> Finding | None:
    """Look for stripes that are the same in all frames.

    Parameters
    ----------
    profiles, blocks
        For each frame, the differences of its lines, and the means of squares, as :func:`block_means` returns them.
        Frames of other sizes than most are left out.
    kind
        ``columns`` or ``rows``.

    Returns
    -------
    Finding or None
        None if there are none.
    """
    lengths = [profile.lines.shape for profile in profiles]
    same = [number for number, length in enumerate(lengths) if length == max(lengths, key=lengths.count)]
    number = len(same)
    if number < 2:
        return None
    lines = np.array([profiles[each].lines for each in same])  # (frames, bands, lines)
    noise = float(np.mean([profiles[each].noise for each in same]))
    told = np.isfinite(lines).all(axis=0)
    values = np.where(told, lines, 0.0)
    means = values.sum(axis=-1, keepdims=True) / np.maximum(1, told.sum(axis=-1, keepdims=True))
    values = np.where(told, values - means, 0.0)
    common = (told[:, None] & told).sum(axis=-1)
    # Between two bands of one frame, and of the mean of all frames, which has 1 / number of what changes.
    each_frame = np.einsum("tal,tbl->ab", values, values) / np.maximum(1, common) / number
    mean = values.mean(axis=0)
    fixed = (mean @ mean.T / np.maximum(1, common) - each_frame / number) / (1 - 1 / number)
    compared = (common >= MIN_LINES) & ~np.eye(BANDS, dtype=bool)
    if not compared.any():
        return None
    weakest = np.unravel_index(np.argmin(np.where(compared, fixed, np.inf)), fixed.shape)
    strength = math.sqrt(max(0.0, fixed[weakest]))
    alone = math.sqrt(np.prod([max(0.0, fixed[band, band]) for band in weakest]))
    # The filter correlates about two neighbouring lines.
    spread = math.sqrt(np.prod([each_frame[band, band] for band in weakest]) * 2 / common[weakest])
    error = spread / math.sqrt(number * (number - 1))
    if strength <= MIN_STRENGTH * noise or fixed[weakest] < max(
        MIN_SIGNIFICANCE * error, MIN_FIXED * each_frame[weakest], MIN_THROUGH * alone
    ):
        return None
    shapes = [each.shape for each in blocks]
    compared_blocks = [each for each in blocks if each.shape == max(shapes, key=shapes.count)]
    why = "no key corrects this: correct the offset of the detector before `dvlae prepare`"
    if not scenes_differ(np.array(compared_blocks)):
        why = (
            "this may be the detector, whose offset is to be corrected before `dvlae prepare`, or the sample, such as "
            "layers or straight fibres, as the images do not show different scenes"
        )
    return Finding(
        f"fixed stripes ({kind})",
        strength,
        f"the {kind} differ by {strength:.3g} grey values ({strength / noise:.2g} standard deviations of the noise) "
        f"alike in all {number} images; {why}",
    )


def scenes_differ(blocks: np.ndarray) -> bool:
    """Return whether frames show different scenes, which are told from noise by their size.

    Parameters
    ----------
    blocks
        Means of squares, (frames, Y, X).

    Returns
    -------
    bool
        False, too, if it cannot be told.
    """
    small, large = _variances(blocks), _variances(block_means(blocks, LARGER))
    return large[0] > max(large[1], MIN_SCENE * small[0])


def _variances(blocks: np.ndarray) -> tuple[float, float]:
    """Return the variance of what changes from frame to frame, and of what is fixed, without whole rows and columns."""
    number, told = len(blocks), np.isfinite(blocks).all(axis=0)
    if np.count_nonzero(told) < MIN_BLOCKS:
        return 0.0, 0.0
    values = np.where(told, blocks, 0.0)
    for axis in (-1, -2):
        means = values.sum(axis=axis, keepdims=True) / np.maximum(1, told.sum(axis=axis, keepdims=True))
        values = np.where(told, values - means, 0.0)
    total, of_mean = (values**2).mean(axis=0)[told].mean(), (values.mean(axis=0) ** 2)[told].mean()
    fixed = (of_mean - total / number) / (1 - 1 / number)
    return float(total - fixed), float(fixed)
