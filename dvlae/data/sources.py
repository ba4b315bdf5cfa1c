"""What image files contain, whatever their format: series of images with axes, a type and a calibration."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

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
START_BYTES = 16
ZARR_METADATA = ("zarr.json", ".zgroup", ".zarray")
SUFFIXES = {
    ".tif": "tiff",
    ".tiff": "tiff",
    ".btf": "tiff",
    ".tf2": "tiff",
    ".tf8": "tiff",
    ".lsm": "tiff",
    ".stk": "tiff",
    ".svs": "tiff",
    ".png": "png",
    ".npy": "npy",
    ".zarr": "zarr",
    ".zip": "zarr",
    ".czi": "czi",
    ".lif": "lif",
    ".nd2": "nd2",
}


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
    """

    sizes: Mapping[str, float] = field(default_factory=dict)
    unit: str = ""
    time_step: float | None = None
    channels: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    description: str = ""


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
    shape
        One number for each axis.
    dtype
        Type of the pixels.
    calibration
        What the file says beside its pixels.
    preview
        Whether it is a smaller copy, a label or an overview of something else in the file.
    notes
        What the user has to know of how the file was read, one sentence each.
    """

    path: Path
    files: tuple[Path, ...]
    series: str
    kind: str
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype
    calibration: Calibration
    preview: bool = False
    notes: tuple[str, ...] = ()

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
        why = "whose compression has removed part of the noise"
        helps = "take the file that the microscope wrote; if there is none, save this one as TIFF or PNG"
    else:
        why = f"allowed: {', '.join(SUFFIXES)}"
        helps = "unpack it" if kind == "gzip" else "save it as OME-TIFF, for example with Fiji or bfconvert"
    return UserError(f"{path}: found a file of kind {kind!r}, {why}; {helps}")
