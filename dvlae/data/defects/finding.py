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
border, where only a part of an object may be seen, none may.

A dead pixel is the same upside down. Both are searched in each plane and in each channel by itself.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Half the side of the window around a pixel, by the number of axes of a plane: of a trace, 8 neighbours are compared.
REACHES = {1: 4, 2: 2}
# With fewer local maxima, it cannot be told what an ordinary one is.
MIN_MAXIMA = 32
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
# Neighbours that are as high; none at the border.
MAX_LIKE = 1
# Pixels that are no farther apart, along each axis, form a group.
GROUP_DISTANCE = 5
# Probability of the largest group in an image, if defective pixels are at random places.
MAX_CHANCE = 0.01
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
class Defects:
    """What :func:`find_defects` found in a frame.

    Attributes
    ----------
    hot, dead
        Single pixels far above, and far below, all those around them, (C, ...).
    saturated
        Pixels that were clipped at the largest grey value, (C, ...).
    glaring
        Those of them that are far brighter than all pixels that are not saturated, (C, ...).
    blank
        Whether all channels are constant: the frame shows nothing.
    overexposed
        Whether nearly all pixels of a channel are saturated.
    crowd
        Number of pixels that look hot or dead, but are too many to be defective.
    """

    hot: np.ndarray
    dead: np.ndarray
    saturated: np.ndarray
    glaring: np.ndarray
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
        nothing = np.zeros(shape, bool)
        return cls(nothing, nothing, nothing, nothing, blank=False, overexposed=False)

    @cached_property
    def single(self) -> np.ndarray:
        """The hot and the dead pixels, (C, ...)."""
        return self.hot | self.dead

    @property
    def any(self) -> bool:
        """Whether any pixel is hot, dead or saturated."""
        return bool(self.single.any() or self.saturated.any())


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
    if frame.dtype.kind != "f":
        frame = frame.astype(np.float64)
    if mask is None and not np.isfinite(frame).all():
        mask = np.isfinite(frame).all(axis=0)
    hot, dead, saturated, glaring = np.zeros((4, *frame.shape), bool)
    constant, full, crowd = [], [], 0
    for number, channel in enumerate(frame):
        values = channel.ravel() if mask is None else channel[mask]
        constant.append(is_constant(channel, mask))
        if constant[-1]:
            continue
        # A masked pixel must not stand out.
        planes = channel if mask is None else np.where(mask, channel, _typical(values)).astype(channel.dtype)
        for found, sign in ((hot[number], 1), (dead[number], -1)):
            found[...] = _find_single(sign * planes)
            if (count := int(np.count_nonzero(found))) > MAX_FRACTION * found.size:
                crowd += count
                found[...] = False
        single = hot[number] | dead[number]
        excluded = single if mask is None else single | ~mask
        saturated[number] = _find_saturated(planes, excluded)
        if saturated[number].any():
            rest = channel[~(excluded | saturated[number])]
            if channel[saturated[number]][0] > rest.mean() + GLARING_DISTANCE * rest.std():
                glaring[number] = saturated[number]
        full.append(np.count_nonzero(saturated[number]) >= OVEREXPOSED_FRACTION * values.size)
        if mask is not None:
            hot[number] &= mask
            dead[number] &= mask
    return Defects(hot, dead, saturated, glaring, all(constant), any(full), crowd)


def _typical(values: np.ndarray) -> float:
    return float(np.median(values[:: -(-values.size // SAMPLE)]))


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
    values = channel.ravel() if mask is None else channel[mask]
    if not values.size:
        return True
    others = channel != _typical(values)
    if mask is not None:
        others &= mask
    if np.count_nonzero(others) > max(1, BLANK_EXCEPTIONS * others.size):
        return False
    lines = (np.moveaxis(others, axis, 0) for axis in range(others.ndim))
    return not any((line[1:] & line[:-1]).any() for line in lines)


def _find_single(channel: np.ndarray) -> np.ndarray:
    """Return where single pixels lie far above their neighbours in the planes of a channel."""
    axes = min(channel.ndim, 2)
    sides, reach = channel.shape[-axes:], REACHES[axes]
    found = np.zeros(channel.shape, bool)
    # In a narrow image, a line across it looks like a single pixel.
    if min(sides) <= 2 * reach:
        return found
    planes = channel.reshape(-1, *sides)
    heights = _heights(planes)
    maxima = heights[heights > 0]
    if maxima.size < MIN_MAXIMA:
        return found
    middle, start = np.quantile(maxima, (0.5, TAIL_QUANTILE))
    tail = maxima[maxima > start] - start
    scale = np.median(tail) / np.log(2) if tail.size else 0.0
    expected = start + scale * (np.log(max(tail.size, 1)) + TAIL_MARGIN)
    threshold = max(expected, MIN_HEIGHT * middle, MIN_TAIL_HEIGHT * start)
    places = np.nonzero(heights > threshold)
    near = _surroundings(planes, heights, places, 1)
    beyond = np.isnan(_neighbours(planes, places, 1)).sum(axis=1)
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
    chosen = (heights[places] > MIN_RANGES * spread) & (share < MAX_SHARE * (planes[places] - background))
    found.reshape(planes.shape)[tuple(place[chosen] for place in places)] = True
    return found & ~_in_groups(found.reshape(planes.shape)).reshape(found.shape) if found.any() else found


def _in_groups(found: np.ndarray) -> np.ndarray:
    """Return which pixels of planes (N, [Y,] X) stand in groups that are too large for pixels at random places.

    Such a group is an object, such as a dotted line.
    """
    from scipy import ndimage

    axes = found.ndim - 1
    beside = np.zeros((3,) * found.ndim, bool)
    beside[1] = True  # Pixels of different planes are not neighbours.
    clusters, number = ndimage.label(found, beside)
    groups, _ = ndimage.label(ndimage.maximum_filter(found, (1, *[GROUP_DISTANCE] * axes)), beside)
    _, firsts = np.unique(clusters, return_index=True)
    sizes = np.bincount(groups.flat[firsts[1:]], minlength=groups.max() + 1)  # in clusters
    # At random places, a group that grows from one pixel to the next has Borel's distribution.
    neighbours = number * (2 * GROUP_DISTANCE + 1) ** axes / found.size
    size = np.arange(1, number + 1)
    steps = np.cumsum(np.log(size))  # log(size!)
    chances = np.exp(-neighbours * size + (size - 1) * np.log(neighbours * size) - steps)
    too_large = number * np.cumsum(chances[::-1])[::-1] < MAX_CHANCE
    return np.append(False, too_large)[sizes][groups] & found


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


def _neighbours(planes: np.ndarray, places: tuple[np.ndarray, ...], distance: int) -> np.ndarray:
    """Return the neighbours of pixels (K,) up to a distance, (K, neighbours); NaN beyond the border."""
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
    values, others = (_neighbours(array, places, distance) for array in (planes, heights))
    return np.where(others > LIKE_HEIGHT * heights[places][:, None], np.nan, values)


def _find_saturated(channel: np.ndarray, excluded: np.ndarray) -> np.ndarray:
    """Return the pixels at the largest grey value, if so many have it that they were clipped there."""
    values = channel[~excluded]
    top = values.max()
    at_top = values == top
    below = values[~at_top]
    count = values.size - below.size
    # An image of few grey values, such as counted photons or black and white, is not clipped.
    if count < MIN_CLIPPED or len(np.unique(below[:: -(-below.size // SAMPLE) or 1])) < MIN_LEVELS:
        return np.zeros(channel.shape, bool)
    nearest = np.partition(below, max(0, below.size - SAMPLE))[-SAMPLE:]
    _, counts = np.unique(nearest, return_counts=True)
    if count <= MIN_PILE_UP * counts[-NEAR_LEVELS:].max():
        return np.zeros(channel.shape, bool)
    return (channel == top) & ~excluded


def fill(frame: np.ndarray, defects: Defects, mask: np.ndarray | None = None) -> np.ndarray:
    """Replace hot, dead, glaring and masked pixels by what is around them.

    Parameters
    ----------
    frame
        (C, ...).
    defects
        What was found in it.
    mask
        True where a pixel counts, with the spatial axes of the frame; None: everywhere.

    Returns
    -------
    (C, ...) array
        A hot or dead pixel is the mean of the good ones beside it, and a glaring or masked pixel is the nearest that
        counts. The frame itself, if there is nothing to fill.
    """
    holes = defects.glaring if mask is None else defects.glaring | ~mask
    if not holes.any() and not defects.single.any():
        return frame
    filled = frame.copy()
    for channel, single, hole in zip(filled, defects.single, holes, strict=True):
        if single.any():
            _fill_single(channel, single | hole, single)
        if hole.any():
            _fill_from_nearest(channel, ~hole)
    return filled


def _fill_single(channel: np.ndarray, unusable: np.ndarray, single: np.ndarray) -> None:
    axes = min(channel.ndim, 2)
    planes = channel.reshape(-1, *channel.shape[-axes:])
    good = np.where(unusable, np.nan, channel).reshape(planes.shape)
    places = np.nonzero(single.reshape(planes.shape))
    typical = np.nanmedian(good)
    near, farther = (_neighbours(good, places, distance) for distance in (1, REACHES[axes]))
    means = [
        np.nansum(values, axis=1) / np.maximum(1, np.count_nonzero(np.isfinite(values), axis=1))
        for values in (near, farther)
    ]
    some = [np.isfinite(values).any(axis=1) for values in (near, farther)]
    planes[places] = np.select(some, means, typical)


def _fill_from_nearest(channel: np.ndarray, mask: np.ndarray) -> None:
    from scipy import ndimage

    if mask.any():
        nearest = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
        channel[...] = channel[tuple(nearest)]
    else:
        channel[...] = 0
