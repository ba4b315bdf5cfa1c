"""Reading of Nikon's ND2 files."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dvlae.data.formats.compressed.streams import loss_note
from dvlae.data.formats.parts import PartSource, optional_module, read_planes
from dvlae.data.pixels import errors_named
from dvlae.data.sources import Calibration, Source

# Axes by their letters in nd2, where P counts positions of the stage and S is red, green and blue.
LETTERS = {"T": "T", "Z": "Z", "C": "C", "Y": "Y", "X": "X", "S": "C"}


@contextmanager
def sources(path: Path) -> Iterator[list[Source]]:
    """Open an ND2 file.

    Parameters
    ----------
    path
        The file.

    Yields
    ------
    list of Source
        One source; positions of the stage are an axis of it.

    Raises
    ------
    UserError
        If the file is damaged, or the package that reads it is missing.
    """
    nd2 = optional_module("nd2", path)
    with errors_named(path), nd2.ND2File(path) as file:
        found = _source(path, file)
    yield [found]


def _source(path: Path, file: Any) -> PartSource:
    sizes = dict(file.sizes)
    planes = tuple(side for axis, side in sizes.items() if axis not in "CYXS")
    plane = tuple(side for axis, side in sizes.items() if axis in "CYXS")
    lossy = file.attributes.compressionType == "lossy"
    recorded, announced = file.attributes.sequenceCount, math.prod(planes)

    def part(index: tuple[int, ...]) -> np.ndarray:
        def read_plane(place: tuple[int, ...]) -> np.ndarray:
            number = int(np.ravel_multi_index(place, planes)) if planes else 0
            return file.read_frame(number).reshape(plane)

        # Opened anew each time: what was read would count as memory as long as the file is mapped.
        with file:
            return read_planes(index, planes, plane, file.dtype, read_plane)

    return PartSource(
        path=path,
        kind="nd2",
        axes="".join(LETTERS.get(axis, "S") for axis in sizes),
        shape=tuple(sizes.values()),
        dtype=file.dtype,
        calibration=_calibration(file),
        notes=(f"only {recorded} of {announced} planes were recorded; the others are read as 0",)
        * (recorded < announced)
        + (loss_note("JPEG 2000", True),) * lossy,
        part=part,
    )


def _calibration(file: Any) -> Calibration:
    channels = file.metadata.channels or []
    sizes = {}
    if channels:
        volume = channels[0].volume
        known = zip("xyz", volume.axesCalibrated, volume.axesCalibration, strict=True)
        sizes = {axis: float(step) for axis, calibrated, step in known if calibrated}
    times = [loop.parameters for loop in file.experiment if loop.type in ("TimeLoop", "NETimeLoop")]
    periods = {period.periodMs for time in times for period in getattr(time, "periods", [time])}
    return Calibration(
        sizes=sizes,
        unit="um" if sizes else "",
        time_step=min(periods) / 1000 if len(periods) == 1 and min(periods) > 0 else None,
        channels=tuple(channel.channel.name for channel in channels),
    )
