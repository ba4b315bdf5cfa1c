"""Writing the frames of a source as one TIFF with the source's axes, calibration and names."""

import math
import mmap
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from dvlae.config.settings import OutputSettings
from dvlae.data.canonical import MAX_CLASSIC_BYTES
from dvlae.data.outputs.ome import edit_xml, ome_unit
from dvlae.data.sources import SourceInfo
from dvlae.system.arrays import bands, rows_of_band
from dvlae.system.files import atomic_file, reserve_space

# The types of ImageJ: 8 and 16 bits with and without sign, and float32.
IMAGEJ_TYPES = "BHhf"
IMAGEJ_AXES = "TZCYX"
# Side of the tiles of a very large page that is compressed, in pixels.
TILE = 512
# What may stay in memory of a mapped file.
MAX_MAPPED_BYTES = 2**26
# Letters for axes of frames beside time: other, phase, tile, angle, lifetime, wavelength.
OTHER_AXES = "QPRAHE"
# Centimetres in a unit of length, for the tags of a TIFF.
CENTIMETRES = {"nm": 1e-7, "um": 1e-4, "mm": 0.1, "cm": 1.0}


@dataclass
class Converter:
    """Converts estimates to the type of a file, and counts what is lost.

    Attributes
    ----------
    dtype
        The type of the file.
    offset
        Added to all values.
    clipped
        Number of values that were beyond the range of the type.
    """

    dtype: np.dtype
    offset: float
    clipped: int = 0

    @classmethod
    def choose(cls, info: SourceInfo, output: OutputSettings, *, deviation: bool) -> "Converter":
        """Choose the type of the file of a source.

        Parameters
        ----------
        info
            The source.
        output
            The type that the user wants.
        deviation
            Whether the values are standard deviations, which have no offset and do not become whole numbers.

        Returns
        -------
        Converter
            A converter for this file.
        """
        if deviation:
            return cls(np.dtype(np.float32), 0)
        if output.dtype == "same":
            return cls(np.dtype(info.dtype), info.offset)
        # With the offset, float32 numbers would be too far apart.
        return cls(np.dtype(np.float64 if info.offset else np.float32), info.offset)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Convert values.

        Parameters
        ----------
        values
            Some values, as they were computed.

        Returns
        -------
        array
            The values in the type of the file. Whole numbers are rounded and clipped to its range.
        """
        if self.offset or self.dtype.kind in "iu":
            values = values.astype(np.float64) + self.offset
        if self.dtype.kind in "iu":
            values = np.rint(values)
            low, high = int(np.iinfo(self.dtype).min), int(np.iinfo(self.dtype).max)
            # The float64 number next to 2^64 - 1 is 2^64, which is beyond the range.
            limits = float(low), float(high) if float(high) <= high else float(np.nextafter(float(high), 0))
            inside = np.clip(values, *limits)
            self.clipped += int(np.count_nonzero(inside != values))
            values = inside
        return np.ascontiguousarray(values, self.dtype)


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
        """Let go of what was read, from time to time.

        Parameters
        ----------
        nbytes
            Bytes that were read since the last call.
        """
        self._read += nbytes
        if self._read > MAX_MAPPED_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)
            self._read = 0


def write_source(path: Path, info: SourceInfo, frames: MappedFrames, convert: Converter, compression: str) -> str:
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
    str
        Why the file is not like the source, for the user; empty if it is.
    """
    view = info.in_source_order(frames.array)
    layout = Layout.of(info)
    size = view.size * convert.dtype.itemsize
    options: dict[str, Any] = {"bigtiff": size > MAX_CLASSIC_BYTES}
    with atomic_file(path) as temporary:
        if not layout.planar:
            _write_mapped(temporary, view, convert, layout, options)
            return f"plain TIFF, as OME-TIFF cannot have the axes {info.axes}"
        why = _why_not_imagej(info, layout, convert.dtype, compression, size)
        packed: dict[str, Any] = {} if compression == "none" else {"compression": compression, "predictor": True}
        if packed and convert.dtype.kind != "f" and convert.dtype.itemsize > 4:
            packed["predictor"] = False
        pages: Iterator[Any] = _bytes(frames, view, convert, layout)
        common = {"shape": layout.shape, "dtype": convert.dtype, "maxworkers": 1, **layout.samples, **packed}
        if packed:
            is_large = rows_of_band(layout.page) < layout.page[0]
            common |= {"tile": (TILE, TILE)} if is_large else {}
            pages = _tiles(frames, view, convert, layout, TILE if is_large else max(layout.page))
        if not why:
            with tifffile.TiffWriter(temporary, imagej=True) as file:
                file.write(pages, **common, **_imagej_options(info, layout))
            return ""
        xml = edit_xml(info, layout.axes, layout.shape, convert.dtype) if info.kind == "ome" else None
        metadata = None if xml else layout.ome_metadata(info)
        if not xml and not _fits_ome(layout, convert.dtype, metadata):
            with tifffile.TiffWriter(temporary, **options) as file:
                file.write(pages, **common, metadata={"axes": layout.axes}, **_resolution(info))
            return f"plain TIFF, as OME-TIFF cannot have the type {convert.dtype} with the axes {info.axes}"
        with tifffile.TiffWriter(temporary, ome=xml is None, **options) as file:
            file.write(pages, **common, description=xml, metadata=metadata)
    return "" if info.kind == "ome" else f"OME-TIFF, as {why}"


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
        letters, others = list(info.axes), iter(OTHER_AXES)
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
        if len(calibration.channels) == info.frame_shape[0] and "C" in self.axes:
            metadata["Channel"] = {"Name": list(calibration.channels)}
        if calibration.labels:
            names = {f"Label {number}": label for number, label in enumerate(calibration.labels)}
            metadata["MapAnnotation"] = {"Namespace": "labels of planes", **names}
        return metadata


def _why_not_imagej(info: SourceInfo, layout: Layout, dtype: np.dtype, compression: str, size: int) -> str:
    """Return why a file cannot be an ImageJ stack or should not be; empty if it should."""
    if info.kind != "imagej":
        return f"the source is a file of another kind ({info.kind})"
    if compression != "none":
        return "ImageJ stacks are not compressed"
    if dtype.char not in IMAGEJ_TYPES:
        return f"ImageJ stacks have no {dtype}"
    if [axis for axis in IMAGEJ_AXES if axis in layout.axes] != list(layout.axes):
        return f"ImageJ stacks have no axes {info.axes}"
    if size > MAX_CLASSIC_BYTES:
        return "ImageJ stacks have at most 4 GiB"
    return ""


def _imagej_options(info: SourceInfo, layout: Layout) -> dict[str, Any]:
    calibration = info.calibration
    metadata: dict[str, Any] = {"axes": layout.axes, "unit": calibration.unit or None}
    metadata |= {"spacing": calibration.sizes.get("z"), "finterval": calibration.time_step}
    if calibration.labels:
        metadata["Labels"] = list(calibration.labels)
    sizes = [calibration.sizes.get(axis) for axis in "xy"]
    resolution = tuple(1 / size for size in sizes if size)
    return {
        "metadata": {name: value for name, value in metadata.items() if value is not None},
        "resolution": resolution if len(resolution) == 2 else None,
    }


def _resolution(info: SourceInfo) -> dict[str, Any]:
    sizes = [info.calibration.sizes.get(axis) for axis in "xy"]
    centimetres = CENTIMETRES.get(info.calibration.unit)
    if centimetres is None or not all(sizes):
        return {}
    pixels = tuple(1 / (size * centimetres) for size in sizes if size)
    return {"resolution": pixels, "resolutionunit": "CENTIMETER"}


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
        path, shape=view.shape, dtype=convert.dtype, photometric="minisblack", metadata=metadata, **options
    )
    reserve_space(path)
    for index in range(len(view)):
        out[index] = convert(view[index])
    out.flush()
