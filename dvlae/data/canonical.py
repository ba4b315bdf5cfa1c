"""Canonical files, the one format that all steps after ``dvlae prepare`` read.

A canonical file contains the frames of one source. A frame has channels and one to three spatial axes: a trace (C, X),
an image (C, Y, X) or a volume (C, Z, Y, X). The file is a TIFF in the source's own type, compressed without loss, with
one page for each plane, so that one frame is read without the others. The description of its first page is JSON: what
is known of the source.

A folder of canonical files contains ``noisy/``, ``clean/`` if there are clean images, ``mask/`` if some pixels do not
count, and ``manifest.csv`` with one row for each frame.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from dvlae.data.defects.finding import Defects, fill
from dvlae.data.manifest import Image
from dvlae.data.pixels import errors_named, find_pages
from dvlae.data.sources import Calibration
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_file

# Planes that compression does not make smaller need a little more than their own size, and each page has its tags.
PAGE_BYTES = 512
# The offsets of a classic TIFF have 32 bits.
MAX_CLASSIC_BYTES = 2**32 - 2**20
# Files whose description and whose list of pages are kept in memory.
CACHED_FILES = 64
# The axes of a frame; along all others, frames are numbered.
FRAME_AXES = "CZYX"
COMPRESSION: dict[str, Any] = {"compression": "zlib", "compressionargs": {"level": 6}}


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
        The kind of file, and the series in it, as in :class:`dvlae.data.sources.Source`.
    dtype
        The source's own type.
    calibration
        What the source says beside its pixels.
    offset
        Subtracted from all grey values before anything is computed with 32 bits, which would lose small differences of
        large numbers.
    """

    axes: str
    shape: tuple[int, ...]
    kind: str
    dtype: str
    calibration: Calibration = field(default_factory=Calibration)
    offset: float = 0
    series: str = ""

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
        times = (count,) * (count > 1)
        return cls("T" * len(times) + "C" + "ZYX"[4 - len(shape) :], (*times, *shape), "tiff", dtype)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """The shape of a frame, (C, ...)."""
        sizes = dict(zip(self.axes, self.shape, strict=True))
        return (sizes.get("C", 1), *(sizes[axis] for axis in "ZYX" if axis in sizes))

    @property
    def frame_sizes(self) -> tuple[int, ...]:
        """The lengths of the axes along which the frames are numbered, in the order of the source."""
        return tuple(size for axis, size in zip(self.axes, self.shape, strict=True) if axis not in FRAME_AXES)

    @property
    def frames(self) -> int:
        """The number of frames."""
        return math.prod(self.frame_sizes)

    def in_source_order(self, frames: np.ndarray) -> np.ndarray:
        """Give frames the axes that they have in the source.

        Parameters
        ----------
        frames
            All frames, (F, C, ...).

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


def write_frames(path: Path, info: SourceInfo, frames: Iterable[np.ndarray], dtype: np.dtype) -> None:
    """Write a canonical file, one frame after the other.

    Parameters
    ----------
    path
        The file to make.
    info
        What is known of the source.
    frames
        All its frames, (C, ...).
    dtype
        The type to write.
    """
    shape = info.frame_shape
    # A trace is a page of one row.
    sides = (1, *shape[1:]) if len(shape) == 2 else shape[-2:]
    pages = info.frames * math.prod(shape) // math.prod(sides)
    most = pages * (PAGE_BYTES + int(1.001 * math.prod(sides)) * dtype.itemsize)

    def planes() -> Iterator[np.ndarray]:
        for frame in frames:
            yield from np.ascontiguousarray(frame, dtype).reshape(-1, *sides)

    with atomic_file(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=most > MAX_CLASSIC_BYTES) as file:
        file.write(
            planes(),
            shape=(pages, *sides),
            dtype=dtype,
            photometric="minisblack",
            description=info.to_json(),
            metadata=None,
            maxworkers=1,
            # There is no predictor for integers of 64 bits.
            predictor=dtype.kind == "f" or dtype.itemsize <= 4,
            **COMPRESSION,
        )


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a canonical file with a single frame.

    Parameters
    ----------
    path
        The file to make.
    image
        (C, X), (C, Y, X) or (C, Z, Y, X), converted to float32.
    """
    image = np.asarray(image, np.float32)
    write_frames(path, SourceInfo.of_frames(image.shape), [image], image.dtype)


def read_info(path: Path) -> SourceInfo:
    """Return what a canonical file says of its source.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    SourceInfo
        What is known of the source.

    Raises
    ------
    UserError
        If the file is missing or is not a canonical one.
    """
    state = _state(path)
    with errors_named(path):
        return _read_info(path, *state)


@lru_cache(maxsize=CACHED_FILES)
def _read_info(path: Path, changed: int, size: int) -> SourceInfo:
    with tifffile.TiffFile(path) as file:
        return SourceInfo.from_json(file.pages.first.description)


def _state(path: Path) -> tuple[int, int]:
    """Return what changes if a file is written again."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    state = path.stat()
    return state.st_mtime_ns, state.st_size


def page_offsets(path: Path) -> np.ndarray:
    """Return where the pages of a TIFF file begin. The list of pages is followed only once.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    int array
        Offsets in bytes.

    Raises
    ------
    UserError
        If the file is missing or cannot be read.
    """
    state = _state(path)
    with errors_named(path):
        return _read_offsets(path, *state)


@lru_cache(maxsize=CACHED_FILES)
def _read_offsets(path: Path, changed: int, size: int) -> np.ndarray:
    with tifffile.TiffFile(path) as file:
        return np.array(find_pages(file))


def read_pages(path: Path, numbers: Iterable[int]) -> np.ndarray:
    """Read some pages of a TIFF file.

    Parameters
    ----------
    path
        The file, whose pages have one shape and type.
    numbers
        Which pages.

    Returns
    -------
    (N, Y, X) or (N, Y, X, C) array
        The pages, in the order of ``numbers``.

    Raises
    ------
    UserError
        If the file is missing or cannot be read.
    """
    offsets = page_offsets(path)
    with errors_named(path), tifffile.TiffFile(path) as file:
        pages = []
        for number in numbers:
            file.filehandle.seek(int(offsets[number]))
            pages.append(tifffile.TiffPage(file, int(number)).asarray(maxworkers=1))
        return np.stack(pages)


def read_frame(path: Path, frame: int = 0) -> np.ndarray:
    """Read one frame of a canonical file.

    Parameters
    ----------
    path
        The file.
    frame
        Number of the frame.

    Returns
    -------
    (C, X), (C, Y, X) or (C, Z, Y, X) float32 array
        The grey values, less the offset of the file.

    Raises
    ------
    UserError
        If the file is missing or cannot be read.
    """
    info = read_info(path)
    return to_float32(_read_own_type(path, info, frame), info.offset)


def _read_own_type(path: Path, info: SourceInfo, frame: int) -> np.ndarray:
    pages = math.prod(info.frame_shape[:-2]) if len(info.frame_shape) > 2 else info.frame_shape[0]
    return read_pages(path, range(frame * pages, (frame + 1) * pages)).reshape(info.frame_shape)


def to_float32(values: np.ndarray, offset: float) -> np.ndarray:
    """Convert grey values to those that are computed with.

    Parameters
    ----------
    values
        Grey values of a file, of any type.
    offset
        Subtracted first, with all digits. A whole number for integers.

    Returns
    -------
    float32 array
        The grey values less the offset.
    """
    if offset:
        # Unsigned integers that wrap around have the right differences.
        exact = np.int64 if values.dtype.kind in "iu" else np.float64
        values = values.astype(exact) - np.array(offset).astype(exact)
    return np.ascontiguousarray(values, np.float32)


def read_noisy(image: Image) -> np.ndarray:
    """Read the noisy frame of an image.

    Parameters
    ----------
    image
        A row of a manifest.

    Returns
    -------
    (C, X), (C, Y, X) or (C, Z, Y, X) float32 array
        The frame, with an axis for the channels even if there is only one. Values that are not numbers, which do not
        count, are those of the nearest pixels; :func:`read_frame` returns them as they are.

    Raises
    ------
    UserError
        If the file is missing or cannot be read.
    """
    return _with_numbers(read_frame(image.noisy, image.frame), image)


def _with_numbers(frame: np.ndarray, image: Image) -> np.ndarray:
    if image.mask is None or (numbers := np.isfinite(frame).all(axis=0)).all():
        return frame
    return fill(frame, Defects.none(frame.shape), numbers)


def read_clean(image: Image) -> np.ndarray:
    """Read the clean frame of an image that has one.

    Parameters
    ----------
    image
        A row of a manifest.

    Returns
    -------
    (C, X), (C, Y, X) or (C, Z, Y, X) float32 array
        The frame, in the units and of the shape of the noisy one, and like it without values that are not numbers.

    Raises
    ------
    UserError
        If the file is missing or cannot be read.
    """
    assert image.clean is not None
    return _with_numbers(read_frame(image.clean, image.clean_frame), image)


def read_mask(image: Image) -> np.ndarray | None:
    """Read which pixels of an image count.

    Parameters
    ----------
    image
        A row of a manifest.

    Returns
    -------
    bool array or None
        True where a pixel counts, with the spatial axes of the image; None if all of them do.

    Raises
    ------
    UserError
        If the file is missing or cannot be read.
    """
    if image.mask is None:
        return None
    info = read_info(image.mask)
    # One mask may hold for all frames of a file.
    return _read_own_type(image.mask, info, image.frame if info.frames > 1 else 0)[0] != 0
