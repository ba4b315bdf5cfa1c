"""Frames on their way through a model, and their estimates on the way back."""

import logging
from typing import Any

import numpy as np

from dvlae.data.defects.frames import ExaminedFrame, list_names
from dvlae.data.defects.marks import GLARING, SINGLE
from dvlae.data.defects.scale import Conversion, SeenScale
from dvlae.system.arrays import frame_bands, zeros

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
        self._hot: dict[str, int] = {}
        self._unchanged: dict[str, str] = {}
        self._unseen: dict[str, str] = {}

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
        if not frame.usable:
            self._unchanged[name] = frame.problem
            # What the model makes of it is not asked for.
            numbers = zeros(noisy.shape)
            for place in frame_bands(noisy.shape, frame.filled, numbers):
                numbers[place] = np.nan_to_num(frame.filled[place], posinf=0.0, neginf=0.0)
            return numbers
        if count := frame.defects.count(SINGLE):
            self._hot[name] = count
        if self.seen is None or self.seen.includes(frame.scale):
            return frame.filled
        conversion = self.seen.conversion(frame.scale)
        if conversion is not None and self.rescale:
            self._conversions[name] = conversion
            return conversion.apply(frame.filled)
        self._unseen[name] = "other" if conversion is None else "gain and offset"
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

    def convert_samples(self, name: str, samples: np.ndarray) -> None:
        """Bring samples of the posterior back to the units of their frame, one at a time.

        Parameters
        ----------
        name
            Name of the image.
        samples
            (S, C, ...), in memory or in a file, changed in place.
        """
        if (conversion := self._conversions.get(name)) is not None:
            for sample in samples:
                sample[...] = conversion.undo(sample)

    def summary(self) -> dict[str, Any]:
        """Return what was found, as plain values.

        Returns
        -------
        dict
            By kind and by name of the image: the number of hot and dead pixel values; why the image was left as it is;
            what is unseen in it, ``gain and offset`` or ``other``; and how it was rescaled.
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
            what = "keep their noisy values" if self.keep_hot else "were filled in from their surroundings"
            logger.warning(
                f"predict: {sum(self._hot.values())} hot or dead pixel values in {len(self._hot)} images {what}"
            )
        if self._unchanged:
            logger.warning(
                f"predict: blank, masked or overexposed, and left as they are: {list_names(list(self._unchanged))}"
            )
        for kind, what, help_ in (
            ("gain and offset", "other gain or offset", "set `prediction.rescale: true`"),
            ("other", "other grey values or other noise", "train on such images"),
        ):
            if names := [name for name, found in self._unseen.items() if found == kind]:
                logger.warning(
                    f"predict: WARNING: {what} than in the training, so estimates are unreliable: {list_names(names)}; "
                    f"{help_}"
                )
