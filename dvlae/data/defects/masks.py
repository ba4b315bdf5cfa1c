"""The part of a frame that shows something: without pixels that are not numbers, and without a constant border."""

import numpy as np

# Values along the border of a frame that may be those of a constant border: the most frequent ones.
MAX_VALUES = 3
# A constant border has a square of this side in it, or complete rows or columns; of a trace, this many pixels.
MIN_THICKNESS = {1: 8, 2: 5, 3: 5}
# Pixels with the border's value elsewhere, of those in the border. A background that is clipped has many.
MAX_ELSEWHERE = 0.01


def find_mask(frame: np.ndarray) -> np.ndarray | None:
    """Find the pixels of a frame that count.

    Registration, rotation and round fields of view leave borders without an image: pixels that are not numbers, or
    that have one value which hardly any other pixel has. A background that is clipped at 0 is no such border.

    Parameters
    ----------
    frame
        (C, ...).

    Returns
    -------
    bool array or None
        True where all channels are numbers and one of them is not in a constant border, with the spatial axes of the
        frame. None: all pixels count. If the frame is constant, all its numbers count.
    """
    numbers = np.isfinite(frame).all(axis=0)
    border = np.ones(numbers.shape, bool)
    for channel in frame:
        border &= _constant_border(channel)
    mask = numbers & ~border
    if not mask.any():
        mask = numbers
    return None if mask.all() else mask


def _constant_border(channel: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    border = np.zeros(channel.shape, bool)
    edge = np.zeros(channel.shape, bool)
    for axis in range(channel.ndim):
        np.moveaxis(edge, axis, 0)[[0, -1]] = True
    values, counts = np.unique(channel[edge & np.isfinite(channel)], return_counts=True)
    largest = np.nanmax(channel) if values.size else np.nan
    for value in values[np.argsort(-counts, kind="stable")[:MAX_VALUES]]:
        same = channel == value
        labels, _ = ndimage.label(same)
        at_edge = np.unique(labels[edge & same])
        region = np.isin(labels, at_edge)
        elsewhere = np.count_nonzero(same & ~region)
        if elsewhere > MAX_ELSEWHERE * np.count_nonzero(region):
            continue
        # Bright objects that are clipped reach the border, too, but do not fill complete rows.
        if _fills_lines(region) or (value < largest and _is_thick(region)):
            border |= region
    return border


def _fills_lines(region: np.ndarray) -> bool:
    """Return whether a region fills a face of a frame completely; an end of a trace is no face."""
    return region.ndim > 1 and any(
        face.all() for axis in range(region.ndim) for face in np.moveaxis(region, axis, 0)[[0, -1]]
    )


def _is_thick(region: np.ndarray) -> bool:
    from scipy import ndimage

    side = MIN_THICKNESS[region.ndim]
    square = np.ones([1] * (region.ndim - 2) + [side] * min(region.ndim, 2), bool)
    return bool(ndimage.binary_erosion(region, square).any())
