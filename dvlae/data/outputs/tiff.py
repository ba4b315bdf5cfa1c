"""Writing the frames of a source as one TIFF with the source's axes, calibration and names."""

import math
import mmap
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from dvlae.data.canonical import MAX_CLASSIC_BYTES
from dvlae.data.outputs.conversion import Converter
from dvlae.data.outputs.imagej import BINARY, COLOURS, as_annotation, imagej_options, plain_colours, why_not_imagej
from dvlae.data.outputs.ome import edit_xml, ome_unit
from dvlae.data.sources import SourceInfo
from dvlae.system.arrays import bands, rows_of_band
from dvlae.system.files import atomic_file, reserve_space

# What a file that is written here says of itself, so that it may be replaced.
SOFTWARE = "dvlae"
# Side of the tiles of a very large page that is compressed, in pixels.
TILE = 512
# What may stay in memory of a mapped file.
MAX_MAPPED_BYTES = 2**26
# Letters for axes of frames beside time: other, phase, tile, angle, lifetime, wavelength.
OTHER_AXES = "QPRAHE"
# For a unit of length, the unit of the resolution in the tags of a TIFF, and how many of it one is.
RESOLUTIONS = {
    "Å": ("CENTIMETER", 1e-8),
    "nm": ("CENTIMETER", 1e-7),
    "um": ("CENTIMETER", 1e-4),
    "mm": ("CENTIMETER", 0.1),
    "cm": ("CENTIMETER", 1.0),
    "m": ("CENTIMETER", 100.0),
    "inch": ("INCH", 1.0),
    "": ("NONE", 1.0),
}


class MappedFrames:
    """Frames in a file that is mapped into memory, of which little stays there.

    Parameters
    ----------
    path
        A file with float32 values.
    offset
        Where they begin, in bytes.
    shape
        (F, C, ...).

    Attributes
    ----------
    array
        The values.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...]):
        with path.open("rb") as file:
            self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.array = np.frombuffer(self._mapped, np.float32, math.prod(shape), offset).reshape(shape)
        self._read = 0

    def note(self, nbytes: int) -> None:
        """Let go of what was read, from time to time. Windows does so by itself.

        Parameters
        ----------
        nbytes
            Bytes that were read since the last call.
        """
        self._read += nbytes
        if self._read > MAX_MAPPED_BYTES and sys.platform != "win32":
            self._mapped.madvise(mmap.MADV_DONTNEED)
            self._read = 0


def write_source(
    path: Path, info: SourceInfo, frames: MappedFrames, convert: Converter, compression: str
) -> tuple[str, str]:
    """Write one file as the source was: an ImageJ stack or an OME-TIFF; if it was neither, an OME-TIFF.

    Parameters
    ----------
    path
        The file to make.
    info
        The source.
    frames
        All frames. One plane after the other is read.
    convert
        Converts the values to those of the file.
    compression
        ``none``, ``zlib`` or ``zstd``.

    Returns
    -------
    why
        Why the file is not like the source, for the user; empty if it is.
    lost
        What it cannot have of the source; empty if it has all.
    """
    view = info.in_source_order(frames.array)
    layout = Layout.of(info)
    size = view.size * convert.dtype.itemsize
    options: dict[str, Any] = {"bigtiff": size > MAX_CLASSIC_BYTES}
    with atomic_file(path) as temporary:
        if not layout.planar:
            _write_mapped(temporary, view, convert, layout, options)
            return f"plain TIFF, as OME-TIFF cannot have the axes {info.axes}", _lost(info, layout, ome=False)
        why = why_not_imagej(info, layout.axes, convert.dtype, compression, large=options["bigtiff"])
        packed: dict[str, Any] = {} if compression == "none" else {"compression": compression, "predictor": True}
        if packed and convert.dtype.kind != "f" and convert.dtype.itemsize > 4:
            packed["predictor"] = False
        pages: Iterator[Any] = _bytes(frames, view, convert, layout)
        common = {
            "software": SOFTWARE,
            "shape": layout.shape,
            "dtype": convert.dtype,
            "maxworkers": 1,
            **layout.samples,
            **packed,
        }
        if packed:
            is_large = rows_of_band(layout.page) < layout.page[0]
            common |= {"tile": (TILE, TILE)} if is_large else {}
            pages = _tiles(frames, view, convert, layout, TILE if is_large else max(layout.page))
        if not why:
            with tifffile.TiffWriter(temporary, imagej=True) as file:
                file.write(
                    pages, **common, **imagej_options(info, layout.axes, convert.dtype, deviation=convert.deviation)
                )
            return "", ""
        xml = edit_xml(info, layout.axes, layout.shape, convert.dtype) if info.kind == "ome" else None
        metadata = None if xml else layout.ome_metadata(info)
        common |= _resolution(info)
        if not xml and not _fits_ome(layout, convert.dtype, metadata):
            with tifffile.TiffWriter(temporary, ome=False, **options) as file:
                file.write(pages, **common, metadata={"axes": layout.axes})
            why = f"plain TIFF, as OME-TIFF cannot have the type {convert.dtype} with the axes {info.axes}"
            return why, _lost(info, layout, ome=False)
        with tifffile.TiffWriter(temporary, ome=xml is None, **options) as file:
            file.write(pages, **common, description=xml, metadata=metadata)
    return "" if info.kind == "ome" else f"OME-TIFF, as {why}", "" if xml else _lost(info, layout, ome=True)


def _bytes(frames: MappedFrames, view: np.ndarray, convert: Converter, layout: "Layout") -> Iterator[bytes]:
    """Yield the pages as they are in the file, in parts."""
    for index in np.ndindex(view.shape[: layout.leading]):
        page = view[index].reshape(layout.page)
        for band, _ in bands(page.shape):
            part = convert(page[band])
            frames.note(part.nbytes)
            yield part.tobytes()


def _tiles(
    frames: MappedFrames, view: np.ndarray, convert: Converter, layout: "Layout", side: int
) -> Iterator[np.ndarray]:
    """Yield the tiles of the pages."""
    for index in np.ndindex(view.shape[: layout.leading]):
        page = view[index].reshape(layout.page)
        for row in range(0, page.shape[0], side):
            rows = convert(page[row : row + side])
            frames.note(rows.nbytes)
            yield from (rows[:, column : column + side] for column in range(0, page.shape[1], side))


@dataclass(frozen=True)
class Layout:
    """How an array with the axes of a source is divided into pages.

    Attributes
    ----------
    axes, shape
        Letters that programs for TIFF files know, and the length of each axis.
    leading
        Number of axes before those of a page, in the array of the source.
    page
        Shape of a page.
    planar
        Whether the pages are planes, with or without colours in each pixel.
    samples
        How the colours in each pixel are declared.
    """

    axes: str
    shape: tuple[int, ...]
    leading: int
    page: tuple[int, ...]
    planar: bool
    samples: dict[str, Any]

    @classmethod
    def of(cls, info: SourceInfo) -> "Layout":
        """Divide the array of a source into pages.

        Parameters
        ----------
        info
            The source.

        Returns
        -------
        Layout
            Its pages.
        """
        shape = info.shape
        letters, others = list(info.stated or info.axes), iter(OTHER_AXES)
        for place, axis in enumerate(letters):
            if axis == "S":
                letters[place] = "T" if "T" not in letters else next(others)
        samples: dict[str, Any] = {"photometric": "minisblack"}
        if info.axes.endswith("YXC"):
            colours = shape[-1] in (3, 4)
            samples = {"photometric": "rgb" if colours else "minisblack", "planarconfig": "contig"}
            letters[-1] = "S"
            return cls("".join(letters), shape, len(shape) - 3, shape[-3:], True, samples)
        if info.axes == "X":
            # One row, as a TIFF has no images without rows.
            return cls("YX", (1, *shape), 0, (1, *shape), True, samples)
        if "Y" not in info.axes and letters[-1] == "X":
            # A page contains one trace below the other.
            letters[-2] = "Y"
        axes = "".join(letters)
        return cls(axes, shape, len(shape) - 2, shape[-2:], axes.endswith("YX"), samples)

    @property
    def channels(self) -> int:
        """The number of channels of an OME-TIFF; the colours of a pixel are one."""
        return dict(zip(self.axes, self.shape, strict=True)).get("C", 1)

    def ome_metadata(self, info: SourceInfo) -> dict[str, Any]:
        """Return the metadata of an OME-TIFF.

        Parameters
        ----------
        info
            The source.

        Returns
        -------
        dict
            As tifffile takes them.
        """
        calibration = info.calibration
        # A random one, as tifffile chooses, would make the file another one each time.
        metadata: dict[str, Any] = {"axes": self.axes, "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, info.to_json()))}
        unit = ome_unit(calibration.unit)
        if unit:
            for axis, size in calibration.sizes.items():
                metadata |= {f"PhysicalSize{axis.upper()}": size, f"PhysicalSize{axis.upper()}Unit": unit}
        if calibration.time_step:
            metadata |= {"TimeIncrement": calibration.time_step, "TimeIncrementUnit": "s"}
        channels: dict[str, list[Any]] = {"Name": list(calibration.channels)}
        channels["Color"] = [_ome_colour(*colour) for colour in plain_colours(calibration.imagej) or ()]
        known = {name: values for name, values in channels.items() if len(values) == self.channels}
        if known:
            metadata["Channel"] = known
        names = {f"Label {number}": label for number, label in enumerate(calibration.labels)}
        notes = {"labels of planes": names, "ImageJ": as_annotation(calibration.imagej)}
        metadata["MapAnnotation"] = [{"Namespace": title, **texts} for title, texts in notes.items() if texts]
        return metadata


def _ome_colour(red: int, green: int, blue: int) -> int:
    """Return an opaque colour as OME has it: red, green, blue and alpha, as one number with a sign."""
    return int.from_bytes(bytes((red, green, blue, 255)), "big", signed=True)


def _resolution(info: SourceInfo) -> dict[str, Any]:
    """Return the resolution for the tags of a TIFF."""
    sizes = [info.calibration.sizes.get(axis) for axis in "xy"]
    if info.calibration.unit not in RESOLUTIONS or not all(sizes):
        return {}
    unit, length = RESOLUTIONS[info.calibration.unit]
    return {"resolution": tuple(1 / (size * length) for size in sizes if size), "resolutionunit": unit}


def _lost(info: SourceInfo, layout: Layout, *, ome: bool) -> str:
    """Return what a file that is not of the kind of its source, an OME-TIFF or a plain one, cannot have of it."""
    calibration = info.calibration
    lost = ["the OME metadata (instrument, dates, planes)"] if calibration.description else []
    items = dict(calibration.imagej)
    if ome and plain_colours(items):
        items.pop(COLOURS)
    lost += [f"{name} of ImageJ" for name in items if name in BINARY or not ome]
    known = ome_unit(calibration.unit) if ome else calibration.unit in RESOLUTIONS
    parts = {
        f"the size of pixels, whose unit is {calibration.unit!r}": calibration.sizes and not known,
        "the size along z": not ome and "z" in calibration.sizes,
        "the time step": not ome and calibration.time_step,
        "the names of channels": any(calibration.channels)
        and not (ome and len(calibration.channels) == layout.channels),
        "the labels of planes": not ome and calibration.labels,
    }
    lost += [name for name, there in parts.items() if there]
    return ", ".join(lost)


def _fits_ome(layout: Layout, dtype: np.dtype, metadata: dict[str, Any] | None) -> bool:
    rows, columns, samples = (*layout.page, 1)[:3]
    stored = (math.prod(layout.shape) // math.prod(layout.page), 1, 1, rows, columns, samples)
    try:
        tifffile.OmeXml().addimage(dtype, layout.shape, stored, **(metadata or {}))
    except tifffile.OmeXmlError:
        return False
    return True


def _write_mapped(path: Path, view: np.ndarray, convert: Converter, layout: Layout, options: dict[str, Any]) -> None:
    """Write an array whose planes are not pages."""
    metadata = {"axes": layout.axes}
    out = tifffile.memmap(
        path,
        shape=view.shape,
        dtype=convert.dtype,
        photometric="minisblack",
        metadata=metadata,
        software=SOFTWARE,
        ome=False,
        **options,
    )
    reserve_space(path)
    for index in range(len(view)):
        out[index] = convert(view[index])
    out.flush()
