"""The files of a run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dvlae.system.errors import UserError

PSNR_COLUMNS = ("dataset", "method", "receptive_field", "seed", "image", "psnr", "ssim", "psnr_noisy")


def read_psnr(path: Path) -> pd.DataFrame:
    """Read one table of :func:`dvlae.evaluation.evaluate`.

    Raises
    ------
    UserError
        Where it is missing or has other columns.
    """
    try:
        # An image may be called NA; numbers that are missing are empty.
        texts = {"dataset": str, "method": str, "image": str}
        table = pd.read_csv(path, dtype=texts | {"receptive_field": "Int64"}, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a table of dvlae evaluate ({error})") from None
    if list(table.columns) != list(PSNR_COLUMNS) or table.empty:
        raise UserError(
            f"{path}: found columns {list(table.columns)} and {len(table)} rows, expected {list(PSNR_COLUMNS)}"
        )
    return table


@dataclass(frozen=True)
class Run:
    """One method on one dataset with one seed.

    Attributes
    ----------
    folder
        Holds ``psnr.csv``, ``denoised/`` and, for a trained model, ``uncertainty/`` and ``model/``.
    psnr
        One row an image.
    """

    folder: Path
    dataset: str
    method: str
    receptive_field: int | None
    seed: int
    psnr: pd.DataFrame

    @classmethod
    def read(cls, psnr_csv: Path) -> "Run":
        """Read the table of :func:`dvlae.evaluation.evaluate`, and remember where it stood."""
        table = read_psnr(psnr_csv)
        first = table.iloc[0]
        field = None if pd.isna(first.receptive_field) else int(first.receptive_field)
        return cls(Path(psnr_csv).parent, first.dataset, first.method, field, int(first.seed), table)

    @property
    def short_label(self) -> str:
        """The method, in a word or two."""
        if self.receptive_field is not None:
            return f"DVLAE {self.receptive_field} px"
        return {"gaussian": "Gaussian", "bm3d": "BM3D"}.get(self.method, self.method)

    @property
    def label(self) -> str:
        """The method, in words."""
        if self.receptive_field is not None:
            return f"DVLAE, receptive field {self.receptive_field} px"
        return {"noisy": "noisy image", "gaussian": "Gaussian filter", "bm3d": "BM3D"}.get(self.method, self.method)


def best_run(runs: Sequence[Run]) -> Run:
    """Choose the run to show: DVLAE before baselines, then the best PSNR, then the larger receptive field."""

    def rank(run: Run) -> tuple:
        psnr = run.psnr.psnr.mean()
        return (
            run.receptive_field is not None,
            run.method != "noisy",
            -math.inf if math.isnan(psnr) else psnr,
            run.receptive_field or 0,
            -run.seed,
        )

    return max(runs, key=rank)
