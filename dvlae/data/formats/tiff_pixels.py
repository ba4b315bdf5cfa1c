"""The pixels of the pages of TIFF files, in the sense that the file gives them."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from tifffile import COMPRESSION, PHOTOMETRIC, TIFF

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


def find_conversion(page: tifffile.TiffPage, kind: str, scaled: bool) -> Conversion:
    """Find out from the photometric interpretation of a page what has to be done with its pixels.

    Parameters
    ----------
    page
        The page.
    kind
        The kind of its series.
    scaled
        Whether the format has a scale of its own, which is applied already.

    Returns
    -------
    Conversion
        What has to be done.
    """
    dtype = page.dtype
    assert dtype is not None
    if scaled:
        return Conversion(lambda pixels: pixels, np.dtype(np.float32))
    if dtype.kind == "b":
        inverted = page.photometric == PHOTOMETRIC.MINISWHITE
        return Conversion(lambda pixels: (pixels != inverted).astype(np.uint8), np.dtype(np.uint8))
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        return _inversion(dtype, page.bitspersample)
    if page.photometric == PHOTOMETRIC.PALETTE and page.colormap is not None:
        return _colours(dtype, page.colormap, kind)
    notes: tuple[str, ...] = ()
    decoded = page.compression in TIFF.IMAGE_COMPRESSIONS and page.photometric == PHOTOMETRIC.YCBCR
    if page.photometric in OTHER_COLOURS and not decoded:
        notes = (f"its channels are {OTHER_COLOURS[PHOTOMETRIC(page.photometric)]}, and are read as they are stored",)
    if page.photometric == PHOTOMETRIC.RGB and page.planarconfig == 2 and kind in ("shaped", "generic"):
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
    assert series.parent is not None
    if series.dataoffset is not None:
        # The file may have a single page that describes all of them.
        handle = series.parent.filehandle
        offset = series.dataoffset + number * keyframe.size * series.dtype.itemsize
        pixels = handle.read_array(series.parent.byteorder + series.dtype.char, keyframe.size, offset)
    else:
        page = series[number]
        assert page is not None
        _check_compression(page.compression)
        try:
            _check_strips(page)
            with _opened(page.parent.filehandle):
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
