"""What the readers of formats have in common."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np

from dvlae.data.pixels import check_memory, check_size, errors_named
from dvlae.data.sources import Calibration, Source
from dvlae.system import software

# Deflate stores at most 258 bytes in 2 bits.
DEFLATE_EXPANSION = 1032
# Of the longest floating-point numbers that image files have.
MAX_FLOAT_BYTES = 8
# Micrometres in a unit of length, and seconds in a unit of time.
LENGTHS = {"pm": 1e-6, "Å": 1e-4, "nm": 1e-3, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": 25400.0}
TIMES = {"ps": 1e-12, "ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
# What files call these units beside their full names.
PREFIXES = {"pico": "p", "nano": "n", "micro": "u", "milli": "m", "centi": "c", "": ""}
UNITS = {f"{name}{spelled}": f"{letter}m" for name, letter in PREFIXES.items() for spelled in ("meter", "metre")}
UNITS |= {f"{name}{spelled}": f"{letter}s" for name, letter in PREFIXES.items() for spelled in ("second", "sec")}
UNITS |= {f"{letter}sec": f"{letter}s" for letter in PREFIXES.values()} | {"in": "inch", "inches": "inch", "hr": "h"}
UNITS |= {"micron": "um", "angstrom": "Å", "ångström": "Å", "å": "Å", "minute": "min", "hour": "h", "day": "d"}


@dataclass(kw_only=True)
class PartSource(Source):
    """A series of a file, whose parts a function reads.

    Attributes
    ----------
    part
        Takes indices along the first axes, and returns the pixels there.
    expansion
        The most bytes of pixels per byte of the file. None: no one knows, or the reader looks itself.

    Raises
    ------
    ValueError
        If the file contains no pixels, or claims more of them than it can contain.
    NotImplementedError
        If they are no numbers.
    """

    path: Path
    kind: str
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype
    part: Callable[[tuple[int, ...]], np.ndarray]
    files: tuple[Path, ...] = ()
    series: str = ""
    calibration: Calibration = field(default_factory=Calibration)
    left_out: str = ""
    notes: tuple[str, ...] = ()
    expansion: float | None = None

    def __post_init__(self) -> None:
        self.dtype = self.dtype.newbyteorder("=")
        if self.dtype.kind == "b":
            self.dtype = np.dtype(np.uint8)
        elif self.dtype.kind == "f" and self.dtype.itemsize > MAX_FLOAT_BYTES:
            self.notes += (f"its numbers are of type {self.dtype}, and are rounded to float64",)
            self.dtype = np.dtype(np.float64)
        self.files = self.files or (self.path,)
        if min(self.shape, default=0) < 1:
            raise ValueError("it contains no pixels")
        if self.dtype.kind not in "biufc":
            raise NotImplementedError(f"its values are of type {self.dtype}, allowed: numbers")
        if any(self.axes.count(axis) > 1 for axis in "TCZYX"):
            raise ValueError(f"it has two axes of one kind, {self.axes}")
        if self.expansion is not None:
            packed = sum(file.stat().st_size for file in self.files)
            check_size(math.prod(self.shape) * self.dtype.itemsize, packed, self.expansion)

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

        Raises
        ------
        UserError
            If the file is damaged there.
        """
        with errors_named(self.path):
            check_memory(math.prod(self.shape[len(index) :]) * self.dtype.itemsize)
            array = np.asarray(self.part(index))
            if array.shape != self.shape[len(index) :]:
                raise ValueError(f"found pixels of shape {array.shape}, announced: {self.shape[len(index) :]}")
            return array.astype(self.dtype, copy=False)


def unit_name(text: str) -> str:
    """Return the short name of a unit of length or time.

    Parameters
    ----------
    text
        The name of the unit in a file.

    Returns
    -------
    str
        One of ``LENGTHS`` or ``TIMES``; empty for pixels, and the text itself if it is neither.

    Examples
    --------
    >>> [unit_name(text) for text in ("µm", "Micrometers", "msec", "pixels", "furlong")]
    ['um', 'um', 'ms', '', 'furlong']
    """
    text = text.replace("\\u00B5", "u").replace("\\u00b5", "u").replace("µ", "u").replace("μ", "u").strip()
    if text in LENGTHS or text in TIMES:
        return text
    # Short names differ in case: a megametre is no millimetre.
    lower = text.casefold()
    found = next((UNITS[name] for name in (lower, lower.removesuffix("s")) if name in UNITS), text)
    return "" if lower in ("pixel", "pixels") else found


def size_notes(calibration: Calibration) -> tuple[str, ...]:
    """Return what the user has to know of the size of a pixel.

    Parameters
    ----------
    calibration
        What a file says.

    Returns
    -------
    tuple of str
        A sentence if it may not be what it seems.
    """
    sizes = ", ".join(f"{axis} {size:g}" for axis, size in calibration.sizes.items())
    if sizes and not calibration.unit:
        return (f"the size of its pixels has no unit ({sizes}): results keep these numbers, which say no length",)
    if calibration.unit == "inch":
        return (f"the size of its pixels is in inches ({sizes}), which may be that of a print: results keep it",)
    return ()


def opacity_notes(*, uniform: bool) -> tuple[str, ...]:
    """Say what becomes of a channel that is opacity.

    Parameters
    ----------
    uniform
        Whether it is the same everywhere.

    Returns
    -------
    tuple of str
        One sentence.
    """
    if uniform:
        return ("leaves out its opacity (alpha), which is the same everywhere",)
    return (
        "its last channel is opacity (alpha), which is learned and denoised like a colour; `channel` keeps another",
    )


def read_planes(
    index: tuple[int, ...],
    outer: tuple[int, ...],
    inner: tuple[int, ...],
    dtype: np.dtype,
    read_plane: Callable[[tuple[int, ...]], np.ndarray],
) -> np.ndarray:
    """Read a part of a file that is stored plane by plane.

    Parameters
    ----------
    index
        Indices along the first axes.
    outer
        Lengths of the axes that count planes; these come first.
    inner
        Shape of a plane.
    dtype
        Type of the pixels.
    read_plane
        Takes one index for each axis of ``outer``.

    Returns
    -------
    array
        The pixels at ``index``.
    """
    fixed, rest = index[: len(outer)], index[len(outer) :]
    free = outer[len(fixed) :]
    array = np.empty((*free, *inner), dtype)
    for place in np.ndindex(*free):
        array[place] = read_plane(fixed + place)
    return array[rest]


def as_series(found: list[PartSource]) -> list[Source]:
    """Take away the name of the only series of a file.

    Parameters
    ----------
    found
        All series.

    Returns
    -------
    list of Source
        The same.

    Raises
    ------
    ValueError
        If there is none.
    """
    if not found:
        raise ValueError("it contains no image")
    if len(found) == 1:
        found[0].series = ""
    return list(found)


def optional_module(name: str, path: Path) -> ModuleType:
    """Import a library of the extra ``formats``.

    Parameters
    ----------
    name
        The module.
    path
        The file that needs it, for the error message.

    Returns
    -------
    module
        The module.

    Raises
    ------
    UserError
        If the library is not installed.
    """
    return software.optional_module(name, "formats", subject=str(path), use="reads files of this kind")
