"""Cut an image that is too large into tiles, with as much around each as the network sees, and mirror it.

Windows are in pixels of the padded image, one range a spatial axis: each side of an image is extended, at its end, to a
multiple of the model's stride.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """A box of the padded image: one range of pixels for each spatial axis."""

    ranges: tuple[range, ...]

    @property
    def size(self) -> int:
        """Number of its pixels."""
        return math.prod(map(len, self.ranges))

    @property
    def slices(self) -> tuple[slice, ...]:
        """What cuts it out of the last axes of an array."""
        return tuple(slice(side.start, side.stop) for side in self.ranges)

    def grid(self, stride: int) -> "Window":
        """Return it on the grid of a level with this stride."""
        return Window(tuple(range(side.start // stride, side.stop // stride) for side in self.ranges))

    def cut(self, maps: Tensor, stride: int = 1) -> Tensor:
        """Cut it out of maps (N, C, ...) that cover the whole padded image at this stride."""
        return maps[..., *self.grid(stride).slices]

    def within(self, outer: "Window") -> "Window":
        """Return this window in the coordinates of a window around it."""
        pairs = zip(self.ranges, outer.ranges, strict=True)
        return Window(tuple(range(side.start - around.start, side.stop - around.start) for side, around in pairs))

    def widen(self, halo: int, shape: Sequence[int]) -> "Window":
        """Return it with so many pixels more on each side, but not beyond an image of this shape."""
        pairs = zip(self.ranges, shape, strict=True)
        return Window(tuple(range(max(0, s.start - halo), min(length, s.stop + halo)) for s, length in pairs))


def whole(shape: Sequence[int]) -> Window:
    """Return the window that is all of an image of this shape."""
    return Window(tuple(map(range, shape)))


def pad_up(shape: Sequence[int], stride: int) -> tuple[int, ...]:
    """Return the shape of an image after padding to multiples of ``stride``."""
    return tuple(math.ceil(length / stride) * stride for length in shape)


def make_tiles(shape: Sequence[int], tile: int) -> list[Window]:
    """Cover a padded image with windows that do not overlap.

    Parameters
    ----------
    shape
        Of the padded image, in pixels.
    tile
        Longest side of a window, in pixels.
    """
    sides = [[range(at, min(at + tile, length)) for at in range(0, length, tile)] for length in shape]
    return [Window(ranges) for ranges in itertools.product(*sides)]


@dataclass(frozen=True)
class View:
    """An image as it is, or mirrored along some of its axes; padded, but never copied as a whole.

    Attributes
    ----------
    image
        (C, ...).
    stride
        What the sides are padded to multiples of, at their end, by mirroring what is there.
    flipped
        Spatial axes that are mirrored, counted from the end: -1 is X.
    """

    image: np.ndarray
    stride: int
    flipped: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Sides of the padded image, in pixels."""
        return pad_up(self.image.shape[1:], self.stride)

    def read(self, window: Window) -> np.ndarray:
        """Return what is seen in a window, (C, ...)."""
        sides = zip(self._mirror(window), self.image.shape[1:], strict=True)
        indices = [self._unpad(np.array(side), length) for side, length in sides]
        return self.image[:, *np.ix_(*indices)]

    def _mirror(self, window: Window) -> list[range]:
        """Turn this view's ranges into those of the unmirrored image, or back."""
        sides = list(window.ranges)
        for axis in self.flipped:
            last = self.shape[axis] - 1
            sides[axis] = range(last - sides[axis].start, last - sides[axis].stop, -1)
        return sides

    @staticmethod
    def _unpad(index: np.ndarray, length: int) -> np.ndarray:
        """Turn indices of the padded image into those of the pixels that stand there."""
        index = index % (2 * length)
        return np.minimum(index, 2 * length - 1 - index)

    def give_back(self, window: Window, values: Tensor) -> tuple[tuple[slice, ...], Tensor]:
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
        slices = []
        for side, length in zip(self._mirror(window), self.image.shape[1:], strict=True):
            first, last = min(side[0], side[-1]), max(side[0], side[-1])
            slices.append(slice(min(first, length), min(last + 1, length)))
        return tuple(slices), values[..., *(slice(0, s.stop - s.start) for s in slices)]


def views(image: np.ndarray, stride: int, axes: Sequence[int]) -> list[View]:
    """Return an image as it is and with each combination of these axes mirrored."""
    choices = [flipped for n in range(len(axes) + 1) for flipped in itertools.combinations(axes, n)]
    return [View(image, stride, flipped) for flipped in choices]
