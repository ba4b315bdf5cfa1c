"""Which method was best in a comparison, on noise like that of a dataset.

The comparisons are in ``results/reference``: tables of the workflow for real and for simulated noise.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dvlae.system.errors import UserError
from dvlae.system.software import shipped_reference

# Real noise comes first: of two that are equally near, the first one counts.
REFERENCES = ("fair_sem", "fair_kodak", "fair_sweep")
NOISE_COLUMNS = ["dataset", "direction", "correlation_length", "noise_level"]
# Noise differs too much from that of a comparison if its correlation length or its level is twice as large or half as
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


def advise(found: Mapping[str, Any], references: Sequence[Path] | None = None) -> str | None:
    """Say which method was best on noise like this.

    Parameters
    ----------
    found
        The result of :func:`dvlae.evaluation.diagnosis.measure_noise`.
    references
        Folders with the tables of comparisons; None: those that are shipped with this package.

    Returns
    -------
    str or None
        One line: the best of our own methods against the best of the others, of those that need noisy images only; None
        if the noise cannot be told, or nothing was compared on noise like it.
    """
    length, level = found["correlation_length"], found["noise_level"]
    if length is None or not level:
        return None
    folders = references if references is not None else [shipped_reference() / name for name in REFERENCES]
    # While a comparison is made, the folder has its finished runs, and no tables yet.
    tables = [pd.read_csv(one / "noise.csv").assign(folder=one) for one in folders if (one / "noise.csv").is_file()]
    if not tables:
        return None
    noise = pd.concat(tables, ignore_index=True).dropna(subset=["correlation_length", "noise_level"])
    lengths, levels = (1 + noise.correlation_length) / (1 + length), noise.noise_level / level
    distances = np.maximum(np.abs(np.log2(lengths)), np.abs(np.log2(levels)))
    if not (distances <= np.log2(MAX_RATIO)).any():
        return None
    nearest = noise.loc[distances.idxmin()]
    methods = _rank(nearest.folder, nearest.dataset)
    own = methods.method.str.startswith("dvlae-")
    best = [*methods.method[own][:1], *methods.method[~own][:1]]
    pairs = pd.read_csv(nearest.folder / "comparisons.csv")
    pairs = pairs[(pairs.dataset == nearest.dataset) & pairs.method.isin(best) & pairs.other.isin(best)]
    if pairs.empty:
        return None
    return (
        f"of {len(methods)} methods that need noisy images only, on similar noise ({nearest.dataset} in "
        f"results/reference/{nearest.folder.name}: correlation length {nearest.correlation_length:.0f} px, standard "
        f"deviation {nearest.noise_level:.0%} of the span of grey values, {methods.minutes.max():g} minutes of "
        f"training), the best of ours and the best of the others: {pairs.conclusion.iloc[0]}; docs/comparison.md has "
        "other noise"
    )


def _rank(reference: Path, dataset: str) -> pd.DataFrame:
    """Return the methods that need noisy images only, the best first."""
    methods, summary = (pd.read_csv(reference / f"{name}.csv") for name in ("methods", "summary"))
    blind = methods[(methods.dataset == dataset) & methods.sees.eq("noisy") & methods.oracle.eq(False)]
    psnr = summary[(summary.dataset == dataset) & summary.psnr.notna()][["method", "psnr"]]
    return blind.merge(psnr, on="method").sort_values("psnr", ascending=False, kind="stable")
