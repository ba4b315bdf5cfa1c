"""Cut an image that is too large into tiles, with as much around each as the network sees; mirror and shift it.

Windows are in pixels of the padded image, one range a spatial axis: each side of an image is extended, at its end, to a
multiple of the model's stride.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

# Powers of the golden ratio: multiples of them are spread evenly.
_LATTICE = (0.618, 0.382, 0.236)


@dataclass(frozen=True)
class Window:
    """A box of the padded image: one range of pixels for each spatial axis."""

    ranges: tuple[range, ...]

    @property
    def slices(self) -> tuple[slice, ...]:
        """What cuts it out of the last axes of an array."""
        return tuple(slice(side.start, side.stop) for side in self.ranges)

    def grid(self, stride: int) -> "Window":
        """Return it on the grid of a level with this stride.

        Parameters
        ----------
        stride
            Pixels of the image to one position of the grid; the ranges are multiples of it.

        Returns
        -------
        Window
            In positions of the grid.
        """
        return Window(tuple(range(side.start // stride, side.stop // stride) for side in self.ranges))

    def crop(self, maps: Tensor, stride: int = 1) -> Tensor:
        """Cut it out of maps (N, C, ...) that cover the whole padded image at this stride.

        Parameters
        ----------
        maps
            (N, C, ...).
        stride
            Pixels of the image to one position of the maps.

        Returns
        -------
        Tensor
            A view (N, C, ...).
        """
        return maps[(slice(None), slice(None), *self.grid(stride).slices)]

    def within(self, outer: "Window") -> "Window":
        """Return this window in the coordinates of a window around it.

        Parameters
        ----------
        outer
            The window around it.

        Returns
        -------
        Window
            Of the same size.
        """
        pairs = zip(self.ranges, outer.ranges, strict=True)
        return Window(tuple(range(side.start - around.start, side.stop - around.start) for side, around in pairs))

    def widen(self, halo: int, shape: Sequence[int]) -> "Window":
        """Return it with so many pixels more on each side, but not beyond an image of this shape.

        Parameters
        ----------
        halo
            In pixels.
        shape
            Sides of the image, in pixels.

        Returns
        -------
        Window
            With sides longer by at most ``2 * halo``.
        """
        pairs = zip(self.ranges, shape, strict=True)
        return Window(tuple(range(max(0, s.start - halo), min(length, s.stop + halo)) for s, length in pairs))


def whole_window(shape: Sequence[int]) -> Window:
    """Return the window that is all of an image of this shape.

    Parameters
    ----------
    shape
        Sides of the image, in pixels.

    Returns
    -------
    Window
        From 0 to each side.
    """
    return Window(tuple(map(range, shape)))


def padded_shape(shape: Sequence[int], stride: int) -> tuple[int, ...]:
    """Return the shape of an image after padding to multiples of ``stride``.

    Parameters
    ----------
    shape
        Sides of the image, in pixels.
    stride
        In pixels.

    Returns
    -------
    tuple of int
        Sides in pixels.
    """
    return tuple(math.ceil(length / stride) * stride for length in shape)


def cut_padding(maps: Tensor, sides: Sequence[int]) -> Tensor:
    """Cut what belongs to an image of these sides out of maps (N, C, ...) of the padded image.

    Parameters
    ----------
    maps
        (N, C, ...), with the sides of the padded image.
    sides
        Sides of the image, in pixels.

    Returns
    -------
    Tensor
        A view (N, C, ...) with these sides.
    """
    return maps[(slice(None), slice(None), *(slice(side) for side in sides))]


def make_tiles(shape: Sequence[int], tile: int) -> list[Window]:
    """Cover a padded image with windows that do not overlap.

    Parameters
    ----------
    shape
        Of the padded image, in pixels.
    tile
        Longest side of a window, in pixels.

    Returns
    -------
    list of Window
        In the order of memory, each pixel in exactly one.
    """
    sides = [[range(at, min(at + tile, length)) for at in range(0, length, tile)] for length in shape]
    return [Window(ranges) for ranges in itertools.product(*sides)]


@dataclass(frozen=True)
class View:
    """An image as it is, or shifted against the model's grid and mirrored; padded, but never copied as a whole.

    Attributes
    ----------
    image
        (C, ...).
    stride
        What the sides are padded to multiples of, at their end, by mirroring what is there.
    flipped
        Spatial axes that are mirrored, counted from the end: -1 is X.
    shift
        Pixels that are put before the image along each spatial axis, likewise.
    """

    image: np.ndarray
    stride: int
    flipped: tuple[int, ...]
    shift: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The sides of the padded image, in pixels."""
        return padded_shape(
            [side + put for side, put in zip(self.image.shape[1:], self.shift, strict=True)], self.stride
        )

    def extract(self, window: Window) -> np.ndarray:
        """Return what is seen in a window, (C, ...).

        Parameters
        ----------
        window
            In pixels of this view.

        Returns
        -------
        numpy.ndarray
            A copy.
        """
        sides = zip(self._in_image(window), self.image.shape[1:], strict=True)
        indices = [self._unpad(np.array(side), length) for side, length in sides]
        index: tuple[Any, ...] = (slice(None), *np.ix_(*indices))
        return self.image[index]

    def _in_image(self, window: Window) -> list[range]:
        """Turn this view's ranges into those of the image, which go on beyond its ends."""
        sides = list(window.ranges)
        for axis in self.flipped:
            last = self.shape[axis] - 1
            sides[axis] = range(last - sides[axis].start, last - sides[axis].stop, -1)
        return [range(s.start - put, s.stop - put, s.step) for s, put in zip(sides, self.shift, strict=True)]

    @staticmethod
    def _unpad(index: np.ndarray, length: int) -> np.ndarray:
        """Turn indices beyond the ends of an image into those of the pixels that are mirrored there."""
        index = index % (2 * length)
        return np.minimum(index, 2 * length - 1 - index)

    def to_image(self, window: Window, values: Tensor) -> tuple[tuple[slice, ...], Tensor]:
        """Bring values of a window of this view back to the image.

        Parameters
        ----------
        window
            Where they stand in this view.
        values
            (N, C, ...).

        Returns
        -------
        slices, values
            Where they stand in the image, and the values without what was padded.
        """
        values = values.flip(self.flipped) if self.flipped else values
        slices, inside = [], []
        for side, length in zip(self._in_image(window), self.image.shape[1:], strict=True):
            start = min(side[0], side[-1])
            kept = slice(min(max(start, 0), length), min(max(start + len(side), 0), length))
            slices.append(kept)
            inside.append(slice(kept.start - start, kept.stop - start))
        return tuple(slices), values[(slice(None), slice(None), *inside)]


def views(image: np.ndarray, stride: int, axes: Sequence[int] = (), shifts: int = 1) -> list[View]:
    """Return an image at some places of the model's grid, each with all combinations of these axes mirrored.

    Parameters
    ----------
    image
        (C, ...).
    stride
        Of the grid, in pixels.
    axes
        Spatial axes that may be mirrored, counted from the end.
    shifts
        Number of places, at most; a small grid has fewer. They lie on a lattice that spreads them evenly.

    Returns
    -------
    list of View
        The image at each place, mirrored in each way.
    """
    choices = [flipped for n in range(len(axes) + 1) for flipped in itertools.combinations(axes, n)]
    generators = [int(stride * part) // 2 * 2 + 1 for part in _LATTICE[: image.ndim - 1]]
    places = [tuple(i * generator % stride for generator in generators) for i in range(min(shifts, stride))]
    return [View(image, stride, flipped, place) for place in places for flipped in choices]
