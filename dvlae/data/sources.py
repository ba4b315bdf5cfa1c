"""What image files contain, whatever their format: series of images with axes, a type and a calibration."""

import importlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dvlae.data.pixels import errors_named
from dvlae.system.errors import UserError

# The first bytes of the files of a format, and the module in `formats` that reads it.
SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"\x93NUMPY": "npy",
    b"ZISRAWFILE": "czi",
    b"\x70\0\0\0": "lif",
    b"\xda\xce\xbe\n": "nd2",
    b"PK\3\4": "zarr",
}
# The first bytes of files of other kinds.
FOREIGN = {
    b"\xff\xd8\xff": "JPEG",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xffO\xffQ": "JPEG 2000",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WebP or AVI",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"\xd0\xcf\x11\xe0": "OLE",
    b"SIMPLE  =": "FITS",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\x1f\x8b": "gzip",
    b"<": "XML or HTML",
}
LOSSY = ("JPEG", "JPEG 2000", "WebP or AVI", ".jpg", ".jpeg", ".jp2", ".webp", ".avif", ".heic", ".avi", ".mov", ".mp4")
HELPS = {"gzip": "unpack it", ".npz": "save the array in it with numpy.save"}
START_BYTES = 16
ZARR_METADATA = ("zarr.json", ".zgroup", ".zarray")
SUFFIXES = {
    **dict.fromkeys((".tif", ".tiff", ".btf", ".tf2", ".tf8", ".lsm", ".stk", ".svs"), "tiff"),
    ".png": "png",
    ".npy": "npy",
    ".zarr": "zarr",
    ".zip": "zarr",
    ".czi": "czi",
    ".lif": "lif",
    ".nd2": "nd2",
}
# The axes of a frame; along all others, frames are numbered.
FRAME_AXES = "CZYX"


@dataclass(frozen=True)
class Calibration:
    """What a file says of itself beside its pixels.

    Attributes
    ----------
    sizes
        Side of a pixel along ``z``, ``y`` and ``x``, in ``unit``. An axis that is missing is unknown.
    unit
        Unit of ``sizes``, such as ``um``; empty if it is unknown.
    time_step
        Seconds from one time to the next. None: unknown.
    channels
        Names of the channels; empty if they are unknown.
    labels
        One for each plane in the order of the file; empty if there are none.
    description
        The OME-XML of the file; empty if it has none.
    imagej
        What else ImageJ keeps with the image, such as its colours, by ImageJ's names; bytes are text in base 64.
    """

    sizes: Mapping[str, float] = field(default_factory=dict)
    unit: str = ""
    time_step: float | None = None
    channels: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    description: str = ""
    imagej: Mapping[str, Any] = field(default_factory=dict)


class Source(ABC):
    """One file, one series of it, or one set of files that belong together.

    Attributes
    ----------
    path
        The file; of a set, the first.
    files
        All files that it reads.
    series
        Name or number of the series; empty if the file has only one.
    kind
        ``imagej``, ``ome``, ``tiff``, ``png``, ``npy``, ``zarr``, ``czi``, ``lif`` or ``nd2``.
    axes
        The axes as stored, letters of STCZYX, where S stands for axes of any other kind and ``?`` for one that the file
        says nothing about; these two may be there more than once. Empty if the file says nothing at all.
    stated
        The same with C twice, not S and C, if channels have several colours in each pixel and are read as images. Empty
        for files of kinds that have no such channels.
    shape
        One number for each axis.
    dtype
        Type of the pixels.
    calibration
        What the file says beside its pixels.
    left_out
        What it is beside an image in the file, such as a smaller copy of it; empty if it is an image itself.
    notes
        What the user has to know of how the file was read, one sentence each.
    axes_notes
        The same about its axes, for a user who leaves them to the file.
    """

    path: Path
    files: tuple[Path, ...]
    series: str
    kind: str
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype
    calibration: Calibration
    stated: str = ""
    left_out: str = ""
    notes: tuple[str, ...] = ()
    axes_notes: tuple[str, ...] = ()

    @abstractmethod
    def read(self, index: tuple[int, ...] = ()) -> np.ndarray:
        """Read a part of the pixels.

        Parameters
        ----------
        index
            Indices along the first axes; the part contains all of the others.

        Returns
        -------
        array
            The part, of shape ``shape[len(index) :]`` and of the file's own type.
        """


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source, and where its frames lie in it.

    Attributes
    ----------
    axes
        The axes in the order of the source, letters of STCZYX: those of a frame, C, Z, Y and X, and others, along which
        the frames are numbered.
    shape
        One number for each axis.
    kind, series
        The kind of file, and the series in it, as in :class:`Source`.
    dtype
        The source's own type.
    calibration
        What the source says beside its pixels.
    offset
        Subtracted from all grey values before anything is computed with 32 bits, which would lose small differences of
        large numbers.
    stated
        The axes as the source calls them, where planes or channels are read as images; otherwise empty.
    scale
        The grey values, less the offset, are divided by it: a power of 2, so that nothing is rounded.
    starts
        The first index along C, Z, Y and X of a part of a source; 0 where an axis is missing.
    """

    axes: str
    shape: tuple[int, ...]
    kind: str
    dtype: str
    calibration: Calibration = field(default_factory=Calibration)
    offset: float = 0
    series: str = ""
    stated: str = ""
    scale: float = 1
    starts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_frames(cls, shape: tuple[int, ...], count: int = 1, dtype: str = "float32") -> "SourceInfo":
        """Describe frames that were computed, which no file of a user contains.

        Parameters
        ----------
        shape
            Shape of each frame, (C, ...).
        count
            Number of frames.
        dtype
            The type of the source.

        Returns
        -------
        SourceInfo
            A source with these frames, numbered along T if there are several.
        """
        sizes = [("T", count), ("C", shape[0])]
        counted = [(axis, size) for axis, size in sizes if size > 1]
        axes = "".join(axis for axis, _ in counted) + "ZYX"[4 - len(shape) :]
        return cls(axes, (*(size for _, size in counted), *shape[1:]), "tiff", dtype)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """The shape of a frame, (C, ...)."""
        sizes = dict(zip(self.axes, self.shape, strict=True))
        return (sizes.get("C", 1), *(sizes[axis] for axis in "ZYX" if axis in sizes))

    @property
    def units(self) -> dict[str, float]:
        """What is subtracted from the grey values, ``offset``, and what they are then divided by, ``scale``."""
        return {"offset": self.offset, "scale": self.scale}

    @property
    def frame_sizes(self) -> tuple[int, ...]:
        """The lengths of the axes along which the frames are numbered, in the order of the source."""
        return tuple(size for axis, size in zip(self.axes, self.shape, strict=True) if axis not in FRAME_AXES)

    @property
    def frames(self) -> int:
        """The number of frames."""
        return math.prod(self.frame_sizes)

    def with_samples(self, samples: int) -> "SourceInfo":
        """Describe several versions of the source, one after the other.

        Parameters
        ----------
        samples
            Their number.

        Returns
        -------
        SourceInfo
            A source with one more axis, the slowest.
        """
        # A file of the same kind has no such axis, and no labels for it.
        calibration = replace(self.calibration, labels=())
        axes, stated = "S" + self.axes, self.stated and "S" + self.stated
        shape = (samples, *self.shape)
        return replace(self, axes=axes, stated=stated, shape=shape, kind="tiff", calibration=calibration)

    def in_source_order(self, frames: np.ndarray) -> np.ndarray:
        """Give frames the axes that they have in the source.

        Parameters
        ----------
        frames
            All frames, (F, C, ...); the axis F may be several.

        Returns
        -------
        array
            A view with the axes and the shape of the source.
        """
        frames = frames.reshape(*self.frame_sizes, *self.frame_shape)
        if "C" not in self.axes:
            frames = frames.squeeze(len(self.frame_sizes))
        return frames.transpose(np.argsort(_frame_order(self.axes)))

    def in_frame_order(self, values: np.ndarray, axes: str, frame: int) -> np.ndarray:
        """Return what belongs to one frame of an array with axes of the source.

        Parameters
        ----------
        values
            The array, with all axes along which frames are numbered.
        axes
            Its axes, in the order of the source.
        frame
            Number of the frame.

        Returns
        -------
        array
            A view with those of the axes C, Z, Y and X that ``axes`` contains.
        """
        return values.transpose(_frame_order(axes))[np.unravel_index(frame, self.frame_sizes)]

    def to_json(self) -> str:
        """Return the description as text.

        Returns
        -------
        str
            JSON of ASCII characters.
        """
        return json.dumps({"dvlae": "canonical", **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> "SourceInfo":
        """Read a description.

        Parameters
        ----------
        text
            The output of :meth:`to_json`.

        Returns
        -------
        SourceInfo
            The description.
        """
        values = json.loads(text)
        del values["dvlae"]
        calibration = values.pop("calibration") | {}
        for name in ("channels", "labels"):
            calibration[name] = tuple(calibration[name])
        return cls(**values | {"shape": tuple(values["shape"]), "calibration": Calibration(**calibration)})


def _frame_order(axes: str) -> list[int]:
    """Return where the axes of frame numbers, and then C, Z, Y and X, are in some axes."""
    numbers = [place for place, axis in enumerate(axes) if axis not in FRAME_AXES]
    return numbers + [axes.index(axis) for axis in FRAME_AXES if axis in axes]


@contextmanager
def open_sources(path: Path) -> Iterator[list[Source]]:
    """Open an image file.

    Parameters
    ----------
    path
        The file, or the folder of a Zarr store. The first bytes say which format it has; where they do not, its suffix.

    Yields
    ------
    list of Source
        Its series. Each can be read until the block ends.

    Raises
    ------
    UserError
        If the file is missing, is of no known kind, or cannot be read.
    """
    with importlib.import_module(f"dvlae.data.formats.{_format(path)}").sources(path) as sources:
        yield sources


def _format(path: Path) -> str:
    if path.is_dir() and any((path / name).exists() for name in ZARR_METADATA):
        return "zarr"
    suffix = path.suffix.lower()
    with errors_named(path), path.open("rb") as file:
        start = file.read(START_BYTES)
    if not start:
        raise UserError(f"{path}: found an empty file, allowed: an image; copy or save it again")
    name = _signed(start, SIGNATURES)
    # The first ND2 files are files of JPEG 2000.
    foreign = None if name or suffix == ".nd2" else _signed(start, FOREIGN)
    if foreign or not (name or suffix in SUFFIXES):
        raise refusal(path, foreign or suffix)
    return name or SUFFIXES[suffix]


def _signed(start: bytes, signatures: Mapping[bytes, str]) -> str | None:
    return next((name for signature, name in signatures.items() if start.startswith(signature)), None)


def refusal(path: Path, kind: str) -> UserError:
    """Say that a file is of a kind that is not read, and what helps.

    Parameters
    ----------
    path
        The file.
    kind
        Its kind, or its suffix.

    Returns
    -------
    UserError
        One line.
    """
    if kind in LOSSY or kind.lower() in LOSSY:
        why = "whose compression changes noise and fine detail"
        helps = "take the file that the microscope wrote; if there is none, save this one as TIFF or PNG"
    else:
        why = f"allowed: {', '.join(SUFFIXES)}"
        helps = HELPS.get(kind.lower(), "save it as OME-TIFF, for example with Fiji or bfconvert")
    return UserError(f"{path}: found a file of kind {kind!r}, {why}; {helps}")
