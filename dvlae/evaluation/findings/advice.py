"""Which method a comparison found best on noise like that of a dataset.

The comparison is in ``results/reference/fair_sweep``: the tables of the workflow for several kinds of noise.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dvlae.system.errors import UserError
from dvlae.system.software import shipped_reference

REFERENCE = "fair_sweep"
NOISE_COLUMNS = ["dataset", "direction", "correlation_length", "noise_level"]
# Noise differs too much from that of the comparison if its correlation length or its level is twice as large or half as
# large. As lengths may be 0, those are compared with one pixel added.
MAX_RATIO = 2.0


def tabulate_noise(noise: Mapping[str, Path]) -> pd.DataFrame:
    """Gather what the noise of each dataset is like.

    Parameters
    ----------
    noise
        The output of ``dvlae diagnose`` for each dataset.

    Returns
    -------
    pandas.DataFrame
        One row per dataset: the direction, the correlation length in pixels, and the standard deviation relative to the
        span of grey values. What cannot be told is missing.

    Raises
    ------
    UserError
        If a file is missing or is not such an output.
    """
    rows = []
    for name, path in noise.items():
        try:
            found = json.loads(path.read_text(encoding="utf-8-sig"))
            rows.append([name, *(found[column] for column in NOISE_COLUMNS[1:])])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not what dvlae diagnose writes ({error!r}); run it again") from None
    return pd.DataFrame(rows, columns=NOISE_COLUMNS).astype({"correlation_length": "Int64", "noise_level": float})


def advise(found: Mapping[str, Any], reference: Path | None = None) -> str | None:
    """Say which method was best on noise like this.

    Parameters
    ----------
    found
        The result of :func:`dvlae.evaluation.diagnosis.measure_noise`.
    reference
        Folder with the tables of a comparison; None: those that are shipped with this package.

    Returns
    -------
    str or None
        One line: the two best of the methods that need noisy images only; None if the noise cannot be told, or nothing
        was compared on noise like it.
    """
    reference = reference or shipped_reference() / REFERENCE
    length, level = found["correlation_length"], found["noise_level"]
    # While a comparison is made, the folder has its finished runs, and no tables yet.
    if length is None or not level or not (reference / "noise.csv").is_file():
        return None
    noise = pd.read_csv(reference / "noise.csv").dropna(subset=["correlation_length", "noise_level"])
    lengths, levels = (1 + noise.correlation_length) / (1 + length), noise.noise_level / level
    distances = np.maximum(np.abs(np.log2(lengths)), np.abs(np.log2(levels)))
    if not (distances <= np.log2(MAX_RATIO)).any():
        return None
    nearest = noise.loc[distances.idxmin()]
    methods = _rank(reference, nearest.dataset)
    pairs = pd.read_csv(reference / "comparisons.csv")
    pairs = pairs[(pairs.dataset == nearest.dataset) & pairs.method.isin(methods[:2]) & pairs.other.isin(methods[:2])]
    if pairs.empty:
        return None
    return (
        f"of {len(methods)} methods that need noisy images only (of ours, the best one), on similar noise "
        f"({nearest.dataset} in results/reference/{REFERENCE}: correlation length {nearest.correlation_length:.0f} px, "
        f"standard deviation {nearest.noise_level:.0%} of the span of grey values), {pairs.conclusion.iloc[0]}; "
        "docs/comparison.md has other noise"
    )


def _rank(reference: Path, dataset: str) -> list[str]:
    """Return the methods that need noisy images only, the best first; of our own, only the best one."""
    methods, summary = (pd.read_csv(reference / f"{name}.csv") for name in ("methods", "summary"))
    blind = methods[(methods.dataset == dataset) & methods.sees.eq("noisy") & methods.oracle.eq(False)].method
    mine = summary[(summary.dataset == dataset) & summary.method.isin(blind) & summary.psnr.notna()]
    ranked = mine.sort_values("psnr", ascending=False, kind="stable").method
    own = ranked.str.startswith("dvlae-")
    return list(ranked[~own | (own.cumsum() == 1)])
