"""Cut a large image into tiles, with a halo as large as the network sees; mirror and shift it.

Windows are in pixels of the padded image, with one range for each spatial axis: each side of an image is extended, at
its end, to a multiple of the model's stride.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from dvlae.system.arrays import release

# Powers of the golden ratio: multiples of them are spread evenly.
_LATTICE = (0.618, 0.382, 0.236)


@dataclass(frozen=True)
class Window:
    """A box of the padded image: one range of pixels for each spatial axis."""

    ranges: tuple[range, ...]

    @property
    def slices(self) -> tuple[slice, ...]:
        """The slices that cut the window out of the last axes of an array."""
        return tuple(slice(side.start, side.stop) for side in self.ranges)

    def grid(self, stride: Sequence[int]) -> "Window":
        """Return the window on the grid of a level with this stride.

        Parameters
        ----------
        stride
            Pixels of the image to one position of the grid along each axis; the ranges are multiples of it.

        Returns
        -------
        Window
            Window in positions of the grid.
        """
        pairs = zip(self.ranges, stride, strict=True)
        return Window(tuple(range(side.start // step, side.stop // step) for side, step in pairs))

    def crop(self, maps: Tensor, stride: Sequence[int] | None = None) -> Tensor:
        """Cut the window out of maps (N, C, ...) that cover the padded image at this stride.

        Parameters
        ----------
        maps
            (N, C, ...).
        stride
            Pixels of the image to one position of the maps along each axis; None: 1.

        Returns
        -------
        Tensor
            A view (N, C, ...).
        """
        window = self if stride is None else self.grid(stride)
        return maps[(slice(None), slice(None), *window.slices)]

    def within(self, outer: "Window") -> "Window":
        """Return this window in the coordinates of a window around it.

        Parameters
        ----------
        outer
            The window around it.

        Returns
        -------
        Window
            Window of the same size.
        """
        pairs = zip(self.ranges, outer.ranges, strict=True)
        return Window(tuple(range(side.start - around.start, side.stop - around.start) for side, around in pairs))

    def widen(self, halo: Sequence[int], shape: Sequence[int]) -> "Window":
        """Return the window with a halo on each side, but not beyond an image of this shape.

        Parameters
        ----------
        halo
            Halo along each axis, in pixels.
        shape
            Sides of the image, in pixels.

        Returns
        -------
        Window
            Window with sides that are longer by at most twice the halo.
        """
        sides = zip(self.ranges, halo, shape, strict=True)
        return Window(tuple(range(max(0, s.start - h), min(length, s.stop + h)) for s, h, length in sides))


def whole_window(shape: Sequence[int]) -> Window:
    """Return the window that covers an image of this shape.

    Parameters
    ----------
    shape
        Sides of the image, in pixels.

    Returns
    -------
    Window
        Window from 0 to each side.
    """
    return Window(tuple(map(range, shape)))


def padded_shape(shape: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of an image after padding to multiples of ``stride``.

    Parameters
    ----------
    shape
        Sides of the image, in pixels.
    stride
        Stride along each axis, in pixels.

    Returns
    -------
    tuple of int
        Sides in pixels.
    """
    return tuple(math.ceil(length / step) * step for length, step in zip(shape, stride, strict=True))


def make_tiles(shape: Sequence[int], tile: int) -> list[Window]:
    """Cover a padded image with windows that do not overlap.

    Parameters
    ----------
    shape
        Sides of the padded image, in pixels.
    tile
        Longest side of a window, in pixels.

    Returns
    -------
    list of Window
        Windows in the order of memory; each pixel is in exactly one.
    """
    sides = [[range(at, min(at + tile, length)) for at in range(0, length, tile)] for length in shape]
    return [Window(ranges) for ranges in itertools.product(*sides)]


@dataclass(frozen=True)
class View:
    """An image that may be mirrored and shifted against the model's grid; it is padded without a copy of the image.

    Attributes
    ----------
    image
        (C, ...), in memory or in a mapped file.
    stride
        For each spatial axis: the side is padded at its end to a multiple of this, by mirroring.
    flipped
        Spatial axes that are mirrored, counted from the end: -1 is X.
    shift
        Pixels of padding before the image along each spatial axis.
    """

    image: np.ndarray
    stride: tuple[int, ...]
    flipped: tuple[int, ...]
    shift: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The sides of the padded image, in pixels."""
        return padded_shape(
            [side + put for side, put in zip(self.image.shape[1:], self.shift, strict=True)], self.stride
        )

    def extract(self, window: Window) -> np.ndarray:
        """Return the pixels in a window, (C, ...).

        Parameters
        ----------
        window
            Window in pixels of this view.

        Returns
        -------
        numpy.ndarray
            A copy, float32.
        """
        sides = zip(self._in_image(window), self.image.shape[1:], strict=True)
        indices = [self._unpad(np.array(side), length) for side, length in sides]
        index: tuple[Any, ...] = (slice(None), *np.ix_(*indices))
        pixels = self.image[index].astype(np.float32, copy=False)
        release(self.image)
        return pixels

    def _in_image(self, window: Window) -> list[range]:
        """Convert the ranges of this view to those of the image, which may extend beyond its ends."""
        sides = list(window.ranges)
        for axis in self.flipped:
            last = self.shape[axis] - 1
            sides[axis] = range(last - sides[axis].start, last - sides[axis].stop, -1)
        return [range(s.start - put, s.stop - put, s.step) for s, put in zip(sides, self.shift, strict=True)]

    @staticmethod
    def _unpad(index: np.ndarray, length: int) -> np.ndarray:
        """Convert indices beyond the ends of an image to those of the pixels that are mirrored there."""
        index = index % (2 * length)
        return np.minimum(index, 2 * length - 1 - index)

    def to_image(self, window: Window, values: Tensor) -> tuple[tuple[slice, ...], Tensor]:
        """Transform values of a window of this view back to the image.

        Parameters
        ----------
        window
            Position of the values in this view.
        values
            (N, C, ...).

        Returns
        -------
        slices, values
            Position of the values in the image, and the values without the padding.
        """
        values = values.flip(self.flipped) if self.flipped else values
        slices, inside = [], []
        for side, length in zip(self._in_image(window), self.image.shape[1:], strict=True):
            start = min(side[0], side[-1])
            kept = slice(min(max(start, 0), length), min(max(start + len(side), 0), length))
            slices.append(kept)
            inside.append(slice(kept.start - start, kept.stop - start))
        return tuple(slices), values[(slice(None), slice(None), *inside)]


def views(image: np.ndarray, stride: tuple[int, ...], axes: Sequence[int] = (), shifts: int = 1) -> list[View]:
    """Return views of an image at several positions of the grid, each with all combinations of mirrored axes.

    Parameters
    ----------
    image
        (C, ...).
    stride
        Stride of the grid along each spatial axis, in pixels.
    axes
        Spatial axes that may be mirrored, counted from the end.
    shifts
        Maximum number of positions; a small grid has fewer. They lie on a lattice, which spreads them evenly.

    Returns
    -------
    list of View
        The image at each position, mirrored in each way.
    """
    choices = [flipped for n in range(len(axes) + 1) for flipped in itertools.combinations(axes, n)]
    steps = [(int(side * part) // 2 * 2 + 1, side) for side, part in zip(stride, _LATTICE, strict=False)]
    places = [tuple(i * generator % side for generator, side in steps) for i in range(min(shifts, max(stride)))]
    return [View(image, stride, flipped, place) for place in places for flipped in choices]


def split_range(numbers: range, size: int) -> list[range]:
    """Divide numbers into batches of this size; the last may be smaller.

    Parameters
    ----------
    numbers
        The numbers, for example those of samples.
    size
        Numbers in a batch.

    Returns
    -------
    list of range
        The batches, in order.
    """
    return [numbers[first : first + size] for first in range(0, len(numbers), size)]
