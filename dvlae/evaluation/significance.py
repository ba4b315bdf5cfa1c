"""Statistical tests of whether one method is better than another, paired over the images that both denoised."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence, Set

import numpy as np
import pandas as pd
from scipy import stats

SIGNIFICANCE_LEVEL = 0.05
CONFIDENCE_LEVEL = 0.95
RESAMPLES = 9999
# An effect counts where it exceeds this many standard errors over seeds.
MIN_EFFECT_SEED_ERRORS = 2.0

COMPARISON_COLUMNS = [
    "dataset", "method", "other", "effect", "effect_low", "effect_high", "p", "p_holm", "ahead", "images", "seed_error",
    "verdict", "conclusion",
]  # fmt: skip


def bootstrap_interval(samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray]) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a statistic of paired samples.

    Parameters
    ----------
    samples
        Arrays (N,) with one value per image, in the same order. Images are resampled with replacement, the same ones
        for all arrays.
    statistic
        A function of the samples and ``axis``.

    Returns
    -------
    tuple
        Bounds of the interval of :data:`CONFIDENCE_LEVEL`; NaN for fewer than two images.
    """
    if len(samples[0]) < 2:
        return math.nan, math.nan
    interval = stats.bootstrap(
        samples,
        statistic,
        paired=True,
        n_resamples=RESAMPLES,
        batch=1000,
        method="percentile",
        confidence_level=CONFIDENCE_LEVEL,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def spread(psnr: pd.DataFrame) -> tuple[float, float, float]:
    """Return the difference between the best and the worst method, with its bootstrap interval over images.

    Parameters
    ----------
    psnr
        One row per image, one column per method, in decibels.

    Returns
    -------
    tuple
        Largest minus smallest mean over images, and the bounds of its interval, in decibels; NaN for a single method.
        Each resample has its own best and worst method. The difference is never negative, and it is positive even for
        equally good methods.
    """

    def largest_difference(*columns: np.ndarray, axis: int) -> np.ndarray:
        return np.ptp([column.mean(axis) for column in columns], axis=0)

    columns = [psnr[name].to_numpy() for name in psnr]
    if len(columns) < 2:
        return math.nan, math.nan, math.nan
    return float(largest_difference(*columns, axis=0)), *bootstrap_interval(columns, largest_difference)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Correct p values for their number (Holm, Scandinavian Journal of Statistics 6, 1979).

    Parameters
    ----------
    p_values
        One per test.

    Returns
    -------
    numpy.ndarray
        The corrected p values, in the same order.
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values)
    scaled = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return corrected


def wilcoxon(differences: np.ndarray) -> float:
    """Return the two-sided p value of Wilcoxon's signed-rank test; 1 if no image differs.

    Parameters
    ----------
    differences
        One per image.

    Returns
    -------
    float
        Between 0 and 1.
    """
    return float(stats.wilcoxon(differences).pvalue) if np.any(differences) else 1.0


def compare(psnr: pd.DataFrame, seed_errors: Mapping[str, float], at_limit: Set[str] = frozenset()) -> pd.DataFrame:
    """Compare each pair of methods on the images of one dataset.

    Parameters
    ----------
    psnr
        One row per image, one column per method: the mean over its seeds, in decibels.
    seed_errors
        Standard error of each method's mean over images due to its seeds, in decibels; NaN if it is unknown, because
        there is only one seed.
    at_limit
        The methods whose PSNR is limited by the noise of the clean images.

    Returns
    -------
    pandas.DataFrame
        One row per pair, the better one as ``method``, the best pairs first. ``effect`` is the mean difference in
        decibels, with its bootstrap interval. ``p`` is that of Wilcoxon's test, ``p_holm`` is corrected for the number
        of pairs. ``ahead`` is the number of images, of ``images``, on which ``method`` has the higher PSNR: a mean may
        be due to a few of them. ``seed_error`` is the standard error of the effect due to the seeds. ``verdict`` is
        ``better``, ``same`` (no difference seen), ``limit`` (none seen, and both methods are at the limit), ``seeds``
        (a difference within the scatter of the seeds) or ``few`` (too few images to decide).
    """
    ranked = psnr.mean().sort_values(ascending=False, kind="stable").index
    pairs = list(itertools.combinations(ranked, 2))
    differences = [(psnr[one] - psnr[other]).to_numpy() for one, other in pairs]
    p_values = [wilcoxon(difference) for difference in differences]
    rows = []
    for (one, other), difference, p, p_holm in zip(pairs, differences, p_values, holm(p_values), strict=True):
        low, high = bootstrap_interval([difference], np.mean)
        row = {"method": one, "other": other, "effect": difference.mean(), "effect_low": low, "effect_high": high}
        row |= {"p": p, "p_holm": p_holm, "ahead": np.count_nonzero(difference > 0), "images": len(difference)}
        row["seed_error"] = math.hypot(seed_errors[one], seed_errors[other])
        row["verdict"] = _judge(row, len(pairs))
        if row["verdict"] == "same" and {one, other} <= at_limit:
            row["verdict"] = "limit"
        rows.append(row | {"conclusion": _conclude(row)})
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS[1:])


def _judge(row: Mapping, pairs: int) -> str:
    # With so few images, not even the same sign for all of them is significant.
    if 2.0 ** (1 - row["images"]) * pairs > SIGNIFICANCE_LEVEL:
        return "few"
    if row["p_holm"] >= SIGNIFICANCE_LEVEL or row["effect_low"] <= 0:
        return "same"
    return "seeds" if row["effect"] < MIN_EFFECT_SEED_ERRORS * row["seed_error"] else "better"


def _conclude(row: Mapping) -> str:
    one, other, effect = row["method"], row["other"], decibels(row["effect"])
    bounds = interval(row["effect_low"], row["effect_high"])
    evidence = f"{CONFIDENCE_LEVEL:.0%} interval {bounds} dB, p = {row['p_holm']:.1g}"
    return {
        "better": f"{one} is better than {other} by {effect} dB ({evidence})",
        "same": f"no difference seen between {one} and {other} ({effect} dB, {evidence})",
        "limit": f"no difference seen between {one} and {other} ({effect} dB, {evidence}), but noise of the clean "
        "images may hide one",
        "seeds": f"{one} is better than {other} by {effect} dB on these images ({evidence}), but that is within the "
        f"scatter of the seeds ({decibels(row['seed_error'])} dB)",
        "few": f"{row['images']} images are too few to tell whether {one} is better than {other} (by {effect} dB on "
        f"average, and on {row['ahead']} of {row['images']})",
    }[row["verdict"]]


def decibels(value: float) -> str:
    """Format a difference in decibels with two decimals, or three if it is small.

    Parameters
    ----------
    value
        In decibels.

    Returns
    -------
    str
        The number without the unit.
    """
    return f"{value:.2f}" if abs(value) >= 0.095 else f"{value:.3f}"


def interval(low: float, high: float) -> str:
    """Format an interval in decibels, with as many decimals as its bounds need to differ.

    Parameters
    ----------
    low
        The lower bound, in decibels; NaN for no interval.
    high
        The upper bound, in decibels.

    Returns
    -------
    str
        For example ``0.10 to 0.25``; empty for no interval.
    """
    if math.isnan(low):
        return ""
    decimals = 2 if high - low >= 0.1 else 3
    return f"{low:.{decimals}f} to {high:.{decimals}f}"
