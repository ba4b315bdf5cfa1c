"""Large arrays in temporary files, and the bands of rows that they are worked on in.

What a process touches of a mapped file counts as its memory, so each band is released when the next one begins.
"""

import math
import mmap
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np

from dvlae.system.files import reserve_space

# Larger arrays are in temporary files: 256 MiB.
MAX_ARRAY_BYTES = 2**28
# Values in a band: 64 MiB of float32. A smaller array is one band.
BAND_VALUES = 2**24


def zeros(shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
    """Return zeros, in memory or, if they are many, in a temporary file.

    Parameters
    ----------
    shape, dtype
        As NumPy takes them.

    Returns
    -------
    array
        The file of a large one is in ``TMPDIR``, and is removed with the array.
    """
    if math.prod(shape) * np.dtype(dtype).itemsize > MAX_ARRAY_BYTES:
        return zeros_in_file(shape, dtype)
    return np.zeros(shape, dtype)


def zeros_in_file(shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
    """Return zeros in a temporary file, which is removed with the array.

    Parameters
    ----------
    shape, dtype
        As NumPy takes them.

    Returns
    -------
    array
        The mapped file.
    """
    with NamedTemporaryFile() as file:  # A file that has no name any more lasts as long as it is mapped.
        array = np.memmap(file, dtype, "w+", shape=tuple(shape))
        reserve_space(file.name)
    return np.asarray(array)


def release(*arrays: np.ndarray | None) -> None:
    """Give back the memory of arrays that are in files, which keep their values. Windows does so by itself.

    Parameters
    ----------
    *arrays
        Arrays, or parts of them. Nothing happens to those in memory.
    """
    for array in arrays:
        owner: object = array
        while isinstance(owner, np.ndarray):
            owner = owner.base
        if isinstance(owner, mmap.mmap) and sys.platform != "win32":
            owner.madvise(mmap.MADV_DONTNEED)


def rows_of_band(shape: Sequence[int]) -> int:
    """Return how many rows a band of an array has.

    Parameters
    ----------
    shape
        Shape of the array, of which the rows are along the first axis.

    Returns
    -------
    int
        At least 1.
    """
    return max(1, BAND_VALUES // math.prod(shape[1:]))


def bands(shape: Sequence[int], *arrays: np.ndarray | None, margin: int = 0) -> Iterator[tuple[slice, slice]]:
    """Divide an array into bands along its first axis.

    Parameters
    ----------
    shape
        Shape of the array.
    *arrays
        The arrays that are read or written in the bands. They are released after each.
    margin
        How much more is read on each side of a band.

    Yields
    ------
    band, outer
        The band, and the band with its margin, which ends with the array. The bands do not overlap.

    Examples
    --------
    >>> list(bands((10, 2**23), margin=1))[:2]
    [(slice(0, 2, None), slice(0, 3, None)), (slice(2, 4, None), slice(1, 5, None))]
    """
    rows = max(margin, rows_of_band(shape))
    for start in range(0, shape[0], rows):
        stop = min(start + rows, shape[0])
        yield slice(start, stop), slice(max(0, start - margin), min(stop + margin, shape[0]))
        release(*arrays)


def frame_bands(shape: Sequence[int], *arrays: np.ndarray | None) -> Iterator[tuple[int, slice]]:
    """Divide a frame into bands along its first spatial axis, channel by channel.

    Parameters
    ----------
    shape
        Shape of the frame, (C, ...).
    *arrays
        The arrays that are read or written in the bands. They are released after each.

    Yields
    ------
    channel, band
        An index of the frame.
    """
    for channel in range(shape[0]):
        for band, _ in bands(shape[1:], *arrays):
            yield channel, band


def within(band: slice, outer: slice) -> slice:
    """Return where a band is in the band with its margin.

    Parameters
    ----------
    band, outer
        As :func:`bands` yields them.

    Returns
    -------
    slice
        A slice of the outer band.
    """
    return slice(band.start - outer.start, band.stop - outer.start)


def spread_sample(parts: Iterable[np.ndarray], size: int, most: int) -> np.ndarray:
    """Return evenly spaced values of an array that comes in parts.

    Parameters
    ----------
    parts
        The array, (N,), divided.
    size
        Its length, or more.
    most
        How many values are returned at most.

    Returns
    -------
    array
        Every k-th value.

    Examples
    --------
    >>> spread_sample([np.arange(0, 4), np.arange(4, 9)], 9, 3)
    array([0, 3, 6])
    """
    step = max(1, math.ceil(size / most))
    chosen, skipped = [], 0
    for part in parts:
        chosen.append(part[skipped::step].copy())
        skipped = (skipped - len(part)) % step
    return np.concatenate(chosen)


def count_true(array: np.ndarray) -> int:
    """Count the elements that are true, or not 0.

    Parameters
    ----------
    array
        Of any type.

    Returns
    -------
    int
        Their number.
    """
    return sum(int(np.count_nonzero(array[band])) for band, _ in bands(array.shape, array))


def mean_and_std(parts: Callable[[], Iterable[np.ndarray]]) -> tuple[float, float]:
    """Return the mean and the standard deviation of an array that comes in parts.

    Parameters
    ----------
    parts
        Returns the array, divided. It is called twice.

    Returns
    -------
    mean, std
        NaN without any values.
    """
    size, total = 0, 0.0
    for part in parts():
        size, total = size + part.size, total + float(part.sum(dtype=np.float64))
    if not size:
        return math.nan, math.nan
    mean = total / size
    squares = sum(float(np.square(np.subtract(part, mean, dtype=np.float64)).sum()) for part in parts())
    return mean, math.sqrt(squares / size)


def find_numbers(frame: np.ndarray) -> np.ndarray | None:
    """Find the pixels of a frame that are numbers in all channels.

    Parameters
    ----------
    frame
        (C, ...).

    Returns
    -------
    bool array or None
        True at numbers, with the spatial axes of the frame; None: all pixels are.
    """
    if frame.dtype.kind in "iu" or all(np.isfinite(frame[at]).all() for at in frame_bands(frame.shape, frame)):
        return None
    numbers = zeros(frame.shape[1:], bool)
    for band, _ in bands(frame.shape[1:], frame, numbers):
        numbers[band] = np.isfinite(frame[:, band]).all(axis=0)
    return numbers
