"""What results have to know of a source."""

import logging
import math
import re
from dataclasses import replace

from dvlae.data.outputs.imagej import PLACED, select
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
    planes = math.prod(size for axis, size in sizes if axis not in "YX")
    cut = math.prod(shape) < math.prod(source.shape)
    names = calibration.channels if channel is None else ()
    starts = {axis: part.start for axis, part in zip(stack.spatial, stack.window, strict=True) if part.start}
    if isinstance(channel, int):
        names = calibration.channels[channel : channel + 1]
        starts["C"] = channel
    items = select(calibration.imagej, channel, stack.channels, cut=cut)
    lost = [name for name in PLACED if name in calibration.imagej and name not in items]
    if lost:
        logger.warning(
            f"{source.path}: results do not keep {', '.join(lost)} of ImageJ, as a part of the image is read"
        )
    if cut and REGION_OF_OME.search(calibration.description):
        logger.warning(f"{source.path}: results have no regions of interest of OME, as only a part of it is read")
    return SourceInfo(
        axes,
        shape,
        source.kind,
        source.dtype.name,
        replace(
            calibration,
            channels=names,
            labels=calibration.labels if len(calibration.labels) == planes else (),
            imagej=items,
        ),
        series=source.series,
        starts=starts,
    )
