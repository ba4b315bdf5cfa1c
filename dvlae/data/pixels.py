"""Reading the pixels of TIFF files that may be damaged or malicious."""

import logging
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tifffile

from dvlae.system.errors import UserError
from dvlae.system.hardware.machine import free_memory

# Smaller images are not compared with the size of their file.
ALWAYS_READ_BYTES = 2**28
# We report a damaged file once, by raising an error.
logging.getLogger("tifffile").propagate = False
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Replace any error about a missing or damaged file by one line that names the file.

    Parameters
    ----------
    path
        The file that the block reads.

    Raises
    ------
    UserError
        If the file is missing, or the block raises any error; one of this class is left as it is.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file")
    try:
        yield
    except UserError:
        raise
    except NotImplementedError as error:
        raise UserError(f"{path}: {error}") from None
    except MemoryError as error:
        raise UserError(f"{path}: a part of it that is read at once does not fit into the memory ({error})") from None
    # Reading a damaged file may raise any exception.
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        text = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path}: cannot be read, is it damaged or incomplete? ({text})") from None


@contextmanager
def open_tiff(path: Path, omexml: str | None = None) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF file, unless its list of pages has no end.

    Parameters
    ----------
    path
        The file.
    omexml
        OME metadata that replace those of the file.

    Yields
    ------
    file
        The open file.

    Raises
    ------
    ValueError
        If the list of pages breaks off or runs in a circle, or pages overlap.
    """
    with tifffile.TiffFile(path, omexml=omexml) as file:
        find_pages(file)
        yield file


def find_pages(file: tifffile.TiffFile) -> list[int]:
    """Return where the pages of a TIFF file begin.

    Parameters
    ----------
    file
        The open file.

    Returns
    -------
    list of int
        Offsets in bytes.

    Raises
    ------
    ValueError
        If the list of pages breaks off or runs in a circle, or pages overlap.
    """
    # tifffile follows a list that runs in a circle for hours.
    tiff, handle = file.tiff, file.filehandle
    offset, seen, total = file.pages.first.offset, dict[int, None](), 0
    while offset:
        handle.seek(offset)
        try:
            (tags,) = struct.unpack(tiff.tagnoformat, handle.read(tiff.tagnosize))
            handle.seek(tags * tiff.tagsize, os.SEEK_CUR)
            (following,) = struct.unpack(tiff.offsetformat, handle.read(tiff.offsetsize))
        except struct.error:
            raise ValueError(f"it breaks off after {len(seen)} pages") from None
        total += tiff.tagnosize + tags * tiff.tagsize + tiff.offsetsize
        if offset in seen or total > handle.size:
            raise ValueError("its list of pages runs in a circle, or its pages overlap")
        seen[offset] = None
        offset = following
    return list(seen)


def check_size(nbytes: int, packed: int, expansion: float | None = None) -> None:
    """Refuse a file that claims more pixels than it can contain.

    Parameters
    ----------
    nbytes
        Bytes of its pixels.
    packed
        Bytes of the file.
    expansion
        The most bytes of pixels per byte of the file that its compression can reach. None: any number, as some methods
        store a blank image in a few bytes.

    Raises
    ------
    ValueError
        If the file claims more pixels than it can contain, or has none.
    """
    if nbytes == 0:
        raise ValueError("it contains no pixels")
    if expansion is not None and nbytes > max(ALWAYS_READ_BYTES, expansion * packed):
        raise ValueError(f"it claims to contain {nbytes} bytes of pixels in a file of {packed}")


def check_memory(nbytes: int) -> None:
    """Refuse to read what does not fit into the memory.

    Parameters
    ----------
    nbytes
        Bytes that are read at once.

    Raises
    ------
    MemoryError
        If there is not as much free memory.
    """
    if nbytes > ALWAYS_READ_BYTES and nbytes > (free := free_memory()):
        raise MemoryError(f"{nbytes} bytes, of which {free} are free")
