"""Denoise the images of a dataset with a method that trains nothing."""

import time
from importlib import import_module
from pathlib import Path
from typing import get_args

from dvlae.config.dataset import EvaluationSettings
from dvlae.config.fields import Baseline
from dvlae.data.manifest import read_manifest
from dvlae.data.outputs.folder import OutputFolder
from dvlae.data.outputs.reading import NOISY_MARK, NOISY_TEXT, OUTPUT_FILES
from dvlae.evaluation.each_image import choose_image_workers, iterate_images
from dvlae.evaluation.register import Targets
from dvlae.methods.task import Task
from dvlae.runs.folder import RunFolder
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder, check_folder, write_json
from dvlae.system.parts import WHOLE, Part
from dvlae.system.software import software

BASELINES = get_args(Baseline)
# Memory that BM3D needs for each value of the plane that it filters, measured.
BM3D_BYTES_PER_PLANE_VALUE = 600


def run_baseline(
    method: str,
    images: Path,
    output: Path,
    *,
    settings: EvaluationSettings,
    targets: Path | None = None,
    part: Part = WHOLE,
    cores: int | None = None,
) -> None:
    """Denoise all images of a dataset with a simple method.

    It writes one TIFF file per source, with the name of the noisy one; of the method ``noisy``, a note instead of
    copies of the noisy images. ``baseline.json``, next to the folder, records the chosen parameters, whether the choice
    used the clean images (``oracle``), the seconds it took, and the versions.

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
    part
        Denoise only the images of this part; all parts are joined by :func:`dvlae.runs.gather.gather`. The parameters
        are chosen with all images, so they are the same for every part.
    cores
        Cores that the step may use; None: all that this process may use.

    Raises
    ------
    UserError
        If there is no such method, or ``targets`` belongs to other images or settings.
    """
    if method not in BASELINES:
        raise UserError(f"baseline: found {method!r}, allowed: {', '.join(BASELINES)}")
    check_folder(output, OUTPUT_FILES)
    start = time.monotonic()
    manifest = read_manifest(images)
    aligned = Targets(settings, targets)
    plane = BM3D_BYTES_PER_PLANE_VALUE if method == "bm3d" else 0
    workers = choose_image_workers(method, manifest, cores, bytes_per_plane_value=plane)
    task = Task(
        images=manifest,
        targets=aligned,
        noise_direction="none",
        noise={},
        settings={},
        seed=0,
        minutes=0,
        workers=workers,
        device="cpu",
        folder=Path(output).parent,
    )
    fitted = import_module(f"dvlae.methods.filters.{method}").fit(task)
    with atomic_folder(output, OUTPUT_FILES) as folder:
        if method == "noisy":
            (folder / NOISY_MARK).write_text(NOISY_TEXT, encoding="utf-8", newline="\n")
        else:
            chosen = part.share(manifest)
            results = OutputFolder(folder, chosen)
            estimates = iterate_images(fitted.denoise, chosen, workers, description=method)
            for image, estimate in zip(chosen, estimates, strict=True):
                results.write(image, estimate)
            results.report.log(method)
    seconds = round(time.monotonic() - start, 1)
    description = {"method": method, **fitted.description, "seconds": seconds, **part.record(), **software()}
    write_json(RunFolder(Path(output).parent).baseline_record, description)
