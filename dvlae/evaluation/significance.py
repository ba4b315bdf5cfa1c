"""Is one method better than another, or is it noise? Paired over the images that both denoised."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

SIGNIFICANCE_LEVEL = 0.05
CONFIDENCE_LEVEL = 0.95
RESAMPLES = 9999
# An effect counts where it exceeds this many standard errors over seeds.
MIN_EFFECT_SEED_ERRORS = 2.0

COMPARISON_COLUMNS = [
    "dataset", "method", "other", "effect", "effect_low", "effect_high", "p", "p_holm", "images", "seed_error",
    "verdict", "conclusion",
]  # fmt: skip


def bootstrap_interval(samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray]) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a statistic of paired samples.

    Parameters
    ----------
    samples
        Arrays (N,), one value an image, in the same order of images. Images are drawn with replacement, the same ones
        for all arrays.
    statistic
        Takes the samples and ``axis``.

    Returns
    -------
    tuple
        Bounds of the interval of :data:`CONFIDENCE_LEVEL`; NaN where there are fewer than two images.
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
    """Return how far the best and the worst column lie apart, with its bootstrap interval over images.

    Parameters
    ----------
    psnr
        One row an image, one column a method, in decibel.

    Returns
    -------
    tuple
        Largest less smallest mean over images, and the bounds of its interval, in decibel; NaN for a single column.
        Best and worst are chosen anew in each resample. As a largest difference it is never negative, and above zero
        even of equal methods.
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
        One for each test.

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
    """Return the two-sided p value of Wilcoxon's signed-rank test; 1 where no image differs.

    Parameters
    ----------
    differences
        One for each image.

    Returns
    -------
    float
        Between 0 and 1.
    """
    return float(stats.wilcoxon(differences).pvalue) if np.any(differences) else 1.0


def compare(psnr: pd.DataFrame, seed_errors: Mapping[str, float]) -> pd.DataFrame:
    """Compare every two methods on the images of one dataset.

    Parameters
    ----------
    psnr
        One row an image, one column a method: the mean over its seeds, in decibel.
    seed_errors
        Standard error of each method's mean over images that comes from its seeds, in decibel; NaN where it is trained
        with one seed only, so that it is not known.

    Returns
    -------
    pandas.DataFrame
        One row a pair, the better one as ``method``, best pairs first: ``effect`` is the mean difference in decibel,
        with its bootstrap interval; ``p`` is Wilcoxon's, ``p_holm`` corrected for the number of pairs; ``seed_error``
        is the standard error of the effect that comes from the seeds; ``verdict`` is ``better``, ``same`` (no
        difference seen), ``seeds`` (a difference, within the scatter of the seeds) or ``few`` (too few images to tell).
    """
    ranked = psnr.mean().sort_values(ascending=False, kind="stable").index
    pairs = list(itertools.combinations(ranked, 2))
    differences = [(psnr[one] - psnr[other]).to_numpy() for one, other in pairs]
    p_values = [wilcoxon(difference) for difference in differences]
    rows = []
    for (one, other), difference, p, p_holm in zip(pairs, differences, p_values, holm(p_values), strict=True):
        low, high = bootstrap_interval([difference], np.mean)
        row = {"method": one, "other": other, "effect": difference.mean(), "effect_low": low, "effect_high": high}
        row |= {"p": p, "p_holm": p_holm, "images": len(difference)}
        row["seed_error"] = math.hypot(seed_errors[one], seed_errors[other])
        row["verdict"] = _judge(row, len(pairs))
        rows.append(row | {"conclusion": _conclude(row)})
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS[1:])


def _judge(row: Mapping, pairs: int) -> str:
    if 2.0 ** (1 - row["images"]) * pairs > SIGNIFICANCE_LEVEL:  # not even if every image spoke for the same method
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
        "seeds": f"{one} is better than {other} by {effect} dB on these images ({evidence}), but that is within the "
        f"scatter of the seeds ({decibels(row['seed_error'])} dB)",
        "few": f"{row['images']} images are too few to tell whether {one} is better than {other} ({effect} dB)",
    }[row["verdict"]]


def decibels(value: float) -> str:
    """Write a difference in decibel with two decimals, a small one with three.

    Parameters
    ----------
    value
        In decibel.

    Returns
    -------
    str
        Without the unit.
    """
    return f"{value:.2f}" if abs(value) >= 0.095 else f"{value:.3f}"


def interval(low: float, high: float) -> str:
    """Write an interval in decibel with as many decimals as tell its bounds apart; nothing where there is none.

    Parameters
    ----------
    low
        The lower bound, in decibel.
    high
        The upper bound, in decibel.

    Returns
    -------
    str
        Such as ``0.10 to 0.25``.
    """
    if math.isnan(low):
        return ""
    decimals = 2 if high - low >= 0.1 else 3
    return f"{low:.{decimals}f} to {high:.{decimals}f}"
