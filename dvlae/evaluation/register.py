"""Find how the clean images of a dataset lie on the noisy ones, once for all that compare them."""

import csv
import logging
from pathlib import Path

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_canonical
from dvlae.evaluation.alignment import Alignment
from dvlae.evaluation.evaluate import evaluated_images
from dvlae.evaluation.target import TARGET_COLUMNS, hash_images, hash_settings
from dvlae.system.files import atomic_file
from dvlae.system.progress import progress

logger = logging.getLogger(__name__)


def register(images: Path, output: Path, *, settings: EvaluationSettings) -> None:
    """Write how each clean image lies on its noisy one, as far as the dataset asks for it.

    Parameters
    ----------
    images
        Folder of canonical images, with ``manifest.csv``.
    output
        The table to write, one row for each evaluated image with a clean one: the drift ``dz``, ``dy``, ``dx`` in
        pixels, as :func:`dvlae.evaluation.metrics.find_shift` returns it, empty where nothing is registered; ``gain``
        and ``offset`` of the clean image, empty where the clean image is not fitted; the ``data_range`` of PSNR and
        SSIM; the ``region`` that is evaluated, first and stop along each axis; hashes of the two images and of the
        settings. Numbers are in full precision, so that a target from the table has the bits of one that is found anew.
    settings
        How the dataset is evaluated, and on which images.

    Raises
    ------
    UserError
        Where crop and border leave too little of an image, or a clean image is constant there.
    """
    pairs = [image for image in evaluated_images(images, settings) if image.clean is not None]
    rows = []
    for image in progress(pairs, description="register", unit="image"):
        alignment = Alignment.find(read_canonical(image.noisy), read_canonical(image.clean), settings)
        hashes = {"images_sha256": hash_images([image]), "settings_sha256": hash_settings(settings)}
        rows.append({"image": image.name, **alignment.to_row(), **hashes})
    with atomic_file(output) as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, TARGET_COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    logger.info("register: %s", f"{len(rows)} images" if rows else "no image has a clean one, so there is no drift")
