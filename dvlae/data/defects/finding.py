"""Pixels and frames that say nothing about the rest: hot, dead and saturated pixels, blank and overexposed frames.

A hot pixel is a single pixel, or one of two neighbours, that lies far above all pixels around it. The optics of a
microscope spread light over several pixels, so that no object looks like this: of a spot with a full width of 1.5
pixels at half its maximum, the four nearest neighbours of the brightest pixel still have 29 % of its height. All
conditions have to hold, and each of them prefers to miss a hot pixel over taking an object for one. With e the height
of a pixel above the second largest of its 8 neighbours,

- e is beyond the tail of e over the local maxima of the image, extrapolated as an exponential one;
- e is many times as large as that of an ordinary local maximum, which is one photon where most pixels are 0, and as
  that at which the tail begins;
- e is larger than the range of the pixels around it, 5 x 5: of noise, texture, edges, and the ends of lines;
- on average, the 8 neighbours have next to nothing of the height of the pixel above the median of those around it;
- it stands alone: not in a group with more such pixels than come together by chance, as the dots of a line do.

One neighbour that is at least a third as high may be hot, too, and does not count in the third and the fourth. At the
border, where only a part of an object may be seen, none may. Of two that are equally high, it cannot be told whether
they are hot or an object that no optics has blurred: they are doubtful, unless there are so many hot pixels that chance
explains them.

A dead pixel is the same upside down. Both are searched in each plane and in each channel by itself.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from dvlae.data.defects.groups import alike_pairs, in_groups
from dvlae.data.defects.marks import DEAD, DOUBTFUL, GLARING, HOT, SATURATED, STANDING_OUT, Defects
from dvlae.system.arrays import (
    bands,
    find_numbers,
    mean_and_std,
    spread_sample,
    within,
    zeros,
)

# Half the side of the window around a pixel, by the number of axes of a plane: of a trace, 8 neighbours are compared.
REACHES = {1: 4, 2: 2}
# With fewer local maxima, it cannot be told what an ordinary one is.
MIN_MAXIMA = 32
# Of an image of more pixels, only every k-th local maximum is looked at.
MAX_MAXIMA = 2**26
# Heights above this quantile of all local maxima are their tail.
TAIL_QUANTILE = 0.9
# In scales of the tail, beyond the largest height that is expected: one false pixel in e^10 = 22,000 images.
TAIL_MARGIN = 10.0
# In heights of an ordinary local maximum.
MIN_HEIGHT = 40.0
# In heights at which the tail begins: more photons in one pixel than where one or two of them make the tail.
MIN_TAIL_HEIGHT = 6.0
# In ranges of the neighbours. It is 2.4 for a spot of 1.5 pixels.
MIN_RANGES = 3.0
# Mean of the neighbours, of the height of the pixel. It is 0.19 for a spot of 1.5 pixels.
MAX_SHARE = 0.04
LIKE_HEIGHT = 0.31
# Range of the neighbours, in heights of an ordinary local maximum.
MIN_SPREAD = 9.0
# Neighbours that are as high; none at the border.
MAX_LIKE = 1
# A larger share of pixels is not defective: it is the noise, or the object.
MAX_FRACTION = 0.005

# Clipping needs this many grey values, and this many times as many pixels at the largest as at any other near it.
MIN_LEVELS = 16
MIN_CLIPPED = 5
NEAR_LEVELS = 8
MIN_PILE_UP = 4
# In standard deviations of all others: a few per cent of the pixels farther than this would decide on the loss.
GLARING_DISTANCE = 10.0
# Of the pixels of a frame.
OVEREXPOSED_FRACTION = 0.95
BLANK_EXCEPTIONS = 1e-4
# Values of a sorted sample of the pixels.
SAMPLE = 2**16


@dataclass(frozen=True)
class _Channel:
    """A channel, where it counts, and what is marked in it."""

    values: np.ndarray
    mask: np.ndarray | None
    marks: np.ndarray

    def bands(self, margin: int = 0) -> Iterator[tuple[slice, slice]]:
        return bands(self.values.shape, self.values, self.mask, self.marks, margin=margin)

    def counted(self, leave_out: int = 0) -> Iterator[np.ndarray]:
        """Yield the values that count, in parts, without those that have some marks."""
        for band, _ in self.bands():
            where = None if self.mask is None else self.mask[band]
            if leave_out:
                free = self.marks[band] & leave_out == 0
                where = free if where is None else free & where
            yield self.values[band].ravel() if where is None else self.values[band][where]

    @cached_property
    def size(self) -> int:
        return sum(part.size for part in self.counted())

    @cached_property
    def typical(self) -> np.generic:
        """The median of a sample of the values that count: one of them, as others may not be numbers of their type."""
        sample = spread_sample(self.counted(), self.size, SAMPLE)
        return np.partition(sample, sample.size // 2)[sample.size // 2]

    def shown(self, rows: slice) -> np.ndarray:
        """Return a part in which no masked pixel stands out."""
        part = self.values[rows] if self.mask is None else np.where(self.mask[rows], self.values[rows], self.typical)
        return part.astype(self.values.dtype if self.values.dtype.kind == "f" else np.float64, copy=False)


def find_defects(frame: np.ndarray, mask: np.ndarray | None = None) -> Defects:
    """Find the defects of a frame, channel by channel.

    Parameters
    ----------
    frame
        (C, X), (C, Y, X) or (C, Z, Y, X).
    mask
        True where a pixel counts, with the spatial axes of the frame; None: wherever all channels are numbers.

    Returns
    -------
    Defects
        None of the pixels found is masked.
    """
    mask = find_numbers(frame) if mask is None else mask
    marks = zeros(frame.shape, np.uint8)
    constant, full, crowd = [], [], 0
    for values, its_marks in zip(frame, marks, strict=True):
        constant.append(is_constant(values, mask))
        if constant[-1]:
            continue
        channel = _Channel(values, mask, its_marks)
        for kind, sign in ((HOT, 1), (DEAD, -1)):
            places, alike = _find_single(channel, sign)
            if (count := len(alike)) > MAX_FRACTION * channel.values.size:
                crowd += count
                continue
            counts = ... if mask is None else mask[places]
            kinds = np.where(alike, DOUBTFUL, kind)[counts] if kind == HOT else kind
            channel.marks[tuple(place[counts] for place in places)] |= np.uint8(kinds)
        full.append(_mark_saturated(channel) >= OVEREXPOSED_FRACTION * channel.size)
    return Defects(marks, all(constant), any(full), crowd)


def is_constant(channel: np.ndarray, mask: np.ndarray | None = None) -> bool:
    """Return whether a channel shows nothing: all pixels have one value, or all but a few, none beside each other.

    Parameters
    ----------
    channel
        With the spatial axes of a frame.
    mask
        True where a pixel counts; None: everywhere.

    Returns
    -------
    bool
        True, too, if no pixel counts.
    """
    counted = _Channel(channel, mask, np.broadcast_to(np.uint8(0), channel.shape))
    if not counted.size:
        return True
    number = 0
    for band, outer in counted.bands(margin=1):
        others = channel[outer] != counted.typical
        if mask is not None:
            others &= mask[outer]
        number += int(np.count_nonzero(others[within(band, outer)]))
        if number > max(1, BLANK_EXCEPTIONS * channel.size):
            return False
        lines = (np.moveaxis(others, axis, 0) for axis in range(others.ndim))
        if any((line[1:] & line[:-1]).any() for line in lines):
            return False
    return True


def _find_single(channel: _Channel, sign: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Find single pixels that lie far above their neighbours in the planes of a channel.

    Return their places, and which of them are pairs that may be an object, (K,).
    """
    shape = channel.values.shape
    axes = min(len(shape), 2)
    reach, nothing = REACHES[axes], (tuple(np.empty(0, int) for _ in shape), np.empty(0, bool))
    # In a narrow image, a line across it looks like a single pixel.
    if min(shape[-axes:]) <= 2 * reach:
        return nothing
    # The bands of a volume consist of complete planes, those of others are parts of one plane.
    along, margin = (0, 0) if axes < len(shape) else (1, reach + 1)

    @lru_cache(maxsize=1)
    def look(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        part = sign * channel.shown(slice(start, stop))
        planes = part.reshape(-1, *part.shape[-axes:])
        return planes, _heights(planes)

    highest: list[float] = []

    def maxima_of_bands() -> Iterator[np.ndarray]:
        for band, outer in channel.bands(margin):
            core = _core(look(outer.start, outer.stop)[1], within(band, outer), along)
            highest.append(core.max())
            yield core[core > 0]

    maxima = spread_sample(maxima_of_bands(), channel.values.size, MAX_MAXIMA)
    if maxima.size < MIN_MAXIMA:
        return nothing
    middle, start = np.quantile(maxima, (0.5, TAIL_QUANTILE))
    tail = maxima[maxima > start] - start
    scale = np.median(tail) / np.log(2) if tail.size else 0.0
    number = tail.size * max(1, -(-channel.values.size // MAX_MAXIMA))
    expected = start + scale * (np.log(max(number, 1)) + TAIL_MARGIN)
    threshold = max(expected, MIN_HEIGHT * middle, MIN_TAIL_HEIGHT * start)
    found: list[tuple[np.ndarray, ...]] = []
    for (band, outer), most in zip(channel.bands(margin), highest, strict=True):
        if most > threshold:
            planes, heights = look(outer.start, outer.stop)
            core = within(band, outer)
            places = np.nonzero(_core(heights, core, along) > threshold)
            places[along][...] += core.start
            places, rises, spreads = _alone(planes, heights, places, reach)
            places[along][...] += outer.start
            # Where hardly any pixel has a photon, the range around one may be 0, and an ordinary maximum is a photon.
            found.append((*places[along:], rises, np.maximum(spreads, MIN_SPREAD * middle)))
    if not found:
        return nothing
    *columns, rises, spreads = (np.concatenate(parts) for parts in zip(*found, strict=True))
    lone = ~in_groups(tuple(columns), axes, channel.values.size)
    everywhere = tuple(column[lone] for column in columns)
    values, size = channel.values[everywhere], channel.values.size
    return everywhere, alike_pairs(everywhere, values, rises[lone], spreads[lone], axes, size)


def _core(heights: np.ndarray, core: slice, along: int) -> np.ndarray:
    return heights[(slice(None),) * along + (core,)]


def _alone(
    planes: np.ndarray, heights: np.ndarray, places: tuple[np.ndarray, ...], reach: int
) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """Choose the places that nothing around them explains. Return their heights and the range around them, too."""
    near = _surroundings(planes, heights, places, 1)
    beyond = np.isnan(neighbours(planes, places, 1)).sum(axis=1)
    # Of an object at the border, only a few pixels are seen.
    alone = np.isnan(near).sum(axis=1) - beyond <= np.where(beyond, 0, MAX_LIKE)
    near, places = near[alone], tuple(place[alone] for place in places)
    all_around = _surroundings(planes, heights, places, reach)
    in_order = np.sort(all_around, axis=1)  # numbers before NaN
    last = np.count_nonzero(np.isfinite(in_order), axis=1)[:, None] - 1
    # The smallest neighbour may be dead.
    spread = np.take_along_axis(in_order, last, axis=1)[:, 0] - in_order[:, 1]
    background = np.nanmedian(all_around, axis=1)
    share = np.nanmean(near, axis=1) - background
    rises = planes[places] - background
    chosen = (heights[places] > MIN_RANGES * spread) & (share < MAX_SHARE * rises)
    return tuple(place[chosen] for place in places), rises[chosen], spread[chosen]


def _heights(planes: np.ndarray) -> np.ndarray:
    """Return the height of each pixel of planes (N, [Y,] X) above its second largest neighbour; in traces, the largest.

    A hot pixel may thus have one hot neighbour. A line has two bright neighbours at each pixel but its ends.
    """
    axes = planes.ndim - 1
    padded = np.pad(planes, [(0, 0), *[(1, 1)] * axes], mode="reflect")
    first = np.full_like(planes, -np.inf)
    second = first.copy()
    for offset in _offsets(axes, 1):
        shifted = padded[:, *(slice(1 + o, 1 + o + side) for o, side in zip(offset, planes.shape[1:], strict=True))]
        np.maximum(second, np.minimum(first, shifted), out=second)
        np.maximum(first, shifted, out=first)
    return planes - (second if axes == 2 else first)


def _offsets(axes: int, distance: int) -> list[tuple[int, ...]]:
    around = itertools.product(range(-distance, distance + 1), repeat=axes)
    return [offset for offset in around if any(offset)]


def neighbours(planes: np.ndarray, places: tuple[np.ndarray, ...], distance: int) -> np.ndarray:
    """Return the neighbours of pixels.

    Parameters
    ----------
    planes
        (N, [Y,] X).
    places
        Indices of the pixels, each (K,).
    distance
        How far neighbours are along each axis, at most.

    Returns
    -------
    array
        (K, neighbours); NaN beyond the border.
    """
    plane, *positions = places
    offsets = np.array(_offsets(len(positions), distance))  # (neighbours, axes)
    indices = [position[:, None] + offset for position, offset in zip(positions, offsets.T, strict=True)]
    inside = np.ones(indices[0].shape, bool)
    for index, side in zip(indices, planes.shape[1:], strict=True):
        inside &= (index >= 0) & (index < side)
    clipped = (index.clip(0, side - 1) for index, side in zip(indices, planes.shape[1:], strict=True))
    return np.where(inside, planes[plane[:, None], *clipped], np.nan)


def _surroundings(planes: np.ndarray, heights: np.ndarray, places: tuple[np.ndarray, ...], distance: int) -> np.ndarray:
    """Return the neighbours of pixels (K,), (K, neighbours), NaN where there is none and where it may be hot, too."""
    values, others = (neighbours(array, places, distance) for array in (planes, heights))
    return np.where(others > LIKE_HEIGHT * heights[places][:, None], np.nan, values)


def _mark_saturated(channel: _Channel) -> int:
    """Mark the pixels at the largest grey value, if so many have it that they were clipped there. Return how many."""
    tops = [
        (part.max(), int(np.count_nonzero(part == part.max()))) for part in channel.counted(STANDING_OUT) if part.size
    ]
    top = max(value for value, _ in tops)
    count = sum(number for value, number in tops if value == top)
    if count < MIN_CLIPPED or not _is_clipped(channel, top, count):
        return 0
    mean, std = mean_and_std(lambda: (part[part != top] for part in channel.counted(STANDING_OUT)))
    kinds = SATURATED | GLARING if top > mean + GLARING_DISTANCE * std else SATURATED
    for band, _ in channel.bands():
        found = (channel.values[band] == top) & (channel.marks[band] & STANDING_OUT == 0)
        channel.marks[band][found if channel.mask is None else found & channel.mask[band]] |= kinds
    return count


def _is_clipped(channel: _Channel, top: float, count: int) -> bool:
    def below() -> Iterator[np.ndarray]:
        return (part[part != top] for part in channel.counted(STANDING_OUT))

    # An image of few grey values, such as counted photons or black and white, is not clipped.
    size = sum(part.size for part in below())
    if len(np.unique(spread_sample(below(), size, SAMPLE))) < MIN_LEVELS:
        return False
    nearest = np.empty(0, channel.values.dtype)
    for part in below():
        nearest = np.concatenate([nearest, part])
        nearest = np.partition(nearest, max(0, nearest.size - SAMPLE))[-SAMPLE:]
    _, counts = np.unique(nearest, return_counts=True)
    return bool(count > MIN_PILE_UP * counts[-NEAR_LEVELS:].max())
