"""What is marked of the pixels of a frame."""

from dataclasses import dataclass

import numpy as np

from dvlae.system.arrays import frame_bands, zeros

# What is marked of a pixel; hot and dead ones are single pixels.
HOT, DEAD, SATURATED, GLARING, DOUBTFUL = 1, 2, 4, 8, 16
SINGLE = HOT | DEAD
STANDING_OUT = SINGLE | DOUBTFUL
# Nothing is learned from them, and they stay as they were recorded.
KEPT = GLARING | DOUBTFUL


@dataclass(frozen=True)
class Defects:
    """What :func:`find_defects` found in a frame.

    Attributes
    ----------
    marks
        The sum of what each pixel is, (C, ...), uint8: ``HOT`` and ``DEAD``, single pixels far above, and far below,
        all those around them; ``SATURATED``, clipped at the largest grey value; ``GLARING``, one of these that is far
        brighter than all pixels that are not saturated; ``DOUBTFUL``, one of two single pixels side by side that are
        equally bright, of which it cannot be told whether they are hot or an object.
    blank
        Whether all channels are constant: the frame shows nothing.
    overexposed
        Whether nearly all pixels of a channel are saturated.
    crowd
        Number of single pixels that stand out like hot or dead ones, but are too many. They are left as they are.
    """

    marks: np.ndarray
    blank: bool
    overexposed: bool
    crowd: int = 0

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> "Defects":
        """Return the defects of a frame without any.

        Parameters
        ----------
        shape
            Shape of the frame, (C, ...).

        Returns
        -------
        Defects
            Nothing found.
        """
        return cls(np.broadcast_to(np.uint8(0), shape), blank=False, overexposed=False)

    def count(self, kinds: int) -> int:
        """Count pixels.

        Parameters
        ----------
        kinds
            The sum of some marks.

        Returns
        -------
        int
            Number of pixels with any of these marks.
        """
        places = frame_bands(self.marks.shape, self.marks)
        return sum(int(np.count_nonzero(self.marks[place] & kinds)) for place in places)

    def free_of(self, kinds: int, mask: np.ndarray | None) -> np.ndarray | None:
        """Return the pixels that count and lack some marks.

        Parameters
        ----------
        kinds
            The sum of the marks.
        mask
            True where a pixel counts, with the spatial axes of the frame; None: everywhere.

        Returns
        -------
        bool array or None
            (C, ...); None: all pixels.
        """
        if mask is None and not self.count(kinds):
            return None
        free = zeros(self.marks.shape, bool)
        for channel, band in frame_bands(free.shape, free, self.marks, mask):
            without = self.marks[channel, band] & kinds == 0
            free[channel, band] = without if mask is None else without & mask[band]
        return free

    @property
    def hot(self) -> np.ndarray:
        """The hot pixels, (C, ...)."""
        return self.marks & HOT != 0

    @property
    def dead(self) -> np.ndarray:
        """The dead pixels, (C, ...)."""
        return self.marks & DEAD != 0

    @property
    def single(self) -> np.ndarray:
        """The hot and the dead pixels, (C, ...)."""
        return self.marks & SINGLE != 0

    @property
    def saturated(self) -> np.ndarray:
        """The saturated pixels, (C, ...)."""
        return self.marks & SATURATED != 0

    @property
    def glaring(self) -> np.ndarray:
        """The glaring pixels, (C, ...)."""
        return self.marks & GLARING != 0
