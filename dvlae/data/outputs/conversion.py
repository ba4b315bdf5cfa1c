"""Estimates in the type of a file."""

from dataclasses import dataclass

import numpy as np

from dvlae.config.settings import OutputSettings
from dvlae.data.sources import SourceInfo

# Beyond this offset, float64 numbers are more than a quarter of a grey value apart.
MAX_FLOAT64_OFFSET = 2**50


@dataclass
class Converter:
    """Converts estimates to the type of a file, and counts what is lost.

    Attributes
    ----------
    dtype
        The type of the file.
    offset
        Added to all values, in the type of the file.
    clipped
        Number of values that were beyond the range of the type.
    deviation
        Whether the values are standard deviations.
    scale
        All values are multiplied by it first.
    """

    dtype: np.dtype
    offset: float
    clipped: int = 0
    deviation: bool = False
    scale: float = 1

    @classmethod
    def choose(cls, info: SourceInfo, output: OutputSettings | None = None, *, deviation: bool = False) -> "Converter":
        """Choose the type of the results for a source, in the units of the source.

        Parameters
        ----------
        info
            The source.
        output
            The type that the user wants; None: the usual one.
        deviation
            Whether the values are standard deviations, which have no offset and do not become whole numbers.

        Returns
        -------
        Converter
            A converter for these results.
        """
        wide = np.dtype(np.float64 if info.offset or info.scale != 1 else np.float32)
        if deviation:
            return cls(wide if info.scale != 1 else np.dtype(np.float32), 0, deviation=True, scale=info.scale)
        own = np.dtype(info.dtype)
        # With the offset, float32 numbers would be too far apart, and beyond a larger one float64 numbers, too.
        same = output is not None and output.dtype == "same"
        if same or (own.kind in "iu" and abs(info.offset) > MAX_FLOAT64_OFFSET):
            return cls(own, info.offset, scale=info.scale)
        return cls(wide, info.offset, scale=info.scale)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Convert values.

        Parameters
        ----------
        values
            Some values, as they were computed.

        Returns
        -------
        array
            The values in the type of the file. Whole numbers are rounded and clipped to its range.
        """
        if self.offset or self.scale != 1 or self.dtype.kind in "iu":
            values = values.astype(np.float64) * self.scale
        if self.dtype.kind not in "iu":
            return np.ascontiguousarray(values + self.offset if self.offset else values, self.dtype)
        # The offset is added to whole numbers, as float64 numbers near a large one are far apart.
        values, offset = np.rint(values), int(self.offset)
        low, high = (
            _toward_zero(int(limit) - offset) for limit in (np.iinfo(self.dtype).min, np.iinfo(self.dtype).max)
        )
        inside = np.clip(values, low, high)
        self.clipped += int(np.count_nonzero(inside != values))
        steps, start = np.abs(inside).astype(np.uint64), np.array(offset % 2**64, np.uint64)
        # Numbers that wrap around have the right differences.
        whole = np.where(inside < 0, start - steps, start + steps)
        return np.ascontiguousarray(whole.view(np.int64) if self.dtype.kind == "i" else whole).astype(self.dtype)


def _toward_zero(limit: int) -> float:
    """Return the float64 number next to a limit that is not beyond it."""
    number = float(limit)
    return number if abs(int(number)) <= abs(limit) else float(np.nextafter(number, 0))
