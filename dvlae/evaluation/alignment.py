"""How a clean image lies on its noisy one, and which part of both is compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dvlae.axes import format_sides
from dvlae.config.dataset import EvaluationSettings
from dvlae.evaluation.metrics import SSIM_WINDOW, find_shift, fit_affine, shift_image
from dvlae.system.errors import UserError

SHIFT_COLUMNS = ("dz", "dy", "dx")


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
