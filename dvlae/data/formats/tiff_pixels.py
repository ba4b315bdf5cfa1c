"""The pixels of the pages of TIFF files, in the sense that the file gives them."""

import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from tifffile import COMPRESSION, PHOTOMETRIC, TIFF

from dvlae.data.pixels import check_size

COLOUR_MAP = 320
# As much of a strip as contains the size of the image in it.
HEAD_BYTES = 2**16
JPEG = (COMPRESSION.OJPEG, COMPRESSION.JPEG, COMPRESSION.ALT_JPEG, COMPRESSION.JPEG_LOSSY)
# The markers of JPEG after which the size of the image stands; the others among them begin tables.
JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_2000_SIZE = b"\xff\x4f\xff\x51"
OTHER_COLOURS = {
    PHOTOMETRIC.SEPARATED: "inks (CMYK)",
    PHOTOMETRIC.YCBCR: "Y, Cb and Cr",
    PHOTOMETRIC.CIELAB: "L*, a* and b* (CIE)",
    PHOTOMETRIC.ICCLAB: "L*, a* and b* (ICC)",
    PHOTOMETRIC.ITULAB: "L*, a* and b* (ITU)",
    PHOTOMETRIC.LOGL: "logarithms of the luminance",
    PHOTOMETRIC.LOGLUV: "a logarithm of the luminance, and u and v",
    PHOTOMETRIC.CFA: "a mosaic of colour filters",
}


@dataclass(frozen=True)
class Conversion:
    """What is done with the pixels of a page, so that larger numbers mean more light, in each channel.

    Attributes
    ----------
    apply
        Takes and returns pixels.
    dtype
        The type of what it returns.
    added
        Lengths of the axes that it appends.
    notes
        What the user has to know of it.
    """

    apply: Callable[[np.ndarray], np.ndarray]
    dtype: np.dtype
    added: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def find_conversion(page: tifffile.TiffPage, kind: str, axes: str, scaled: bool) -> Conversion:
    """Find out from the photometric interpretation of a page what has to be done with its pixels.

    Parameters
    ----------
    page
        The page.
    kind
        The kind of its series.
    axes
        The axes that the file states, in our letters.
    scaled
        Whether the format has a scale of its own, which is applied already.

    Returns
    -------
    Conversion
        What has to be done.
    """
    dtype, notes = page.dtype, tuple[str, ...]()
    assert dtype is not None
    if scaled:
        return Conversion(lambda pixels: pixels, np.dtype(np.float32))
    if dtype.kind == "b":
        inverted = page.photometric == PHOTOMETRIC.MINISWHITE
        notes = ("0 is white in it: reads 1 - value",) if inverted else ()
        return Conversion(lambda pixels: (pixels != inverted).astype(np.uint8), np.dtype(np.uint8), notes=notes)
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        return _inversion(dtype, page.bitspersample)
    if page.photometric == PHOTOMETRIC.PALETTE and page.colormap is not None:
        return _colours(dtype, page.colormap, kind)
    # The decoders of images convert to red, green and blue, but for the one that the name says it of.
    decoded = page.compression in TIFF.IMAGE_COMPRESSIONS and page.compression != COMPRESSION.APERIO_JP2000_YCBC
    if page.photometric in OTHER_COLOURS and not (decoded and page.photometric == PHOTOMETRIC.YCBCR):
        notes = (f"its channels are {OTHER_COLOURS[PHOTOMETRIC(page.photometric)]}, and are read as they are stored",)
    # A file that says that the planes are times is read so.
    planar = page.photometric == PHOTOMETRIC.RGB and page.planarconfig == 2
    if planar and "C" in axes and kind in ("shaped", "generic"):
        notes = (
            "its planes are tagged as red, green and blue; if they are frames, set `axes: TYX` and "
            "`axes_override: true`",
        )
    return Conversion(lambda pixels: pixels, dtype, notes=notes)


def _inversion(dtype: np.dtype, bits: int) -> Conversion:
    if dtype.kind == "f":
        return Conversion(lambda pixels: pixels, dtype, notes=("0 is white in it; its numbers are kept",))
    # Of packed bits, the largest number is smaller than that of the type.
    white = dtype.type(2**bits - 1 if dtype.kind == "u" else -1)
    return Conversion(lambda pixels: white - pixels, dtype, notes=(f"0 is white in it: reads {white} - value",))


def _colours(dtype: np.dtype, colours: np.ndarray, kind: str) -> Conversion:
    """Apply a colour map, unless it only shows grey values in colours."""
    brightness = colours.astype(np.int64).sum(0)
    if (colours == colours[0]).all() and (np.diff(brightness) >= 0).all():
        return Conversion(lambda pixels: pixels, dtype)
    if kind in ("imagej", "lsm") or (np.diff(brightness) >= 0).all():
        note = "takes its numbers for grey values, and leaves out the colours that its colour map shows them in"
        return Conversion(lambda pixels: pixels, dtype, notes=(note,))
    step = next(step for step in (257, 256, 1) if not (colours % step).any())
    table = (colours // step).T.astype(np.uint16 if step == 1 else np.uint8)
    note = "its numbers stand for the colours of its colour map: reads red, green and blue"
    return Conversion(lambda pixels: table[pixels], table.dtype, (3,), (note,))


def has_several_colour_maps(series: tifffile.TiffPageSeries) -> bool:
    """Return whether the pages of a series have different colour maps.

    Parameters
    ----------
    series
        The series.

    Returns
    -------
    bool
        True if a number stands for different colours.
    """
    pages = [page.aspage() for page in series if page is not None]
    return len({np.asarray(page.tags.valueof(COLOUR_MAP)).tobytes() for page in pages}) > 1


def read_page(series: tifffile.TiffPageSeries, number: int) -> np.ndarray:
    """Read a page of a series.

    Parameters
    ----------
    series
        The series.
    number
        The number of the page in it.

    Returns
    -------
    array
        The pixels, as they are stored.

    Raises
    ------
    ValueError
        If a part of the page is missing or damaged.
    NotImplementedError
        If its compression is not known.
    """
    keyframe = series.keyframe
    file = keyframe.parent
    if series.dataoffset is not None and not series.is_multifile:
        # The file may have a single page that describes all of them.
        offset = series.dataoffset + number * keyframe.size * series.dtype.itemsize
        with _opened(file.filehandle):
            pixels = file.filehandle.read_array(file.byteorder + series.dtype.char, keyframe.size, offset)
    else:
        page = series[number]
        assert page is not None
        _check_compression(page.compression)
        try:
            _check_strips(page)
            with _opened(page.parent.filehandle):
                _check_claims(page)
                pixels = page.asarray()
        except ImportError as error:
            raise NotImplementedError(f"imagecodecs is installed without a part that reads it: {error}") from None
        # A damaged page may raise any exception.
        except Exception as error:
            raise ValueError(f"page {number}: {error}") from None
    return series.transform(pixels) if series.transform is not None else pixels


@contextmanager
def _opened(handle: tifffile.FileHandle) -> Iterator[None]:
    """Open a file while the block runs: of a set, tifffile keeps only one open."""
    closed = handle.closed
    if closed:
        handle.open()
    try:
        yield
    finally:
        if closed:
            handle.close()


def _check_compression(compression: int) -> None:
    try:
        TIFF.DECOMPRESSORS[compression]
    except KeyError:
        name = COMPRESSION(compression).name if compression in list(COMPRESSION) else compression
        raise NotImplementedError(
            f"compression {name} is not supported; save the file with another one, such as LZW or Deflate"
        ) from None


def _check_strips(page: Any) -> None:
    """Refuse a page that lacks some of its strips, which tifffile fills with zeros."""
    count = math.prod(page.keyframe.chunked)
    there = [offset > 0 and size > 0 for offset, size in zip(page.dataoffsets, page.databytecounts, strict=False)]
    missing = count - sum(there[:count])
    if missing:
        raise ValueError(f"{missing} of its {count} strips or tiles are missing")


def _check_claims(page: Any) -> None:
    """Refuse a page with a small strip that claims so many pixels of its own that they would fill the memory."""
    keyframe = page.keyframe
    if keyframe.compression not in TIFF.IMAGE_COMPRESSIONS:
        return
    for offset, size in zip(page.dataoffsets, page.databytecounts, strict=False):
        page.parent.filehandle.seek(offset)
        head = page.parent.filehandle.read(min(size, HEAD_BYTES))
        sides = _jpeg_sides(head) if keyframe.compression in JPEG else _other_sides(head)
        # A JPEG may leave its height to its end.
        check_size(max(1, math.prod(sides)) * keyframe.samplesperpixel * keyframe.dtype.itemsize, size)


def _jpeg_sides(head: bytes) -> tuple[int, ...]:
    place = 2
    while place + 9 <= len(head):
        marker, length = struct.unpack_from(">xBH", head, place)
        if marker in JPEG_FRAMES:
            return struct.unpack_from(">HH", head, place + 5)
        place += 2 + length
    return ()


def _other_sides(head: bytes) -> tuple[int, ...]:
    place = head.find(JPEG_2000_SIZE)
    if head[12:16] == b"IHDR" and len(head) >= 24:
        return struct.unpack_from(">II", head, 16)
    if place >= 0 and len(head) >= place + 16:
        return struct.unpack_from(">II", head, place + 8)
    return ()
