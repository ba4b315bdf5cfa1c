"""Simple methods to compare with, one module per method.

Each module has ``fit(images, targets)``, which may use all images. It returns a function that denoises one image
(C, ...) in its units, and a description of the chosen parameters.
"""

import time
from importlib import import_module
from pathlib import Path

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_canonical, write_image
from dvlae.data.manifest import read_manifest
from dvlae.evaluation.register import Targets
from dvlae.runs.folder import RunFolder
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder, write_json
from dvlae.system.progress import progress
from dvlae.system.software import software

BASELINES = ("noisy", "gaussian", "bm3d")


def run_baseline(
    method: str, images: Path, output: Path, *, settings: EvaluationSettings, targets: Path | None = None
) -> None:
    """Denoise all images of a dataset with a simple method.

    It writes one TIFF file per image, with the name of the noisy one. ``baseline.json``, next to the folder, records
    the chosen parameters, whether the choice used the clean images (``oracle``), the seconds it took, and the versions.

    Parameters
    ----------
    method
        One of ``BASELINES``.
    images
        Folder of canonical images, with ``manifest.csv``.
    output
        Folder to make.
    settings
        How the dataset is evaluated. Methods choose their parameters by the same evaluation.
    targets
        The output of ``dvlae register`` for the same images and settings. If None, each clean image is registered here.

    Raises
    ------
    UserError
        If there is no such method, or ``targets`` belongs to other images or settings.
    """
    if method not in BASELINES:
        raise UserError(f"baseline: found {method!r}, allowed: {', '.join(BASELINES)}")
    start = time.monotonic()
    manifest = read_manifest(images)
    aligned = Targets(settings, targets)
    denoise, description = import_module(f"dvlae.evaluation.baselines.{method}").fit(manifest, aligned)
    with atomic_folder(output) as folder:
        for image in progress(manifest, description=method, unit="image"):
            write_image(folder / f"{image.name}.tif", denoise(read_canonical(image.noisy)))
    description = {"method": method, **description, "seconds": round(time.monotonic() - start, 1), **software()}
    write_json(RunFolder(Path(output).parent).baseline_record, description)
