"""Reading of Zeiss's CZI files."""

import math
import struct
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from dvlae.data.formats.compressed.streams import loss_note
from dvlae.data.formats.parts import PartSource, as_series, optional_module, read_planes
from dvlae.data.pixels import errors_named
from dvlae.data.sources import Calibration, Source

# The axes that count planes, the slowest first; V, H, I, R and B are view, phase, illumination, rotation and block.
OUTER = "VHIRBTZC"
DTYPES = {"8": np.uint8, "24": np.uint8, "16": np.uint16, "48": np.uint16, "32Float": np.float32, "96Float": np.float32}
# The file begins with the place of the directory of its tiles, whose first entry says how that is compressed.
DIRECTORY_PLACE, COMPRESSION_PLACE = 84, 178
LOSSY = {1: ("JPEG", True), 4: ("JPEG XR", None)}


@contextmanager
def sources(path: Path) -> Iterator[list[Source]]:
    """Open a CZI file.

    Parameters
    ----------
    path
        The file.

    Yields
    ------
    list of Source
        Its scenes, each in its full resolution, with its tiles put together.

    Raises
    ------
    UserError
        If the file is damaged, or the package that reads it is missing.
    """
    czi = optional_module("pylibCZIrw.czi", path)
    with ExitStack() as stack:
        with errors_named(path):
            file = stack.enter_context(czi.open_czi(str(path)))
            calibration = _calibration(ElementTree.fromstring(file.raw_metadata))
            scenes = sorted(_tiles(file).items())
            found = as_series([_source(path, file, scene, tiles, calibration) for scene, tiles in scenes])
            for source in found:
                source.notes += _loss(path)
        yield found


def _loss(path: Path) -> tuple[str, ...]:
    """Return a sentence if the first tile is compressed with loss."""
    with path.open("rb") as file:
        file.seek(DIRECTORY_PLACE)
        (directory,) = struct.unpack("<q", file.read(8))
        file.seek(directory + COMPRESSION_PLACE)
        (kind,) = struct.unpack("<i", file.read(4))
    return (loss_note(*LOSSY[kind]),) if kind in LOSSY else ()


def _tiles(file: Any) -> dict[int, list[tuple[dict[str, int], Any]]]:
    """Return position and description of each tile of full resolution by the number of its scene."""
    scenes = defaultdict(list)

    def note(_: int, tile: Any) -> bool:
        if tile.get_zoom() == 1:
            place = tile.coordinate.to_dict()
            scenes[place.pop("S", -1)].append((place, tile))
        return True

    file.enumerate_subblocks(note)
    return scenes


def _source(
    path: Path, file: Any, scene: int, tiles: list[tuple[dict[str, int], Any]], calibration: Calibration
) -> PartSource:
    # A part of a series that was saved by itself need not begin at 0.
    steps = {axis: sorted({place[axis] for place, _ in tiles if axis in place}) for axis in OUTER}
    axes = [axis for axis, values in steps.items() if len(values) > 1]
    planes = tuple(len(steps[axis]) for axis in axes)
    boxes = np.array([(box.x, box.y, box.x + box.w, box.y + box.h) for box in (tile.logicalRect for _, tile in tiles)])
    left, top = (int(side) for side in boxes[:, :2].min(axis=0))
    width, height = (int(side) for side in boxes[:, 2:].max(axis=0) - (left, top))
    types = {tile.pixelType.name for _, tile in tiles}
    colours = {name.startswith("Bgr") for name in types}
    if len(colours) > 1:
        raise ValueError("it mixes grey and coloured channels")
    shape = (height, width, 3) if colours == {True} else (height, width)
    dtype = np.result_type(*(DTYPES[name.removeprefix("Gray").removeprefix("Bgr")] for name in types))

    recorded = len({tuple(place.get(axis) for axis in axes) for place, _ in tiles})
    notes = []
    if recorded < math.prod(planes):
        notes.append(f"only {recorded} of {math.prod(planes)} planes were recorded; the others are read as 0")
    covered = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sum() / (recorded * width * height)
    if covered < 1:
        notes.append(f"its tiles cover at most {covered:.0%} of the image; the rest is read as 0")

    def read_plane(place: tuple[int, ...]) -> np.ndarray:
        plane = {axis: steps[axis][number] for axis, number in zip(axes, place, strict=True)}
        pixels = file.read((left, top, width, height), plane, None if scene < 0 else scene)
        return pixels[..., ::-1].reshape(shape)

    return PartSource(
        path=path,
        series=str(scene),
        kind="czi",
        axes="".join(axis if axis in "TZC" else "S" for axis in axes) + "YXC"[: len(shape)],
        shape=planes + shape,
        dtype=dtype,
        calibration=calibration,
        notes=tuple(notes),
        part=lambda index: read_planes(index, planes, shape, dtype, read_plane),
    )


def _calibration(root: ElementTree.Element) -> Calibration:
    sizes = {
        axis.get("Id", "").lower(): 1e6 * float(axis.findtext("Value", "0"))
        for axis in root.iterfind(".//Scaling/Items/Distance")
    }
    image = ".//Information/Image/Dimensions"
    step = float(root.findtext(f"{image}/T/Positions/Interval/Increment", "0"))
    return Calibration(
        sizes={axis: size for axis, size in sizes.items() if size > 0},
        unit="um",
        time_step=step if step > 0 else None,
        channels=tuple(channel.get("Name", "") for channel in root.iterfind(f"{image}/Channels/Channel")),
    )
