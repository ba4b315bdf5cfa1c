"""What every estimate of an image is compared with, and the table that says how the clean images lie on the noisy ones.

Registration takes longer than all other steps of a comparison. :func:`dvlae.evaluation.register.register` does it once
for each image and writes ``targets.csv``; whatever compares an image with its clean one takes it from there.
"""

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvlae.axes import format_sides
from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_canonical
from dvlae.data.manifest import Image
from dvlae.evaluation.metrics import SSIM_WINDOW, find_shift, fit_affine, psnr, shift_image, ssim
from dvlae.system.errors import UserError
from dvlae.system.files import sha256

SHIFT_COLUMNS = ("dz", "dy", "dx")
# The last two say what a row belongs to.
TARGET_COLUMNS = (
    "image", *SHIFT_COLUMNS, "gain", "offset", "data_range", "region", "images_sha256", "settings_sha256",
)  # fmt: skip


@dataclass(frozen=True)
class Alignment:
    """How a clean image lies on its noisy one.

    Attributes
    ----------
    shift
        As :func:`dvlae.evaluation.metrics.find_shift` found it, in pixels; None where the dataset asks for none.
    gain_and_offset
        What turns the units of the clean image into those of the noisy one; None where the dataset asks for none.
    data_range
        Of PSNR and SSIM, in the units of the clean image as it is compared.
    region
        The part of the whole image that counts, a slice for each spatial axis.
    """

    shift: tuple[float, ...] | None
    gain_and_offset: tuple[float, float] | None
    data_range: float
    region: tuple[slice, ...]

    @classmethod
    def find(cls, noisy: np.ndarray, clean: np.ndarray, settings: EvaluationSettings) -> "Alignment":
        """Register and fit a clean image to its noisy one, as far as the dataset asks for it.

        Parameters
        ----------
        noisy, clean
            (C, ...), whole images.
        settings
            How the dataset is evaluated.

        Returns
        -------
        Alignment
            It depends on nothing else.

        Raises
        ------
        UserError
            Where crop and border leave less than 11 pixels along x or y, or the clean image is constant there.
        """
        region = find_region(noisy.shape[1:], settings)
        shift = find_shift(noisy, clean) if settings.register else None
        clean = _move_and_cut(clean, shift, region)
        gain_and_offset = fit_affine(clean, noisy[:, *region]) if settings.fit == "clean_to_noisy" else None
        data_range = settings.data_range
        if data_range == "auto":
            clean = _convert_units(clean, gain_and_offset)
            data_range = float(clean.max() - clean.min())
            if data_range == 0:
                raise UserError(
                    "evaluation.data_range: found 'auto', but the clean image is constant where it is evaluated"
                )
        return cls(shift, gain_and_offset, float(data_range), region)

    def apply(self, clean: np.ndarray) -> np.ndarray:
        """Move a whole clean image (C, ...) onto its noisy one, cut it to the region, and convert its units.

        Parameters
        ----------
        clean
            The clean image as it was prepared.

        Returns
        -------
        numpy.ndarray
            (C, ...), of the region's shape and in the units of the noisy image.
        """
        return _convert_units(_move_and_cut(clean, self.shift, self.region), self.gain_and_offset)

    def to_row(self) -> dict[str, str]:
        """Return the columns of the table in which this is written, in full precision.

        Returns
        -------
        dict
            The text in each column.
        """
        row = dict(zip(SHIFT_COLUMNS[-len(self.region) :], map(repr, self.shift or ()), strict=False))
        if self.gain_and_offset is not None:
            row["gain"], row["offset"] = map(repr, self.gain_and_offset)
        row["data_range"] = repr(self.data_range)
        row["region"] = " ".join(f"{part.start}:{part.stop}" for part in self.region)
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> "Alignment":
        """Return what :meth:`to_row` wrote.

        Parameters
        ----------
        row
            The text in each column.

        Returns
        -------
        Alignment
            How the clean image lies on its noisy one.

        Raises
        ------
        ValueError, KeyError
            Where it did not write this.
        """
        ends = (part.split(":") for part in row["region"].split())
        region = tuple(slice(int(first), int(stop)) for first, stop in ends)
        shift = [row[name] for name in SHIFT_COLUMNS[-len(region) :]]
        gain_and_offset = (float(row["gain"]), float(row["offset"])) if row["gain"] else None
        data_range = float(row["data_range"])
        return cls(tuple(map(float, shift)) if any(shift) else None, gain_and_offset, data_range, region)


def _move_and_cut(clean: np.ndarray, shift: tuple[float, ...] | None, region: tuple[slice, ...]) -> np.ndarray:
    if shift is not None:
        clean = shift_image(clean, tuple(-d for d in shift))
    return clean[:, *region]


def _convert_units(clean: np.ndarray, gain_and_offset: tuple[float, float] | None) -> np.ndarray:
    if gain_and_offset is None:
        return clean
    gain, offset = gain_and_offset
    return gain * clean + offset


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
        The images.

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


def find_region(shape: Sequence[int], settings: EvaluationSettings) -> tuple[slice, ...]:
    """Return the part of an image that is evaluated: the crop, less the border along x and y.

    Parameters
    ----------
    shape
        Of the whole image along its spatial axes.
    settings
        Its ``crop`` and ``border`` count.

    Returns
    -------
    tuple of slice
        One for each spatial axis.

    Raises
    ------
    UserError
        Where less than 11 pixels are left along x or y, or no plane.
    """
    region, enough = [], True
    for name, length in zip("zyx"[-len(shape) :], shape, strict=True):
        interval = getattr(settings.crop, name, None) if settings.crop is not None else None
        first, last, _ = slice(*(interval or (0, length))).indices(length)
        border, least = (0, 1) if name == "z" else (settings.border, SSIM_WINDOW)
        region.append(slice(first + border, last - border))
        enough &= region[-1].stop - region[-1].start >= least
    if not enough:
        left = format_sides([max(0, s.stop - s.start) for s in region])
        raise UserError(
            f"evaluation: crop and border leave {left} of {format_sides(shape)} pixels, "
            f"but {SSIM_WINDOW} are needed along {' and '.join('xy'[: len(shape)])}"
        )
    return tuple(region)
