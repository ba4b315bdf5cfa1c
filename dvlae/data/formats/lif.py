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
            images = [image for image in file.images if not image.is_flim and image.memory_block.size]
            left_out = [image.path for image in file.images if image not in images]
            notes = tuple(f"leaves out {name!r}, which contains lifetimes or nothing" for name in left_out)
            found = as_series([_source(path, image, notes) for image in images])
        yield found


def _source(path: Path, image: Any, notes: tuple[str, ...]) -> PartSource:
    channels = _described(image, "Channel")
    if [channel["ChannelTag"] for channel in channels] == ["3", "2", "1"]:
        channels.reverse()  # blue, green, red
    described = _described(image, "Dimension")[::-1]
    axes = [axis for axis in described if axis["NumberOfElements"] != "1" or LETTERS.get(axis["DimID"], "S") in "YX"]
    letters = "".join(LETTERS.get(axis["DimID"], "S") for axis in axes)
    shape, strides = (tuple(int(axis[key]) for axis in axes) for key in ("NumberOfElements", "BytesInc"))
    dtypes, starts = [_dtype(channel) for channel in channels], [int(channel["BytesInc"]) for channel in channels]
    offset, size = image.memory_block.offset, image.memory_block.size
    if math.prod(shape) * sum(dtype.itemsize for dtype in dtypes) > size:
        raise ValueError(f"its image {image.path!r} claims to contain more pixels than it does")
    several = len(channels) > 1
    outer = max(len(axes) - 2, 0)

    def map_channels() -> list[np.ndarray]:
        """Map the channels with the strides that the file names: nothing is read before it is asked for."""
        block = np.memmap(path, np.uint8, "r", offset, size)
        return [np.ndarray(shape, dtype, block, start, strides) for dtype, start in zip(dtypes, starts, strict=True)]

    def part(index: tuple[int, ...]) -> np.ndarray:
        first, rest = index[:outer], index[outer:]
        mapped = map_channels()
        if not several:
            return np.array(mapped[0][index])
        if rest:
            return np.array(mapped[rest[0]][first + rest[1:]])
        return np.stack([channel[first] for channel in mapped], axis=outer - len(first))

    map_channels()  # or say that the file breaks off
    return PartSource(
        path=path,
        series=image.path,
        kind="lif",
        axes=letters[:outer] + "C" * several + letters[outer:],
        shape=shape[:outer] + (len(channels),) * several + shape[outer:],
        dtype=np.result_type(*dtypes),
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
        length, side = abs(float(axis.get("Length", 0))), int(axis["NumberOfElements"])
        if side > 1 and 0 < length < math.inf:
            steps[LETTERS.get(axis["DimID"]), axis.get("Unit")] = length / (side - 1)
    names = tuple(channel.get("NameOfMeasuredQuantity") or channel.get("LUTName", "") for channel in channels)
    return Calibration(
        sizes={axis.lower(): 1e6 * steps[axis, "m"] for axis in "ZYX" if (axis, "m") in steps},
        unit="um",
        time_step=steps.get(("T", "s")),
        channels=names if all(names) else (),
    )
