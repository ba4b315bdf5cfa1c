"""A frame as a model takes it, and what becomes of its defects."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dvlae.data.canonical import read_mask, read_noisy
from dvlae.data.defects.filling import fill
from dvlae.data.defects.finding import find_defects
from dvlae.data.defects.marks import KEPT, SATURATED, SINGLE, STANDING_OUT, Defects
from dvlae.data.defects.scale import FrameScale, measure_scale
from dvlae.data.manifest import Image
from dvlae.system.arrays import count_true


@dataclass(frozen=True)
class ExaminedFrame:
    """A frame, and which of its pixels count.

    Attributes
    ----------
    noisy
        The frame as it was recorded, (C, ...).
    mask
        True where a pixel counts, with the spatial axes of the frame; None: everywhere.
    defects
        What was found in the frame.
    """

    noisy: np.ndarray
    mask: np.ndarray | None
    defects: Defects

    @classmethod
    def examine(cls, noisy: np.ndarray, mask: np.ndarray | None = None) -> "ExaminedFrame":
        """Find the defects of a frame.

        Parameters
        ----------
        noisy, mask
            The frame, (C, ...), and where it counts.

        Returns
        -------
        ExaminedFrame
            The frame with what was found in it.
        """
        return cls(noisy, mask, find_defects(noisy, mask))

    @property
    def problem(self) -> str:
        """The reason why no model can use the frame: ``masked``, ``blank`` or ``overexposed``; empty if one can."""
        if self.mask is not None and not count_true(self.mask):
            return "masked"
        return "blank" if self.defects.blank else "overexposed" if self.defects.overexposed else ""

    @property
    def usable(self) -> bool:
        """Whether a model can use the frame."""
        return not self.problem

    @cached_property
    def filled(self) -> np.ndarray:
        """The frame, with values from the surroundings at hot, dead, doubtful, glaring and masked pixels."""
        return fill(self.noisy, self.defects, self.mask)

    @cached_property
    def learned(self) -> np.ndarray | None:
        """Where a value is learned from, (C, ...): at none that is in :attr:`filled` another one. None: everywhere."""
        return self.defects.free_of(SINGLE | KEPT, self.mask)

    @cached_property
    def measured(self) -> np.ndarray | None:
        """Where a value counts in statistics, (C, ...): not where it is saturated, either. None: everywhere."""
        return self.defects.free_of(STANDING_OUT | SATURATED, self.mask)

    @cached_property
    def scale(self) -> FrameScale:
        """The scale of the frame."""
        return measure_scale(self.filled, self.measured)


def read_filled(image: Image) -> np.ndarray:
    """Read a noisy frame without its hot, dead and masked pixels, which have values from their surroundings.

    Parameters
    ----------
    image
        A row of a manifest.

    Returns
    -------
    (C, ...) float32 array
        The frame.

    Raises
    ------
    UserError
        If the file is missing or cannot be read.
    """
    return ExaminedFrame.examine(read_noisy(image), read_mask(image)).filled
