"""Canonical files, the one format that all steps after ``dvlae prepare`` read.

A canonical file contains the frames of one source. A frame has channels and one to three spatial axes: a trace (C, X),
an image (C, Y, X) or a volume (C, Z, Y, X). The file is a TIFF in the source's own type, compressed without loss, with
one page for each plane, so that one frame is read without the others. The description of its first page is JSON: what
is known of the source.

A folder of canonical files contains ``noisy/``, ``clean/`` if there are clean images, ``mask/`` if some pixels do not
count, and ``manifest.csv`` with one row for each frame.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from dvlae.data.defects.filling import fill
from dvlae.data.defects.marks import Defects
from dvlae.data.manifest import Image, is_manifest
from dvlae.data.pixels import check_memory, errors_named, find_pages
from dvlae.data.sources import SourceInfo
from dvlae.system.arrays import find_numbers, release, zeros
from dvlae.system.errors import UserError
from dvlae.system.files import Contents, atomic_file

# Planes that compression does not make smaller need a little more than their own size, and each page has its tags.
PAGE_BYTES = 512
# The offsets of a classic TIFF have 32 bits.
MAX_CLASSIC_BYTES = 2**32 - 2**20
# Files whose description and whose list of pages are kept in memory.
CACHED_FILES = 64
# Of what TIFF has, it is as small as any and four times as fast.
COMPRESSION: dict[str, Any] = {"compression": "zstd", "compressionargs": {"level": 1}}


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


def set_offset(path: Path, offset: float, scale: float = 1) -> None:
    """Write into a canonical file how its grey values are converted to those that are computed with.

    Parameters
    ----------
    path
        The file, which nobody has read yet.
    offset
        Subtracted first, in grey values.
    scale
        What remains is divided by it.
    """
    tifffile.tiffcomment(path, replace(read_info(path), offset=offset, scale=scale).to_json())
    _read_info.cache_clear()
    _read_offsets.cache_clear()


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


def is_canonical(path: Path) -> bool:
    """Return whether a file is a canonical one.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    bool
        Whether it says what is known of its source.
    """
    try:
        read_info(path)
    except UserError:
        return False
    return True


# The files of a folder of canonical files.
CANONICAL_FILES: Contents = {
    "manifest.csv": is_manifest,
    **dict.fromkeys(("noisy/*.tif", "clean/*.tif", "mask/*.tif"), is_canonical),
}


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
            page = tifffile.TiffPage(file, int(number))
            check_memory(page.nbytes)
            pages.append(page.asarray(maxworkers=1))
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
        The grey values that are computed with: less the offset of the file, and divided by its scale.

    Raises
    ------
    UserError
        If the file is missing or cannot be read.
    """
    info = read_info(path)
    return _read_values(path, info, frame, np.float32, lambda values: to_float32(values, info.offset, info.scale))


def _read_values(
    path: Path, info: SourceInfo, frame: int, dtype: type[np.generic], convert: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Read a frame, and convert it strip by strip: one plane may be as large as the memory."""
    shape = info.frame_shape
    sides = (1, *shape[1:]) if len(shape) == 2 else shape[-2:]
    result = zeros(shape, dtype)
    planes = result.reshape(-1, *sides)
    offsets = page_offsets(path)
    with errors_named(path), tifffile.TiffFile(path) as file:
        for number, plane in enumerate(planes, start=frame * len(planes)):
            file.filehandle.seek(int(offsets[number]))
            page = tifffile.TiffPage(file, number)
            if page.shape != sides:
                raise ValueError(f"found a page of {page.shape}, announced: {sides}")
            for strip, (_, _, row, _, _), _ in page.segments(maxworkers=1):
                if strip is None:
                    raise ValueError(f"a strip of page {number} is missing")
                plane[row : row + strip.shape[1]] = convert(strip[0, ..., 0])
                release(result)
    return result


def to_float32(values: np.ndarray, offset: float, scale: float = 1) -> np.ndarray:
    """Convert grey values to those that are computed with.

    Parameters
    ----------
    values
        Grey values of a file, of any type.
    offset
        Subtracted first, with all digits. A whole number for integers.
    scale
        What remains is divided by it.

    Returns
    -------
    float32 array
        The grey values, less the offset, as multiples of the scale.
    """
    if offset:
        # Unsigned integers that wrap around have the right differences.
        exact = np.int64 if values.dtype.kind in "iu" else np.float64
        values = values.astype(exact) - np.array(offset).astype(exact)
    if scale != 1:
        values = values.astype(np.float64) / scale
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
    if image.mask is None or (numbers := find_numbers(frame)) is None:
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
    return _read_values(image.mask, info, image.frame if info.frames > 1 else 0, np.bool_, lambda values: values != 0)[
        0
    ]
