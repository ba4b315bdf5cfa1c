"""What people would pick instead: one module a method, all run alike.

Each module has ``fit(images, targets)``, which may look at all images and returns a function that denoises one
(C, ...) in its own units, and a description of what was chosen.
"""

import json
import time
from importlib import import_module
from pathlib import Path

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_canonical, write_image
from dvlae.data.manifest import read_manifest
from dvlae.evaluation.register import Targets
from dvlae.runs.folder import RunFolder
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_file, atomic_folder
from dvlae.system.progress import progress
from dvlae.system.software import software

BASELINES = ("noisy", "gaussian", "bm3d")


def run_baseline(
    method: str, images: Path, output: Path, *, settings: EvaluationSettings, targets: Path | None = None
) -> None:
    """Denoise all images of a dataset with a simple method.

    Writes one TIFF an image, named as the noisy one, and ``baseline.json`` beside the folder: what was chosen, whether
    that took the clean images (``oracle``), the seconds it took, and the versions.

    Parameters
    ----------
    method
        One of ``BASELINES``.
    images
        Folder of canonical images, with ``manifest.csv``.
    output
        Folder to make.
    settings
        How the dataset is evaluated: what a method that has to choose a parameter chooses it by.
    targets
        What ``dvlae register`` wrote for the same images and settings; None: each clean image is registered here.

    Raises
    ------
    UserError
        Where there is no such method, or ``targets`` are those of other images or settings.
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
    with atomic_file(RunFolder(Path(output).parent).baseline_record) as path:
        path.write_text(json.dumps(description, indent=2) + "\n")
