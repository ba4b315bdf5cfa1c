"""The pixels of the pages of TIFF files, in the sense that the file gives them."""

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from tifffile import COMPRESSION, PHOTOMETRIC, TIFF

from dvlae.axes import format_sides
from dvlae.data.formats.compressed.streams import READERS, Stream, loss_note
from dvlae.data.formats.parts import DEFLATE_EXPANSION
from dvlae.data.pixels import check_memory

COLOUR_MAP = 320
# As much of a strip as contains the size of the image in it.
HEAD_BYTES = 2**16
# The codecs whose beginning says something. They are named as users know them.
CODECS: dict[int, str] = {
    **dict.fromkeys((COMPRESSION.OJPEG, COMPRESSION.JPEG, COMPRESSION.ALT_JPEG, COMPRESSION.JPEG_LOSSY), "JPEG"),
    **dict.fromkeys((COMPRESSION.JPEG2000, COMPRESSION.JPEG_2000_LOSSY), "JPEG 2000"),
    **dict.fromkeys((COMPRESSION.APERIO_JP2000_RGB, COMPRESSION.APERIO_JP2000_YCBC), "JPEG 2000"),
    **dict.fromkeys((COMPRESSION.JPEGXL, COMPRESSION.JPEGXL_DNG), "JPEG XL"),
    **dict.fromkeys((COMPRESSION.JPEGXR, COMPRESSION.JPEGXR_NDPI), "JPEG XR"),
    **dict.fromkeys((COMPRESSION.WEBP, COMPRESSION.WEBP_DEPRECATED), "WebP"),
    COMPRESSION.LERC: "LERC",
    COMPRESSION.PNG: "PNG",
}
# How LERC is packed once more, by the second number of a tag.
LERC_PACKING, LERC_DEFLATE, LERC_ZSTD = 50674, 1, 2
# The most bytes of pixels per byte of the file; other methods store a blank image in a few bytes.
EXPANSIONS: dict[int, float] = {
    COMPRESSION.NONE: 1.0,
    COMPRESSION.PACKBITS: 64.0,
    COMPRESSION.ADOBE_DEFLATE: DEFLATE_EXPANSION,
    COMPRESSION.DEFLATE: DEFLATE_EXPANSION,
}
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
    return Conversion(lambda pixels: pixels, dtype, notes=notes)


def colour_notes(page: tifffile.TiffPage, kind: str, axes: str) -> tuple[str, ...]:
    """Return what helps if planes that are tagged as colours are none.

    Parameters
    ----------
    page
        A page of the file.
    kind
        The kind of its series.
    axes
        The axes that the file states, in our letters.

    Returns
    -------
    tuple of str
        A sentence if they may be others.
    """
    planar = page.photometric == PHOTOMETRIC.RGB and page.planarconfig == 2
    # A file that says that the planes are times is read so.
    if not (planar and "C" in axes and kind in ("shaped", "generic")):
        return ()
    free = [letter for letter in "TSZ" if letter not in axes]
    frames = axes.replace("C", free.pop(0), 1)
    while "?" in frames and free:
        frames = frames.replace("?", free.pop(0), 1)
    return (
        f"its planes are tagged as red, green and blue; if they are frames, set `axes: {frames}` and "
        "`axes_override: true`",
    )


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
    """Refuse a page whose strips or tiles contain fewer or more pixels than their place in it, or fill the memory."""
    keyframe = page.keyframe
    check_memory(keyframe.nbytes)
    name = CODECS.get(keyframe.compression)
    if name is None or keyframe.imagedepth > 1:
        return
    side = (keyframe.imagelength, keyframe.imagewidth)
    tile = (keyframe.tilelength, keyframe.tilewidth)
    if not keyframe.is_tiled:
        tile = (min(keyframe.rowsperstrip, side[0]), side[1])
    counts = tuple(math.ceil(whole / part) for whole, part in zip(side, tile, strict=True))
    for number, start in enumerate(zip(page.dataoffsets, page.databytecounts, strict=False)):
        stream = READERS[name](_head(page, *start))
        place = np.unravel_index(number % math.prod(counts), counts)
        # What lies beyond the edge of the image may be left out.
        least = tuple(min(p, w - p * int(at)) for p, w, at in zip(tile, side, place, strict=True))
        if stream.sides and not _is_between(stream, least, tile, keyframe.samplesperpixel):
            raise ValueError(
                f"{'tile' if keyframe.is_tiled else 'strip'} {number} contains {format_sides(stream.sides)} pixels "
                f"({name}), but the page says {format_sides(tile)}"
            )


def _is_between(stream: Stream, least: tuple[int, ...], most: tuple[int, ...], samples: int) -> bool:
    """Return whether an image fills its place, or has as many numbers in other rows, as the raw data of cameras do."""
    if all(a <= side <= b for a, side, b in zip(least, stream.sides, most, strict=True)):
        return True
    rows, columns = stream.sides
    numbers = {math.prod(sides) * samples for sides in (least, most)}
    # A JPEG may leave its height to its end.
    return (rows == 0 and least[1] <= columns <= most[1]) or rows * columns * stream.samples in numbers


def _head(page: Any, offset: int, size: int) -> bytes:
    """Read the beginning of a strip."""
    handle = page.parent.filehandle
    handle.seek(offset)
    head = handle.read(min(size, HEAD_BYTES))
    packing: tuple[int, ...] = ()
    if page.keyframe.compression == COMPRESSION.LERC:
        packing = page.keyframe.tags.valueof(LERC_PACKING, ())
    if packing[1:] == (LERC_DEFLATE,):
        return zlib.decompressobj().decompress(head, HEAD_BYTES)
    if packing[1:] == (LERC_ZSTD,):
        # The whole strip, as nothing less can be unpacked.
        handle.seek(offset)
        return TIFF.DECOMPRESSORS[COMPRESSION.ZSTD](handle.read(size))[:HEAD_BYTES]
    return head


def most_bytes(group: Sequence[tifffile.TiffPageSeries]) -> float | None:
    """Return how far the compression of a file can reach.

    Parameters
    ----------
    group
        Series of pages.

    Returns
    -------
    float or None
        The most bytes of pixels per byte of the file. None: any number.
    """
    pages = [series.keyframe for series in group]
    found = [EXPANSIONS.get(page.compression) for page in pages]
    known = [expansion for expansion in found if expansion is not None]
    # Bits are unpacked to bytes.
    return 8 * max(known) if len(known) == len(found) else None


def loss_notes(group: Sequence[tifffile.TiffPageSeries]) -> tuple[str, ...]:
    """Return what the user has to know of the compression of a file.

    Parameters
    ----------
    group
        Series of pages.

    Returns
    -------
    tuple of str
        A sentence for each kind of compression that has changed the pixels, or may have.
    """
    found: dict[str, None] = {}
    for page in (series.keyframe for series in group):
        name = CODECS.get(page.compression)
        if page.compression == COMPRESSION.JETRAW:
            found[loss_note("Jetraw", True)] = None
        elif name is not None and page.dataoffsets and page.dataoffsets[0] > 0:
            with _opened(page.parent.filehandle):
                stream = READERS[name](_head(page, page.dataoffsets[0], page.databytecounts[0]))
            found[loss_note(name, stream.lossy)] = None
    return tuple(filter(None, found))
