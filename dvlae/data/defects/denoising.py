"""Frames on their way through a model, and their estimates on the way back."""

import logging
from collections import defaultdict
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np

from dvlae.data.canonical import read_frame, read_info, read_mask
from dvlae.data.defects.frames import ExaminedFrame
from dvlae.data.defects.marks import DOUBTFUL, KEPT, SINGLE
from dvlae.data.defects.scale import FrameScale
from dvlae.data.defects.seen import UNTOLD, Conversion, SeenScale
from dvlae.data.manifest import Image
from dvlae.system.arrays import find_numbers, frame_bands, zeros
from dvlae.system.errors import UserError
from dvlae.system.wording import count, list_names

logger = logging.getLogger(__name__)

DOUBT = "left as recorded, as two equally bright pixels side by side may be hot or an object; they are not learned from"


class FramesToDenoise:
    """Gives frames to a model without their defects and on its scale, and takes their estimates back.

    Parameters
    ----------
    seen
        The scales that the model has seen; None: unknown.
    keep_hot
        Whether hot and dead pixels keep their noisy values in the estimates.
    rescale
        Whether frames of another gain and offset are brought to the scale that the model has seen.
    """

    def __init__(self, seen: SeenScale | None, *, keep_hot: bool, rescale: bool):
        self.seen, self.keep_hot, self.rescale = seen, keep_hot, rescale
        self._frames: dict[str, ExaminedFrame] = {}
        self._conversions: dict[str, Conversion] = {}
        # What was found, by the name of the image: a frame may be examined twice.
        self._examined: set[str] = set()
        self._hot: dict[str, int] = {}
        self._doubtful: dict[str, int] = {}
        self._unchanged: dict[str, str] = {}
        self._unseen: dict[str, str] = {}
        self._rescaled: dict[str, Conversion] = {}
        self._help: dict[str, str] = {}

    def take(self, image: Image) -> np.ndarray:
        """Return a frame as the model takes it.

        Parameters
        ----------
        image
            The image.

        Returns
        -------
        (C, ...) array
            The frame without hot, dead and masked pixels, in the units and on the scale that the model has seen.

        Raises
        ------
        UserError
            If the file cannot be read, or its grey values are beyond all that 32 bits hold in the units of the model.
        """
        self._frames[image.name] = frame = self.examine(image)
        if not frame.usable:
            # What the model makes of it is not asked for.
            numbers = zeros(frame.noisy.shape)
            for place in frame_bands(numbers.shape, frame.filled, numbers):
                numbers[place] = np.nan_to_num(frame.filled[place], posinf=0.0, neginf=0.0)
            return numbers
        conversion = self._conversions.get(image.name)
        if conversion is None:
            return frame.filled
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            converted = conversion.apply(frame.filled)
        if find_numbers(converted) is not None:
            raise UserError(
                f"{image.name}: found grey values that 32 bits do not hold in the units of the training, allowed: such "
                "as those of the training; --rescale helps if they have another gain or offset"
            )
        return converted

    def examine(self, image: Image) -> ExaminedFrame:
        """Look at a frame, and note what is found.

        Parameters
        ----------
        image
            The image.

        Returns
        -------
        ExaminedFrame
            The frame in its own units.
        """
        name, noisy = image.name, read_frame(image.noisy, image.frame)
        frame = ExaminedFrame.examine(noisy, read_mask(image))
        self._examined.add(name)
        if not frame.usable:
            self._unchanged[name] = frame.problem
            return frame
        if number := frame.defects.count(SINGLE):
            self._hot[name] = number
        if number := frame.defects.count(DOUBTFUL):
            self._doubtful[name] = number
        if self.seen is None:
            return frame
        units = Conversion.between(read_info(image.noisy).units, self.seen.units, len(noisy))
        scale = units.of_scale(frame.scale) if units.changes else frame.scale
        # The squares of values that :meth:`take` refuses may be beyond all numbers.
        with np.errstate(over="ignore", invalid="ignore"):
            if not self.seen.includes(scale):
                units = self._note_other_scale(name, scale, units)
        if units.changes:
            self._conversions[name] = units
        return frame

    def _note_other_scale(self, name: str, scale: FrameScale, units: Conversion) -> Conversion:
        """Note that a frame differs from those that were seen. Return how it is converted."""
        assert self.seen is not None
        conversion = self.seen.conversion(scale)
        if conversion is not None and self.rescale:
            self._rescaled[name] = conversion
            return units.then(conversion)
        self._unseen[name] = difference = self.seen.difference(scale)
        self._help[name] = "train on such images"
        if conversion is not None:
            rescale = "set `prediction.rescale: true`, or --rescale"
            told = f"if it is the gain or the offset, {rescale}; else {self._help[name]}"
            self._help[name] = told if difference == UNTOLD else rescale
        return units

    def give_back(
        self, name: str, estimate: np.ndarray, std: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return what the model made of a frame, in the units of the frame.

        Parameters
        ----------
        name
            Name of the image.
        estimate, std
            Estimate and standard deviation, (C, ...), which may be changed in place.

        Returns
        -------
        estimate, std
            Masked, glaring and doubtful pixels, and blank and overexposed frames, are as they were recorded, with a
            standard deviation of 0.
        """
        frame, conversion = self._frames.pop(name), self._conversions.get(name)
        if conversion is not None:
            estimate = conversion.undo(estimate)
            std = None if std is None else conversion.scale_deviation(std)
        marks, mask = frame.defects.marks, frame.mask
        for channel, band in frame_bands(estimate.shape, estimate, std, frame.noisy, marks, mask):
            place = channel, band
            unchanged = np.full(marks[place].shape, not frame.usable) | (marks[place] & KEPT != 0)
            if mask is not None:
                unchanged |= ~mask[band]
            np.copyto(estimate[place], frame.noisy[place], where=unchanged)
            if std is not None:
                np.copyto(std[place], 0, where=unchanged)
            if self.keep_hot:
                np.copyto(estimate[place], frame.noisy[place], where=marks[place] & SINGLE != 0)
        return estimate, std

    def convert_samples(self, name: str, arrays: Iterable[np.ndarray]) -> None:
        """Bring samples of the posterior back to the units of their frame, one at a time.

        Parameters
        ----------
        name
            Name of the image.
        arrays
            Samples (S, C, ...), in memory or in a file, changed in place.
        """
        if (conversion := self._conversions.get(name)) is not None:
            for sample in chain.from_iterable(arrays):
                sample[...] = conversion.undo(sample)

    def summary(self) -> dict[str, Any]:
        """Return what was found, as plain values.

        Returns
        -------
        dict
            By kind and by name of the image: the number of hot and dead pixel values, and of doubtful ones; why the
            image was left as it is; what is unseen in it, as :meth:`dvlae.data.defects.seen.SeenScale.difference` says;
            and how it was rescaled.
        """
        return {
            "hot_pixels": self._hot,
            "doubtful_pixels": self._doubtful,
            "unchanged": self._unchanged,
            "unseen": self._unseen,
            "rescaled": {name: found.to_json() for name, found in self._rescaled.items()},
        }

    def log(self) -> None:
        """Say in one line for each kind what was found."""
        if self._hot:
            what = "left as they were recorded" if self.keep_hot else "filled in from their surroundings"
            logger.warning(
                f"predict: {count(sum(self._hot.values()), 'hot or dead pixel value')} in {len(self._hot)} of "
                f"{count(len(self._examined), 'image')}: {what}"
            )
        if self._doubtful:
            logger.warning(
                f"predict: {count(sum(self._doubtful.values()), 'doubtful pixel value')} in {len(self._doubtful)} of "
                f"{count(len(self._examined), 'image')}: {DOUBT}"
            )
        for problem in sorted(set(self._unchanged.values())):
            names = [name for name, found in self._unchanged.items() if found == problem]
            logger.warning(f"predict: {problem}, and left as they are: {list_names(names)}")
        others: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, difference in self._unseen.items():
            others[difference, self._help[name]].append(name)
        for (difference, help_), names in others.items():
            logger.warning(
                f"predict: WARNING: another {difference} than that of most images of the training, so estimates are "
                f"unreliable: {list_names(names)}; {help_}"
            )
