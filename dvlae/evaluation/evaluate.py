"""Compare the denoised images of one run with the clean ones, image by image."""

import logging
import math
from pathlib import Path

import numpy as np

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_clean, read_mask, read_noisy
from dvlae.data.manifest import Image
from dvlae.data.outputs.reading import read_output
from dvlae.evaluation.each_image import choose_image_workers, map_images
from dvlae.evaluation.register import Targets, evaluated_images, hash_pixels
from dvlae.runs.folder import DONE, PSNR_COLUMNS, RunFolder, read_json
from dvlae.system.errors import UserError
from dvlae.system.files import write_csv, write_json
from dvlae.system.hashes import combine_hashes, sha256
from dvlae.system.parts import WHOLE, Part
from dvlae.system.software import software

logger = logging.getLogger(__name__)


def evaluate(
    images: Path,
    denoised: Path,
    output: Path,
    *,
    dataset: str,
    method: str,
    receptive_field: int | None,
    seed: int,
    settings: EvaluationSettings,
    targets: Path | None = None,
    part: Part = WHOLE,
    cores: int | None = None,
) -> None:
    """Write the PSNR, in decibels, and the SSIM of each evaluated image.

    They are empty without a clean image or an estimate, and the SSIM also where there are fewer than 11 pixels along x
    or y.

    Parameters
    ----------
    images
        Folder of canonical images, with ``manifest.csv``.
    denoised
        Folder of estimates, one TIFF file per source, with the name and the units of the noisy one. It has none if
        ``method.json`` beside it says that the method is not done.
    output
        The table to write. Equal images give equal bytes. ``evaluation.json`` in the same folder records the settings,
        a hash of all images that were compared, a hash of ``targets``, and the versions of the software.
    dataset, method, receptive_field, seed
        Written into every row. ``receptive_field``, in pixels, is None for methods without one.
    settings
        How the dataset is evaluated, and on which images.
    targets
        The output of ``dvlae register`` for the same images and settings. If None, each clean image is registered here.
    part
        Evaluate only the images of this part. The record then contains the hash of each file; all parts are joined by
        :func:`dvlae.runs.gather.gather`.
    cores
        Cores that the step may use; None: all that this process may use.

    Raises
    ------
    UserError
        If an estimate is missing, is not finite, or differs in shape from the noisy image, or if ``targets`` belongs to
        other images or settings.
    """
    chosen = part.share(evaluated_images(images, settings))
    run = (dataset, method, "" if receptive_field is None else receptive_field, seed)
    aligned = Targets(settings, targets)
    workers = choose_image_workers("evaluate", chosen, cores)
    estimates = (
        denoised if read_json(RunFolder(Path(denoised).parent).method_record).get("status", DONE) == DONE else None
    )
    scores = map_images(lambda image: _score(image, estimates, aligned), chosen, workers, description="evaluate")
    rows = [(*run, image.name, *score) for image, (score, _) in zip(chosen, scores, strict=True)]
    hashes = [value for _, image_hashes in scores for value in image_hashes]
    record = {
        "settings": settings.model_dump(mode="json"),
        "images_sha256": combine_hashes(hashes) if part == WHOLE else hashes,
        "targets_sha256": None if targets is None else sha256(targets),
        **part.record(),
        **software(),
    }
    write_json(RunFolder(Path(output).parent).evaluation_record, record)
    write_csv(output, PSNR_COLUMNS, rows)
    logger.info("evaluate: %s, %s, seed %d: %s", dataset, method, seed, _describe(rows))


def read_estimate(denoised: Path, image: Image) -> np.ndarray:
    """Read the estimate of one image, (C, ...), from a folder of denoised images.

    Parameters
    ----------
    denoised
        Holds ``NAME.tif`` for each source, or for each image.
    image
        The image that was denoised.

    Returns
    -------
    numpy.ndarray
        The estimate, in the units of the noisy image.

    Raises
    ------
    UserError
        If it is missing, has another shape, or is not finite.
    """
    path, estimate = denoised / image.noisy.name, read_output(denoised, image)
    if estimate is None:
        raise UserError(f"{path}: not found, so {image.name!r} cannot be evaluated; denoise all images of the dataset")
    mask = read_mask(image)
    if not np.isfinite(estimate if mask is None else estimate[:, mask]).all():
        raise UserError(f"{path}: holds NaN or infinite values; the method failed on {image.name!r}")
    return estimate


def _score(image: Image, denoised: Path | None, targets: Targets) -> tuple[tuple[str, str, str], list[str]]:
    """Return the last columns of the table, and hashes of what was compared."""
    noisy = read_noisy(image)
    estimate = None if denoised is None else read_estimate(denoised, image)
    if image.clean is None:
        return ("", "", ""), hash_pixels([noisy])
    target = targets.target(image, noisy)
    psnr, ssim = (math.nan, math.nan) if estimate is None else target.score(estimate)
    values = _text(psnr, 4), _text(ssim, 5), _text(target.score(noisy)[0], 4)
    return values, hash_pixels([noisy, read_clean(image)])


def _text(value: float, decimals: int) -> str:
    return "" if math.isnan(value) else f"{value:.{decimals}f}"


def _describe(rows: list[tuple]) -> str:
    values = [float(row[5]) for row in rows if row[5]]
    if not values:
        return f"{len(rows)} images without a clean one or an estimate, so no PSNR"
    return f"{np.mean(values):.2f} dB over {len(values)} images"
