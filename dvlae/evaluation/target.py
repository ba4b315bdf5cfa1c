"""How a clean image lies on its noisy one, and what estimates are compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dvlae.axes import format_sides
from dvlae.config.dataset import EvaluationSettings
from dvlae.data.defects import fill, find_defects
from dvlae.data.reading import find_window
from dvlae.evaluation.metrics import find_shift, fit_affine, psnr, shift_image, ssim
from dvlae.system.errors import UserError

SHIFT_COLUMNS = ("dz", "dy", "dx")


@dataclass(frozen=True)
class Alignment:
    """How a clean image lies on its noisy one.

    Attributes
    ----------
    shift
        The result of :func:`dvlae.evaluation.metrics.find_shift`, in pixels; None if the dataset asks for none.
    gain_and_offset
        They convert the units of the clean image into those of the noisy one; None if the dataset asks for none.
    data_range
        The range of PSNR and SSIM, in the units in which the clean image is compared.
    region
        The part of the image that is evaluated, one slice per spatial axis.
    """

    shift: tuple[float, ...] | None
    gain_and_offset: tuple[float, float] | None
    data_range: float
    region: tuple[slice, ...]

    @classmethod
    def find(
        cls, noisy: np.ndarray, clean: np.ndarray, settings: EvaluationSettings, mask: np.ndarray | None = None
    ) -> "Alignment":
        """Register and fit a clean image to its noisy one, as the settings ask.

        Parameters
        ----------
        noisy, clean
            The complete images, (C, ...).
        settings
            How the dataset is evaluated.
        mask
            True where a pixel counts, with the spatial axes of the images; None: everywhere.

        Returns
        -------
        Alignment
            It depends on the arguments only.

        Raises
        ------
        UserError
            If crop, border and mask leave no pixel, or the clean image is constant there.
        """
        region = find_region(noisy.shape[1:], settings)
        if mask is not None and not mask[region].any():
            raise UserError("evaluation: the mask leaves no pixel of the region that is evaluated")
        counts = ... if mask is None else mask[region]
        clean = _without_defects(clean, settings)
        if settings.register or settings.fit == "clean_to_noisy":
            # A few hot pixels would decide on both.
            noisy = fill(noisy, find_defects(noisy))
        shift = find_shift(noisy, clean) if settings.register else None
        clean = _move_and_cut(clean, shift, region)
        gain_and_offset = None
        if settings.fit == "clean_to_noisy":
            gain_and_offset = fit_affine(clean[:, counts], noisy[:, *region][:, counts])
        data_range = settings.data_range
        if data_range == "auto":
            clean = _convert_units(clean[:, counts], gain_and_offset)
            data_range = float(clean.max() - clean.min())
            if data_range == 0:
                raise UserError(
                    "evaluation.data_range: found 'auto', but the clean image is constant where it is evaluated; a "
                    "number would do, or all but this image in evaluation.images"
                )
        return cls(shift, gain_and_offset, float(data_range), region)

    def apply(self, clean: np.ndarray) -> np.ndarray:
        """Move a complete clean image (C, ...) onto its noisy one, cut it to the region, and convert its units.

        Parameters
        ----------
        clean
            The clean image.

        Returns
        -------
        numpy.ndarray
            (C, ...), with the shape of the region, in the units of the noisy image.
        """
        return _convert_units(_move_and_cut(clean, self.shift, self.region), self.gain_and_offset)

    def to_row(self) -> dict[str, str]:
        """Return the columns of a row of ``targets.csv``, in full precision.

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
        """Return the alignment that :meth:`to_row` wrote.

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
            If :meth:`to_row` did not write the row.
        """
        ends = (part.split(":") for part in row["region"].split())
        region = tuple(slice(int(first), int(stop)) for first, stop in ends)
        shift = [row[name] for name in SHIFT_COLUMNS[-len(region) :]]
        gain_and_offset = (float(row["gain"]), float(row["offset"])) if row["gain"] else None
        data_range = float(row["data_range"])
        return cls(tuple(map(float, shift)) if any(shift) else None, gain_and_offset, data_range, region)


def _without_defects(clean: np.ndarray, settings: EvaluationSettings) -> np.ndarray:
    """Fill in the hot and dead pixels of a clean image, so that they do not count as errors."""
    return clean if settings.noise_free else fill(clean, find_defects(clean))


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
        The length of each spatial axis of the complete image.
    settings
        Only ``crop`` and ``border`` are used.

    Returns
    -------
    tuple of slice
        One per spatial axis.

    Raises
    ------
    UserError
        If the crop is not within the image, or no pixel is left.
    """
    sides = dict(zip("ZYX"[-len(shape) :], shape, strict=True))
    window = find_window(settings.crop, sides, "evaluation.crop")
    borders = [0 if axis == "Z" else settings.border for axis in sides]
    region = [slice(part.start + border, part.stop - border) for part, border in zip(window, borders, strict=True)]
    if any(part.stop <= part.start for part in region):
        left = format_sides([max(0, part.stop - part.start) for part in region])
        raise UserError(
            f"evaluation: crop and border leave {left} of {format_sides(shape)} pixels, allowed: at least one along "
            "each axis"
        )
    return tuple(region)


@dataclass(frozen=True)
class Target:
    """The clean image with which all estimates of one noisy image are compared.

    It depends on the noisy and the clean image only, so it is the same for all methods.

    Attributes
    ----------
    clean
        (C, ...) with one to three spatial axes, registered, fitted and cut to the region.
    noisy
        The noisy image, cut to the region, of the same shape.
    region
        The part of the image that is evaluated, one slice per spatial axis.
    data_range
        The range of PSNR and SSIM, in the units of ``clean``.
    fit_estimate
        Whether the gain and offset of an estimate are fitted to ``clean`` first.
    mask
        True where a pixel of the region counts; None: everywhere.
    """

    clean: np.ndarray
    noisy: np.ndarray
    region: tuple[slice, ...]
    data_range: float
    fit_estimate: bool
    mask: np.ndarray | None = None

    @classmethod
    def build(
        cls,
        noisy: np.ndarray,
        clean: np.ndarray,
        settings: EvaluationSettings,
        alignment: Alignment | None = None,
        mask: np.ndarray | None = None,
    ) -> "Target":
        """Register, cut and fit the clean image.

        Parameters
        ----------
        noisy, clean
            The complete images, (C, ...).
        settings
            How the dataset is evaluated.
        alignment
            How the clean image lies on the noisy one. If None, :meth:`Alignment.find` finds it, with the same result.
        mask
            True where a pixel counts, with the spatial axes of the complete images; None: everywhere.

        Returns
        -------
        Target
            What estimates are compared with.

        Raises
        ------
        UserError
            As :meth:`Alignment.find`.
        """
        if alignment is None:
            alignment = Alignment.find(noisy, clean, settings, mask)
        region = alignment.region
        fit_estimate = settings.fit == "estimate_to_clean"
        counts = None if mask is None else mask[region]
        clean = alignment.apply(_without_defects(clean, settings))
        return cls(clean, noisy[:, *region], region, alignment.data_range, fit_estimate, counts)

    @property
    def _counts(self) -> Any:
        """An index of the spatial axes: the pixels of the region that count."""
        return ... if self.mask is None else self.mask

    @cached_property
    def _filled(self) -> np.ndarray:
        """The noisy image without hot and dead pixels."""
        return fill(self.noisy, find_defects(self.noisy))

    def to_target_units(self, estimate: np.ndarray) -> np.ndarray:
        """Cut an estimate to the region and, if the dataset asks for it, fit it to ``clean``.

        Where a pixel does not count, it is that of ``clean``.

        Parameters
        ----------
        estimate
            The complete estimate (C, ...), in the units of the noisy image.

        Returns
        -------
        numpy.ndarray
            The estimate, (C, ...), with the shape of ``clean``.
        """
        a, b = self.gain_and_offset(estimate)
        fitted = a * estimate[:, *self.region] + b
        return fitted if self.mask is None else np.where(self.mask, fitted, self.clean)

    def gain_and_offset(self, estimate: np.ndarray) -> tuple[float, float]:
        """Return the numbers that convert the units of an estimate into those of ``clean``; (1, 0) without a fit.

        Parameters
        ----------
        estimate
            The complete estimate (C, ...), in the units of the noisy image.

        Returns
        -------
        tuple of float
            Gain and offset.
        """
        if not self.fit_estimate:
            return 1.0, 0.0
        return fit_affine(estimate[:, *self.region][:, self._counts], self.clean[:, self._counts])

    def score(self, estimate: np.ndarray) -> tuple[float, float]:
        """Return the PSNR, in decibels, and the SSIM of an estimate, which is NaN where the region is small.

        Parameters
        ----------
        estimate
            The complete estimate (C, ...), in the units of the noisy image.

        Returns
        -------
        tuple of float
            PSNR and SSIM.
        """
        fitted = self.to_target_units(estimate)
        similarity = ssim(self.clean, fitted, data_range=self.data_range, mask=self.mask)
        return self.psnr(estimate), similarity

    def psnr(self, estimate: np.ndarray) -> float:
        """Return the PSNR of an estimate.

        Parameters
        ----------
        estimate
            The complete estimate (C, ...), in the units of the noisy image.

        Returns
        -------
        float
            In decibels.
        """
        pair = (image[:, self._counts] for image in (self.clean, self.to_target_units(estimate)))
        return psnr(*pair, data_range=self.data_range)

    def removed(self, estimate: np.ndarray) -> np.ndarray:
        """Return what an estimate lacks of the noisy image in the region, hot and dead pixels aside.

        Parameters
        ----------
        estimate
            The complete estimate (C, ...), in the units of the noisy image.

        Returns
        -------
        numpy.ndarray
            The noisy image minus the estimate, with the shape of ``clean``.
        """
        return self._filled - estimate[:, *self.region]

    def clean_like_noisy(self) -> np.ndarray:
        """Return the clean image in the units of the noisy one, which may have had another exposure.

        Returns
        -------
        numpy.ndarray
            (C, ...), with the shape of ``clean``.
        """
        if not self.fit_estimate:
            return self.clean
        gain, offset = fit_affine(self.clean[:, self._counts], self._filled[:, self._counts])
        return gain * self.clean + offset

    def noise(self) -> np.ndarray:
        """Return the noise in the region: the noisy image, without hot and dead pixels, minus the clean one.

        Returns
        -------
        numpy.ndarray
            The noise, (C, ...), in the units of the noisy image.
        """
        return self._filled - self.clean_like_noisy()
