"""What every estimate of an image is compared with, and the table that says how the clean images lie on the noisy ones.

Registration takes longer than all other steps of a comparison. :func:`dvlae.evaluation.register.register` does it once
for each image and writes ``targets.csv``; whatever compares an image with its clean one takes it from there.
"""

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_canonical
from dvlae.data.manifest import Image
from dvlae.evaluation.alignment import SHIFT_COLUMNS, Alignment
from dvlae.evaluation.metrics import fit_affine, psnr, ssim
from dvlae.system.errors import UserError
from dvlae.system.files import sha256

# The last two say what a row belongs to.
TARGET_COLUMNS = (
    "image", *SHIFT_COLUMNS, "gain", "offset", "data_range", "region", "images_sha256", "settings_sha256",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """What every method's estimate of one image is compared with.

    It follows from the noisy and the clean image alone, so that all methods meet the same target.

    Attributes
    ----------
    clean
        (C, ...) with one to three spatial axes, registered, fitted and cut to the region.
    noisy
        Of the same shape, cut to the region.
    region
        The part of the whole image that counts, a slice for each spatial axis.
    data_range
        In the units of ``clean``.
    fit_estimate
        Whether gain and offset of an estimate are fitted to ``clean`` first.
    """

    clean: np.ndarray
    noisy: np.ndarray
    region: tuple[slice, ...]
    data_range: float
    fit_estimate: bool

    @classmethod
    def build(
        cls,
        noisy: np.ndarray,
        clean: np.ndarray,
        settings: EvaluationSettings,
        alignment: Alignment | None = None,
    ) -> "Target":
        """Register, cut and fit the clean image.

        Parameters
        ----------
        noisy, clean
            (C, ...), whole images.
        settings
            How the dataset is evaluated.
        alignment
            What is known already; None: it is found.

        Returns
        -------
        Target
            The same with an alignment that was found before as without one.

        Raises
        ------
        UserError
            As :meth:`Alignment.find`.
        """
        if alignment is None:
            alignment = Alignment.find(noisy, clean, settings)
        region = alignment.region
        fit_estimate = settings.fit == "estimate_to_clean"
        return cls(alignment.apply(clean), noisy[:, *region], region, alignment.data_range, fit_estimate)

    def to_target_units(self, estimate: np.ndarray) -> np.ndarray:
        """Cut a whole estimate (C, ...) to the region and, where the dataset asks for it, fit it to ``clean``.

        Parameters
        ----------
        estimate
            A whole estimate, in the units of the noisy image.

        Returns
        -------
        numpy.ndarray
            (C, ...), of the shape of ``clean``.
        """
        a, b = self.gain_and_offset(estimate)
        return a * estimate[:, *self.region] + b

    def gain_and_offset(self, estimate: np.ndarray) -> tuple[float, float]:
        """Return what turns the units of a whole estimate (C, ...) into those of ``clean``; (1, 0) without a fit.

        Parameters
        ----------
        estimate
            A whole estimate, in the units of the noisy image.

        Returns
        -------
        tuple of float
            Gain and offset.
        """
        return fit_affine(estimate[:, *self.region], self.clean) if self.fit_estimate else (1.0, 0.0)

    def score(self, estimate: np.ndarray) -> tuple[float, float]:
        """Return PSNR in decibel and SSIM of a whole estimate (C, ...).

        Parameters
        ----------
        estimate
            A whole estimate, in the units of the noisy image.

        Returns
        -------
        tuple of float
            PSNR and SSIM.
        """
        converted = self.to_target_units(estimate)
        return (
            psnr(self.clean, converted, data_range=self.data_range),
            ssim(self.clean, converted, data_range=self.data_range),
        )

    def noise(self) -> np.ndarray:
        """Return the noise in the region (C, ...): noisy less clean, in the units of the noisy image.

        Returns
        -------
        numpy.ndarray
            Of the region's shape.
        """
        if self.fit_estimate:  # recorded at another exposure: bring the clean image to the noisy one's
            a, b = fit_affine(self.clean, self.noisy)
            return self.noisy - (a * self.clean + b)
        return self.noisy - self.clean


class Targets:
    """The targets of a dataset's images, from a table or found as they are asked for.

    Parameters
    ----------
    settings
        How the dataset is evaluated.
    table
        What :func:`dvlae.evaluation.register.register` wrote for these images with these settings; None: each clean
        image is registered here, once.

    Attributes
    ----------
    settings
        How the dataset is evaluated.

    Raises
    ------
    UserError
        Where the table is missing, or is none.
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
            One with a clean image.
        noisy
            Its noisy image (C, ...), whole.

        Returns
        -------
        Target
            The same with a table as without one.

        Raises
        ------
        UserError
            Where the table has no row for the image, or has one of other images or of other settings; as
            :meth:`Alignment.find` without a table.
        """
        assert image.clean is not None
        clean = read_canonical(image.clean)
        alignment = self._alignments.get(image.name)
        if alignment is None:
            alignment = Alignment.find(noisy, clean, self.settings) if self._table is None else self._look_up(image)
            self._alignments[image.name] = alignment
        return Target.build(noisy, clean, self.settings, alignment)

    def _look_up(self, image: Image) -> Alignment:
        row = self._rows.get(image.name)
        if row is None:
            problem = "found no row"
        elif row["images_sha256"] != hash_images([image]):
            problem = "found a row of another noisy or clean image"
        elif row["settings_sha256"] != hash_settings(self.settings):
            problem = "found a row of other evaluation settings"
        else:
            return Alignment.from_row(row)
        raise UserError(
            f"{self._table}: image {image.name!r}: {problem}; "
            "run `dvlae register` again with the images and the settings of this command"
        )


def hash_images(images: Iterable[Image]) -> str:
    """Return one hash of the files of all noisy and clean images, in their order.

    Parameters
    ----------
    images
        Those whose files are hashed: another order gives another hash.

    Returns
    -------
    str
        SHA-256, in hexadecimal.
    """
    files = (path for image in images for path in (image.noisy, image.clean) if path is not None)
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()


def hash_settings(settings: EvaluationSettings) -> str:
    """Return a hash of how an image is evaluated; which images are evaluated is no part of it.

    Parameters
    ----------
    settings
        How images are evaluated.

    Returns
    -------
    str
        SHA-256, in hexadecimal.
    """
    return hashlib.sha256(settings.model_dump_json(exclude={"images"}).encode()).hexdigest()


def _read_rows(table: Path) -> dict[str, dict[str, str]]:
    """Read a table of targets; return its rows by the images' names."""
    try:
        with open(table, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            rows = {row["image"]: row for row in reader}
            if tuple(reader.fieldnames or ()) != TARGET_COLUMNS:
                raise ValueError
        for row in rows.values():
            Alignment.from_row(row)
    except FileNotFoundError:
        raise UserError(f"{table}: no such file; `dvlae register` makes it") from None
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error):
        raise UserError(f"{table}: not a table of targets; `dvlae register` makes one") from None
    return rows
