"""The table ``targets.csv`` of a dataset: how each clean image lies on its noisy one.

Registration takes longer than all other steps of a comparison. :func:`register` does it once for each image and writes
the table; all steps that compare an image with its clean one read it through :class:`Targets`.
"""

import csv
import hashlib
import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_clean, read_mask, read_noisy
from dvlae.data.manifest import Image, read_manifest, select_images
from dvlae.evaluation.each_image import choose_image_workers, map_images
from dvlae.evaluation.reference_noise import Exposures, count_exposures, estimate_reference_noise
from dvlae.evaluation.target import SHIFT_COLUMNS, Alignment, Target
from dvlae.system.errors import UserError
from dvlae.system.files import write_csv
from dvlae.system.hashes import combine_hashes

logger = logging.getLogger(__name__)

# The last two identify the images and the settings that a row belongs to.
TARGET_COLUMNS = (
    "image", *SHIFT_COLUMNS, "gain", "offset", "data_range", "region", "reference_noise", "images_sha256",
    "settings_sha256",
)  # fmt: skip


def register(images: Path, output: Path, *, settings: EvaluationSettings, cores: int | None = None) -> None:
    """Write how each clean image lies on its noisy one.

    Parameters
    ----------
    images
        Folder of canonical images, with ``manifest.csv``.
    output
        The table to write, one row per evaluated image with a clean one. ``dz``, ``dy``, ``dx`` are the drift in
        pixels, as returned by :func:`dvlae.evaluation.metrics.find_shift`; they are empty without registration.
        ``gain`` and ``offset`` convert the clean image; they are empty if it is not fitted. ``data_range`` is the range
        of PSNR and SSIM. ``region`` is the evaluated part, start and stop along each axis. ``reference_noise`` is the
        noise in it (:func:`dvlae.evaluation.reference_noise.estimate_reference_noise`), ``nan`` where the settings say
        that it holds none. Two hashes identify the images and the settings. Numbers have full precision, so a target
        from the table has the same bits as one without it.
    settings
        How the dataset is evaluated, and on which images.
    cores
        Cores that the step may use; None: all that this process may use.

    Raises
    ------
    UserError
        If crop and border leave too little of an image, or a clean image is constant there.
    """
    pairs = [image for image in evaluated_images(images, settings) if image.clean is not None]
    workers = choose_image_workers("register", pairs, cores)
    exposures = count_exposures(read_manifest(images))
    rows = map_images(lambda image: _register(image, settings, exposures), pairs, workers, description="register")
    write_csv(output, TARGET_COLUMNS, rows)
    logger.info("register: %s", f"{len(rows)} images" if rows else "no image has a clean one, so there is no drift")


def _register(image: Image, settings: EvaluationSettings, exposures: Exposures) -> list[str]:
    """Return the row of an image that has a clean one."""
    assert image.clean is not None
    pair, mask = (read_noisy(image), read_clean(image)), read_mask(image)
    try:
        alignment = Alignment.find(*pair, settings, mask)
    except UserError as error:
        raise UserError(f"{image.name}: {error}") from None
    noise = _estimate_noise(image, pair, alignment, settings, exposures)
    row = {"image": image.name, **alignment.to_row(), "reference_noise": repr(noise), **_identify(pair, settings)}
    return [row.get(name, "") for name in TARGET_COLUMNS]


def _estimate_noise(
    image: Image,
    pair: tuple[np.ndarray, np.ndarray],
    alignment: Alignment,
    settings: EvaluationSettings,
    exposures: Exposures,
) -> float:
    """Return the noise in the clean one of a pair; NaN where the settings say that it holds none."""
    if settings.noise_free:
        return math.nan
    assert image.clean is not None
    count = exposures.get((image.clean, image.clean_frame), 1)
    return estimate_reference_noise(*pair, alignment, read_mask(image), count)


class Targets:
    """The targets of the images of a dataset, from a table or computed on demand. Threads may share them.

    Parameters
    ----------
    settings
        How the dataset is evaluated.
    table
        The table that :func:`register` wrote for these images with these settings. If None, each clean image is
        registered on its first use.

    Attributes
    ----------
    settings
        How the dataset is evaluated.

    Raises
    ------
    UserError
        If the table is missing or is not such a table.
    """

    def __init__(self, settings: EvaluationSettings, table: Path | None = None) -> None:
        self.settings = settings
        self._table = table
        self._rows = {} if table is None else _read_rows(table)
        self._alignments: dict[str, Alignment] = {}

    def target(self, image: Image, noisy: np.ndarray) -> Target:
        """Return what estimates of an image are compared with.

        Parameters
        ----------
        image
            An image with a clean one.
        noisy
            Its complete noisy image, (C, ...).

        Returns
        -------
        Target
            The same with a table as without one.

        Raises
        ------
        UserError
            If the table has no row for the image, or if the row belongs to other images or settings. Without a table,
            as :meth:`Alignment.find`.
        """
        assert image.clean is not None
        clean, mask = read_clean(image), read_mask(image)
        alignment = self._alignments.get(image.name)
        if alignment is None:
            pair = noisy, clean
            if self._table is None:
                alignment = Alignment.find(*pair, self.settings, mask)
            else:
                alignment = self._look_up(image, pair)
            self._alignments[image.name] = alignment
        return Target.build(noisy, clean, self.settings, alignment, mask)

    def reference_noise(self, image: Image, noisy: np.ndarray, exposures: Exposures) -> float:
        """Return the noise in a clean image, as the table says or estimated anew.

        Parameters
        ----------
        image
            An image of which :meth:`target` has returned the target.
        noisy
            Its complete noisy image, (C, ...).
        exposures
            The result of :func:`count_exposures`; not used with a table.

        Returns
        -------
        float
            As :func:`estimate_reference_noise`; NaN where the settings say that it holds none.
        """
        if self._table is not None:
            return float(self._rows[image.name]["reference_noise"])
        pair = noisy, read_clean(image)
        return _estimate_noise(image, pair, self._alignments[image.name], self.settings, exposures)

    def _look_up(self, image: Image, pair: Sequence[np.ndarray]) -> Alignment:
        row, expected = self._rows.get(image.name), _identify(pair, self.settings)
        if row is None:
            problem = "found no row"
        elif row["images_sha256"] != expected["images_sha256"]:
            problem = "found a row of another noisy or clean image"
        elif row["settings_sha256"] != expected["settings_sha256"]:
            problem = "found a row of other evaluation settings"
        else:
            return Alignment.from_row(row)
        raise UserError(
            f"{self._table}: image {image.name!r}: {problem}; "
            "run `dvlae register` again with the images and the settings of this command"
        )


def evaluated_images(images: Path, settings: EvaluationSettings) -> list[Image]:
    """Return the images of a folder with ``manifest.csv`` that ``settings.images`` names.

    Parameters
    ----------
    images
        The output of ``dvlae prepare``.
    settings
        How images are evaluated.

    Returns
    -------
    list of Image
        In the order of the manifest.
    """
    return select_images(read_manifest(images), settings.images)


def hash_pixels(frames: Iterable[np.ndarray]) -> list[str]:
    """Return the hashes of frames, which do not depend on the files that contain them.

    Parameters
    ----------
    frames
        The frames.

    Returns
    -------
    list of str
        SHA-256 of the shape and the pixels of each frame, in hexadecimal.
    """
    hashes = []
    for frame in frames:
        sha256 = hashlib.sha256(str(frame.shape).encode())
        sha256.update(np.ascontiguousarray(frame).data)
        hashes.append(sha256.hexdigest())
    return hashes


def _identify(pair: Sequence[np.ndarray], settings: EvaluationSettings) -> dict[str, str]:
    """Return hashes of a noisy and a clean frame and of how they are evaluated, but not of the choice of images."""
    how = settings.model_dump_json(exclude={"images"})
    return {
        "images_sha256": combine_hashes(hash_pixels(pair)),
        "settings_sha256": hashlib.sha256(how.encode()).hexdigest(),
    }


def _read_rows(table: Path) -> dict[str, dict[str, str]]:
    """Read a table of targets. Return its rows by the name of the image."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            rows = {row["image"]: row for row in reader}
            if tuple(reader.fieldnames or ()) != TARGET_COLUMNS:
                raise ValueError
        for row in rows.values():
            Alignment.from_row(row)
            float(row["reference_noise"])
    except FileNotFoundError:
        raise UserError(f"{table}: no such file; `dvlae register` makes it") from None
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error):
        raise UserError(f"{table}: not a table of targets; `dvlae register` makes one") from None
    return rows
