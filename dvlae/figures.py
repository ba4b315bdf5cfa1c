"""The pictures: comparison panels, training curves, noise autocorrelation, ablation."""

from collections.abc import Mapping
from pathlib import Path

from dvlae.config import EvaluationSettings


def make_figures(
    psnr_csvs: list[Path],
    output: Path,
    *,
    images: Mapping[str, Path],
    settings: Mapping[str, EvaluationSettings],
) -> None:
    """Write every figure, each as PNG and SVG.

    ``panel_{dataset}``, ``noise_autocorrelation_{dataset}`` and, where models were trained, ``training_curves_{dataset}``
    for each dataset; ``receptive_field`` where a dataset has several receptive fields.

    Parameters
    ----------
    psnr_csvs
        One file a run; ``denoised/``, ``uncertainty/`` and ``model/history.csv`` are looked for beside it.
    output
        Folder for the pictures.
    images
        Folder of canonical images (with ``manifest.csv``) of each dataset.
    settings
        How each dataset is evaluated.
    """
    raise NotImplementedError
