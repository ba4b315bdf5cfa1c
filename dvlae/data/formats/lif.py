"""Reading of Leica's LIF files."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from dvlae.data.formats.parts import PartSource, optional_module
from dvlae.data.pixels import errors_named
from dvlae.data.sources import Calibration, Source

DESCRIPTION = "./Data/Image/ImageDescription"
# Numbers of Leica's axes; those that are not here count frames of other kinds, such as wavelengths and tiles.
LETTERS = {1: "X", 2: "Y", 3: "Z", 4: "T"}


class Axis(NamedTuple):
    """An axis of an image."""

    letter: str
    side: int
    stride: int  # bytes from one pixel to the next
    length: float  # from the first pixel to the last
    unit: str


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
            found = [_source(path, image, content, notes) for image in file.images if not image.is_flim]
            if not found:
                raise ValueError("it contains no image")
            if len(found) == 1:
                found[0].series = ""
        yield list[Source](found)


def _source(path: Path, image: Any, content: np.ndarray, notes: tuple[str, ...]) -> PartSource:
    axes = [axis for axis in _axes(image.xml_element) if axis.side > 1 or axis.letter in "YX"]
    channels = _channels(image.xml_element)
    shape = tuple(axis.side for axis in axes)
    block = content[image.memory_block.offset :][: image.memory_block.size]
    # Views of the file with the strides that it names: nothing is read before it is asked for.
    views = [
        np.ndarray(shape, _dtype(channel), block, int(channel["BytesInc"]), tuple(axis.stride for axis in axes))
        for channel in channels
    ]
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

    letters = "".join(axis.letter for axis in axes)
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


def _axes(image: Element) -> list[Axis]:
    """Return the axes, the one with the longest steps first."""
    found = [axis.attrib for axis in image.findall(f"{DESCRIPTION}/Dimensions/DimensionDescription")]
    axes = [
        Axis(
            LETTERS.get(int(axis["DimID"]), "S"),
            int(axis["NumberOfElements"]),
            int(axis["BytesInc"]),
            float(axis["Length"]),
            axis["Unit"],
        )
        for axis in found
    ]
    return sorted(axes, key=lambda axis: axis.stride, reverse=True)


def _channels(image: Element) -> list[dict[str, str]]:
    """Return the channels in the order of the file, but red before green before blue."""
    found = [channel.attrib for channel in image.findall(f"{DESCRIPTION}/Channels/ChannelDescription")]
    channels = sorted(found, key=lambda channel: int(channel["BytesInc"]))
    blue_first = [channel["ChannelTag"] for channel in channels] == ["3", "2", "1"]
    return channels[::-1] if blue_first else channels


def _dtype(channel: dict[str, str]) -> np.dtype:
    kind, bits = {"0": "u", "1": "f"}[channel["DataType"]], int(channel["Resolution"])
    return np.dtype(f"<{kind}{next(size for size in (1, 2, 4, 8) if bits <= 8 * size)}")


def _calibration(axes: list[Axis], channels: list[dict[str, str]]) -> Calibration:
    steps = {
        (axis.letter, axis.unit): abs(axis.length) / (axis.side - 1)
        for axis in axes
        if axis.side > 1 and axis.length and math.isfinite(axis.length)
    }
    names = tuple(channel["NameOfMeasuredQuantity"] or channel["LUTName"] for channel in channels)
    return Calibration(
        sizes={letter.lower(): step * 1e6 for (letter, unit), step in steps.items() if letter in "ZYX" and unit == "m"},
        unit="um",
        time_step=steps.get(("T", "s")),
        channels=names if all(names) else (),
    )
