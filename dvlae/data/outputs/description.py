"""What results have to know of a source."""

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dvlae.data.formats.tiff_metadata import IMAGEJ_PLACED
from dvlae.data.outputs.imagej import select
from dvlae.data.reading import Stack
from dvlae.data.sources import SourceInfo

logger = logging.getLogger(__name__)

REGION_OF_OME = re.compile(r"<(\w+:)?ROI\b")


def describe(stack: Stack) -> SourceInfo:
    """Return what results have to know of a source.

    Parameters
    ----------
    stack
        The source, as the dataset's settings read it.

    Returns
    -------
    SourceInfo
        Its axes and its calibration, after the choice of a channel and the crop.
    """
    source, calibration, channel = stack.source, stack.source.calibration, stack.channel
    sizes = [(axis, size) for axis, size in zip(stack.axes, stack.shape, strict=True) if (axis, size) != ("C", 1)]
    axes, shape = "".join(axis for axis, _ in sizes), tuple(size for _, size in sizes)
    cut = math.prod(shape) < math.prod(source.shape)
    names = calibration.channels if channel is None or stack.channels == 1 else ()
    starts = {axis: part.start for axis, part in zip(stack.spatial, stack.window, strict=True) if part.start}
    if isinstance(channel, int):
        names = calibration.channels[channel : channel + 1]
        starts["C"] = channel
    items = select(calibration.imagej, channel, stack.channels, cut=cut)
    lost = [name for name in IMAGEJ_PLACED if name in calibration.imagej and name not in items]
    if lost:
        logger.warning(
            f"{source.path}: results do not keep {', '.join(lost)} of ImageJ, as a part of the image is read"
        )
    if cut and REGION_OF_OME.search(calibration.description):
        logger.warning(f"{source.path}: results have no regions of interest of OME, as only a part of it is read")
    # A channel that was chosen is no longer an axis.
    possible = (source.stated, source.axes, source.axes.replace("C", ""))
    return SourceInfo(
        axes,
        shape,
        source.kind,
        source.dtype.name,
        replace(
            calibration,
            channels=names,
            labels=_labels_of_part(stack, starts),
            imagej=items,
        ),
        series=source.series,
        starts=starts,
        stated=next((stated for stated in possible if _reads_as_images(stated, axes)), ""),
    )


def _reads_as_images(stated: str, axes: str) -> bool:
    """Return whether axes differ from those of a file only in that its planes or channels are images."""
    if len(stated) != len(axes) or stated == axes:
        return False
    return all(found == read or (found in "ZC" and read in "ST") for found, read in zip(stated, axes, strict=True))


def _labels_of_part(stack: Stack, starts: Mapping[str, int]) -> tuple[str, ...]:
    """Return the labels of the planes that are read; none if there is not one for each plane of the source."""
    whole = dict(zip(stack.spatial, stack.complete_sides, strict=True)) | {"C": stack.channels}
    kept = [(axis, size) for axis, size in zip(stack.axes, stack.shape, strict=True) if axis not in "YX"]
    labels = np.array(stack.source.calibration.labels, object)
    full = [whole.get(axis, size) for axis, size in kept]
    computed = stack.channel == "grey" and stack.channels > 1
    if labels.size != math.prod(full) or computed:
        return ()
    part = tuple(slice(starts.get(axis, 0), starts.get(axis, 0) + size) for axis, size in kept)
    return tuple(map(str, labels.reshape(full)[part].ravel()))
