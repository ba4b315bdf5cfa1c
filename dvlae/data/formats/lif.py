"""Reading of Leica's LIF files."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dvlae.data.formats.parts import PartSource, as_series, optional_module
from dvlae.data.pixels import errors_named
from dvlae.data.sources import Calibration, Source

# Leica's numbers of axes; those that are not here count frames of other kinds, such as wavelengths and tiles.
LETTERS = {"1": "X", "2": "Y", "3": "Z", "4": "T"}


@contextmanager
def sources(path: Path) -> Iterator[list[Source]]:
    """Open a LIF file.

    Parameters
    ----------
    path
        The file.

    Yields
    ------
    list of Source
        Its images. Lifetime images are left out, with a warning.

    Raises
    ------
    UserError
        If the file is damaged, or the package that reads it is missing.
    """
    liffile = optional_module("liffile", path)
    with ExitStack() as stack:
        with errors_named(path):
            file = stack.enter_context(liffile.LifFile(path))
            # The other kinds of Leica's files name further files, anywhere.
            if file.type != liffile.LifFileType.LIF:
                raise ValueError(f"it is of Leica's kind {file.type.value}, not LIF")
            content = np.memmap(path, np.uint8, "r")
            notes = tuple(
                f"leaves out {image.path!r}, which contains lifetimes" for image in file.images if image.is_flim
            )
            found = as_series([_source(path, image, content, notes) for image in file.images if not image.is_flim])
        yield found


def _source(path: Path, image: Any, content: np.ndarray, notes: tuple[str, ...]) -> PartSource:
    channels = _described(image, "Channel")
    if [channel["ChannelTag"] for channel in channels] == ["3", "2", "1"]:
        channels.reverse()  # blue, green, red
    axes = [
        axis
        for axis in _described(image, "Dimension")
        if axis["NumberOfElements"] != "1" or axis["DimID"] in ("1", "2")
    ]
    axes.reverse()
    letters = "".join(LETTERS.get(axis["DimID"], "S") for axis in axes)
    shape, strides = (tuple(int(axis[key]) for axis in axes) for key in ("NumberOfElements", "BytesInc"))
    block = content[image.memory_block.offset :][: image.memory_block.size]
    # Views of the file with the strides that it names: nothing is read before it is asked for.
    views = [np.ndarray(shape, _dtype(channel), block, int(channel["BytesInc"]), strides) for channel in channels]
    if sum(view.nbytes for view in views) > block.size:
        raise ValueError(f"its image {image.path!r} claims to contain more pixels than it does")
    several = len(views) > 1
    outer = max(len(axes) - 2, 0)

    def part(index: tuple[int, ...]) -> np.ndarray:
        first, rest = index[:outer], index[outer:]
        if not several:
            return np.array(views[0][index])
        if rest:
            return np.array(views[rest[0]][first + rest[1:]])
        return np.stack([view[first] for view in views], axis=outer - len(first))

    return PartSource(
        path=path,
        series=image.path,
        kind="lif",
        axes=letters[:outer] + "C" * several + letters[outer:],
        shape=shape[:outer] + (len(views),) * several + shape[outer:],
        dtype=np.result_type(*views),
        calibration=_calibration(axes, channels),
        notes=notes,
        part=part,
    )


def _described(image: Any, what: str) -> list[dict[str, str]]:
    """Return the descriptions of the axes or of the channels, the smallest step first."""
    found = image.xml_element.iterfind(f"./Data/Image/ImageDescription/{what}s/{what}Description")
    return sorted((one.attrib for one in found), key=lambda one: int(one["BytesInc"]))


def _dtype(channel: dict[str, str]) -> np.dtype:
    kind, bits = {"0": "u", "1": "f"}[channel["DataType"]], int(channel["Resolution"])
    return np.dtype(f"<{kind}{next(size for size in (1, 2, 4, 8) if bits <= 8 * size)}")


def _calibration(axes: list[dict[str, str]], channels: list[dict[str, str]]) -> Calibration:
    steps = {}
    for axis in axes:
        # The length reaches from the first pixel to the last.
        length, side = abs(float(axis["Length"])), int(axis["NumberOfElements"])
        if side > 1 and 0 < length < math.inf:
            steps[LETTERS.get(axis["DimID"]), axis["Unit"]] = length / (side - 1)
    names = tuple(channel["NameOfMeasuredQuantity"] or channel["LUTName"] for channel in channels)
    return Calibration(
        sizes={axis.lower(): 1e6 * steps[axis, "m"] for axis in "ZYX" if (axis, "m") in steps},
        unit="um",
        time_step=steps.get(("T", "s")),
        channels=names if all(names) else (),
    )
