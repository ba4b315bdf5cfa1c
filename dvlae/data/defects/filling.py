"""Values from the surroundings in the place of those that say nothing."""

import numpy as np

from dvlae.data.defects.finding import REACHES, neighbours
from dvlae.data.defects.marks import GLARING, STANDING_OUT, Defects
from dvlae.system.arrays import bands, rows_of_band, within, zeros


def fill(frame: np.ndarray, defects: Defects, mask: np.ndarray | None = None) -> np.ndarray:
    """Replace hot, dead, doubtful, glaring and masked pixels by what is around them.

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
        A hot, dead or doubtful pixel is the mean of the good ones beside it, and a glaring or masked pixel is the
        nearest that counts; far inside a hole of a very large frame, it may be another one. The frame itself, if there
        is nothing to fill.
    """
    hollow = mask is not None or defects.count(GLARING) > 0
    if not hollow and not defects.count(STANDING_OUT):
        return frame
    filled, sides = zeros(frame.shape, frame.dtype), frame.shape[1:]
    reach = REACHES[min(len(sides), 2)]
    margin = max(reach, rows_of_band(sides)) if hollow else reach
    for values, marks, result in zip(frame, defects.marks, filled, strict=True):
        for band, outer in bands(sides, frame, defects.marks, mask, filled, margin=margin):
            part, core = values[outer].copy(), within(band, outer)
            single, hole = marks[outer] & STANDING_OUT != 0, marks[outer] & GLARING != 0
            if mask is not None:
                hole |= ~mask[outer]
            if single[core].any():
                _fill_single(part, single | hole, single)
            if hole[core].any():
                _fill_from_nearest(part, ~hole)
            result[band] = part[core]
    return filled


def _fill_single(channel: np.ndarray, unusable: np.ndarray, single: np.ndarray) -> None:
    axes = min(channel.ndim, 2)
    planes = channel.reshape(-1, *channel.shape[-axes:])
    good = np.where(unusable, np.nan, channel).reshape(planes.shape)
    places = np.nonzero(single.reshape(planes.shape))
    typical = np.nanmedian(good)
    near, farther = (neighbours(good, places, distance) for distance in (1, REACHES[axes]))
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
