"""Frames on their way through a model, and their estimates on the way back."""

import logging
from collections import defaultdict
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np

from dvlae.data.defects.frames import ExaminedFrame
from dvlae.data.defects.marks import GLARING, SINGLE
from dvlae.data.defects.seen import UNTOLD, Conversion, SeenScale
from dvlae.system.arrays import frame_bands, zeros
from dvlae.system.wording import count, list_names

logger = logging.getLogger(__name__)


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
        self._total = 0
        self._hot: dict[str, int] = {}
        self._unchanged: dict[str, str] = {}
        self._unseen: dict[str, str] = {}
        # By the difference and what helps, names of images.
        self._others: dict[tuple[str, str], list[str]] = defaultdict(list)

    def take(self, name: str, noisy: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Return a frame as the model takes it.

        Parameters
        ----------
        name
            Name of the image.
        noisy, mask
            The frame, (C, ...), and where it counts, with its spatial axes; None: everywhere.

        Returns
        -------
        (C, ...) array
            The frame without hot, dead and masked pixels, on the scale that the model has seen.
        """
        frame = ExaminedFrame.examine(noisy, mask)
        self._frames[name] = frame
        self._total += 1
        if not frame.usable:
            self._unchanged[name] = frame.problem
            # What the model makes of it is not asked for.
            numbers = zeros(noisy.shape)
            for place in frame_bands(noisy.shape, frame.filled, numbers):
                numbers[place] = np.nan_to_num(frame.filled[place], posinf=0.0, neginf=0.0)
            return numbers
        if number := frame.defects.count(SINGLE):
            self._hot[name] = number
        if self.seen is None or self.seen.includes(frame.scale):
            return frame.filled
        conversion = self.seen.conversion(frame.scale)
        if conversion is not None and self.rescale:
            self._conversions[name] = conversion
            return conversion.apply(frame.filled)
        self._unseen[name] = difference = self.seen.difference(frame.scale)
        help_ = "train on such images"
        if conversion is not None:
            rescale = "set `prediction.rescale: true`, or --rescale"
            help_ = f"if it is the gain or the offset, {rescale}; else {help_}" if difference == UNTOLD else rescale
        self._others[difference, help_].append(name)
        return frame.filled

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
            Masked and glaring pixels, and blank and overexposed frames, are as they were recorded, with a standard
            deviation of 0.
        """
        frame, conversion = self._frames.pop(name), self._conversions.get(name)
        if conversion is not None:
            estimate = conversion.undo(estimate)
            std = None if std is None else conversion.scale_deviation(std)
        marks, mask = frame.defects.marks, frame.mask
        for channel, band in frame_bands(estimate.shape, estimate, std, frame.noisy, marks, mask):
            place = channel, band
            unchanged = np.full(marks[place].shape, not frame.usable) | (marks[place] & GLARING != 0)
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
            By kind and by name of the image: the number of hot and dead pixel values; why the image was left as it is;
            what is unseen in it, as :meth:`dvlae.data.defects.seen.SeenScale.difference` says; and how it was rescaled.
        """
        return {
            "hot_pixels": self._hot,
            "unchanged": self._unchanged,
            "unseen": self._unseen,
            "rescaled": {name: found.to_json() for name, found in self._conversions.items()},
        }

    def log(self) -> None:
        """Say in one line for each kind what was found."""
        if self._hot:
            what = "left as they were recorded" if self.keep_hot else "filled in from their surroundings"
            logger.warning(
                f"predict: {count(sum(self._hot.values()), 'hot or dead pixel value')} in {len(self._hot)} of "
                f"{count(self._total, 'image')}: {what}"
            )
        for problem in sorted(set(self._unchanged.values())):
            names = [name for name, found in self._unchanged.items() if found == problem]
            logger.warning(f"predict: {problem}, and left as they are: {list_names(names)}")
        for (difference, help_), names in self._others.items():
            logger.warning(
                f"predict: WARNING: another {difference} than that of most images of the training, so estimates are "
                f"unreliable: {list_names(names)}; {help_}"
            )
