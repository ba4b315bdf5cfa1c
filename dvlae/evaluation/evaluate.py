"""Compare the denoised images of one run with the clean ones, image by image."""

import logging
import math
from pathlib import Path

import numpy as np

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_clean, read_mask, read_noisy
from dvlae.data.manifest import Image, read_manifest
from dvlae.data.outputs.reading import read_output
from dvlae.evaluation.each_image import choose_image_workers, map_images
from dvlae.evaluation.metrics import MIN_MS_SSIM_SIDE, ms_ssim, psnr, si_psnr, ssim
from dvlae.evaluation.reference_noise import Exposures, count_exposures, reference_limit
from dvlae.evaluation.register import Targets, evaluated_images, hash_pixels
from dvlae.evaluation.structure import kept_band, removed_details
from dvlae.evaluation.target import Target
from dvlae.runs.folder import DONE, MEASURE_COLUMNS, PSNR_COLUMNS, RunFolder, read_json
from dvlae.system.errors import UserError
from dvlae.system.files import write_csv, write_json
from dvlae.system.hashes import combine_hashes, sha256
from dvlae.system.parts import WHOLE, Part
from dvlae.system.software import software
from dvlae.system.wording import count

logger = logging.getLogger(__name__)

ALL_COLUMNS = (*PSNR_COLUMNS, *MEASURE_COLUMNS)
RUN_COLUMNS = PSNR_COLUMNS.index("psnr")  # the first columns, which say what was measured


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
    """Write the PSNR, in decibels, and other measures of each evaluated image.

    They are empty without a clean image or an estimate, and where one cannot be measured: SSIM and MS-SSIM need 11 and
    176 pixels along x and y, the MS-SSIM also an image without a mask.

    Parameters
    ----------
    images
        Folder of canonical images, with ``manifest.csv``.
    denoised
        Folder of estimates, one TIFF file per source, with the name and the units of the noisy one. It has none if
        ``method.json`` beside it says that the method is not done.
    output
        The table to write, with ``PSNR_COLUMNS`` and ``MEASURE_COLUMNS`` of :mod:`dvlae.runs.folder`. Equal images give
        equal bytes. ``evaluation.json`` in the same folder records the settings, a hash of all images that were
        compared, a hash of ``targets``, and the versions of the software.
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
    exposures = count_exposures(read_manifest(images)) if targets is None else {}
    is_done = read_json(RunFolder(Path(denoised).parent).method_record).get("status", DONE) == DONE
    estimates = denoised if is_done else None
    scores = map_images(
        lambda image: _score(image, estimates, aligned, exposures), chosen, workers, description="evaluate"
    )
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
    write_csv(output, ALL_COLUMNS, rows)
    if small := sum(bool(row[RUN_COLUMNS]) and not row[ALL_COLUMNS.index("ms_ssim")] for row in rows):
        reason = f"it needs {MIN_MS_SSIM_SIDE} pixels along x and y, and no mask"
        logger.info("evaluate: %s, %s: no MS-SSIM of %s: %s", dataset, method, count(small, "image"), reason)
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


def _score(
    image: Image, denoised: Path | None, targets: Targets, exposures: Exposures
) -> tuple[tuple[str, ...], list[str]]:
    """Return the last columns of the table, and hashes of what was compared."""
    noisy = read_noisy(image)
    estimate = None if denoised is None else read_estimate(denoised, image)
    if image.clean is None:
        return ("",) * (len(ALL_COLUMNS) - RUN_COLUMNS), hash_pixels([noisy])
    target = targets.target(image, noisy)
    noise = targets.reference_noise(image, noisy, exposures)
    measures = {
        "psnr_noisy": target.psnr(noisy),
        "reference_noise": noise,
        "psnr_limit": reference_limit(noise, target.data_range),
        **({} if estimate is None else _measure(target, estimate)),
    }
    score = tuple(_format(name, measures.get(name, math.nan)) for name in ALL_COLUMNS[RUN_COLUMNS:])
    return score, hash_pixels([noisy, read_clean(image)])


def _measure(target: Target, estimate: np.ndarray) -> dict[str, float]:
    """Measure an estimate in all ways that need a clean image; NaN where something cannot be measured."""
    fitted = target.to_target_units(estimate)
    counts = ... if target.mask is None else target.mask
    return {
        "psnr": psnr(target.clean[:, counts], fitted[:, counts], data_range=target.data_range),
        "ssim": ssim(target.clean, fitted, data_range=target.data_range, mask=target.mask),
        "si_psnr": si_psnr(target.clean[:, counts], fitted[:, counts]),
        "ms_ssim": math.nan if target.mask is not None else ms_ssim(target.clean, fitted, data_range=target.data_range),
        "kept_band": kept_band(fitted, target.clean),
        "removed_details": removed_details(target.removed(estimate), target.clean, target.mask),
    }


def _format(name: str, value: float) -> str:
    """Write a measure into its column, which stays empty if there is none."""
    decimals = {"ssim": ".5f", "ms_ssim": ".5f", "reference_noise": ".6g"}
    return "" if math.isnan(value) else f"{value:{decimals.get(name, '.4f')}}"


def _describe(rows: list[tuple]) -> str:
    values = [float(row[5]) for row in rows if row[5]]
    if not values:
        return f"{len(rows)} images without a clean one or an estimate, so no PSNR"
    return f"{np.mean(values):.2f} dB over {len(values)} images"
