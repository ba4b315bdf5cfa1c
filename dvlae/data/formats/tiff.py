"""Reading of TIFF files of all kinds: plain, ImageJ, OME, LSM, STK, SVS and others."""

import logging
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from dvlae.data.formats.ome import OmeSet, find_set
from dvlae.data.formats.parts import opacity_notes
from dvlae.data.formats.tiff_metadata import calibration_notes, read_calibration, stated_axes
from dvlae.data.formats.tiff_pixels import (
    Conversion,
    colour_notes,
    find_conversion,
    has_several_colour_maps,
    loss_notes,
    most_bytes,
    read_page,
)
from dvlae.data.pixels import ALWAYS_READ_BYTES, check_memory, check_size, errors_named, open_tiff
from dvlae.data.sources import Calibration, Source

# The kinds of series whose pages have nothing in common but the file.
PLAIN_KINDS = ("generic", "shaped", "uniform")
# Scanners of slides; they write labels and overviews.
SLIDE_KINDS = ("avs", "bif", "ndpi", "philips", "qpi", "scn", "svs")
PREVIEW_NAMES = re.compile("thumb|label|macro|overview|preview|map", re.IGNORECASE)
PREVIEW, MASK = "a preview", "a transparency mask, which is not used; set `mask`"
# The sides of a page without a mark are at most this part of the largest one's, if it is a preview.
PREVIEW_SIDE = 0.5
# The axes along which a recording can have been stopped early.
FRAME_AXES = "ST"
ORIENTATION, UPRIGHT = 274, 1
# Samples beside colours that are opacity: with the colours multiplied by it, and without.
OPACITY = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)

# A series, and the number of one of its pages.
Place = tuple[tifffile.TiffPageSeries, int]


@contextmanager
def sources(path: Path) -> Iterator[list[Source]]:
    """Open a TIFF file, or the set of OME-TIFF files that it belongs to.

    Parameters
    ----------
    path
        The file.

    Yields
    ------
    list of Source
        Its series.

    Raises
    ------
    UserError
        If the file is damaged, or belongs to a set of which a file is missing.
    """
    with ExitStack() as stack:
        with errors_named(path):
            ome = find_set(path)
            told = stack.enter_context(_told())
            file = stack.enter_context(open_tiff(ome.first, ome.resolved))
            found: list[Source] = [*_find_sources(file, path, ome, told)]
        yield found


class _Told(logging.Handler):
    """The messages of tifffile about series: it goes on with zeros where a part of a file is missing."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = re.sub("<tifffile[.]TiffFile.*?> ", "", record.getMessage())
        if re.search("series|MMStack", message) and message not in self.messages:
            self.messages.append(message)


@contextmanager
def _told() -> Iterator[list[str]]:
    handler, logger = _Told(), logging.getLogger("tifffile")
    logger.addHandler(handler)
    try:
        yield handler.messages
    finally:
        logger.removeHandler(handler)


@dataclass(kw_only=True)
class TiffSource(Source):
    """A series of pages of a TIFF file.

    Attributes
    ----------
    places
        Where the pages are.
    outer
        Lengths of the axes that count pages; these come first.
    conversion
        What is done with the pixels of each page.
    """

    path: Path
    files: tuple[Path, ...]
    series: str
    kind: str
    axes: str
    stated: str
    shape: tuple[int, ...]
    dtype: np.dtype
    calibration: Calibration
    left_out: str
    notes: tuple[str, ...]
    axes_notes: tuple[str, ...]
    places: Sequence[Place]
    outer: tuple[int, ...]
    conversion: Conversion

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
        fixed, rest = index[: len(self.outer)], index[len(self.outer) :]
        free, inner = self.outer[len(fixed) :], self.shape[len(self.outer) :]
        count = math.prod(free)
        first = int(np.ravel_multi_index(fixed, self.outer[: len(fixed)])) * count if fixed else 0
        with errors_named(self.path):
            check_memory(count * math.prod(inner) * self.dtype.itemsize)
        if count == 1:  # A page may be so large that there is no room for a copy.
            return self._page(first).reshape(*free, *inner)[rest]
        array = np.empty((count, *inner), self.dtype)
        for number in range(count):
            array[number] = self._page(first + number)
        return array.reshape(*free, *inner)[rest]

    def _page(self, number: int) -> np.ndarray:
        with errors_named(self.path):
            pixels = self.conversion.apply(read_page(*self.places[number]))
            return pixels.reshape(self.shape[len(self.outer) :]).astype(self.dtype, copy=False)


def _find_sources(file: tifffile.TiffFile, path: Path, ome: OmeSet, told: list[str]) -> list[TiffSource]:
    try:
        every = file.series
    except RuntimeError:
        # tifffile took the pages for equal after it had looked at some of them.
        file.is_uniform = False
        every = file.series
    every = [level for series in every for level in _own_levels(series)]
    if all(series.kind in PLAIN_KINDS for series in every):
        every.sort(key=lambda series: series.keyframe.index)
    _check_kind(file, every, ome)
    groups = _join_plain(every)
    names = _name_series([group[0] for group in groups])
    numbers = [every.index(group[0]) for group in groups]
    found = [_make_source(file, path, ome, *each) for each in zip(groups, names, numbers, strict=True)]
    notes = tuple(told) + _unused_pages(file, every, ome)
    for source in found:
        source.notes += notes
    _mark_previews(found)
    return found


def _own_levels(series: tifffile.TiffPageSeries) -> list[tifffile.TiffPageSeries]:
    """Return a plain series and the pages that tifffile takes for smaller copies of it only by their size."""
    if series.kind not in PLAIN_KINDS or series.levels[-1].keyframe.is_subifd:
        return [series]
    levels, series.levels = series.levels, [series]
    return levels


def _check_kind(file: tifffile.TiffFile, every: Sequence[tifffile.TiffPageSeries], ome: OmeSet) -> None:
    """Refuse a file of which tifffile would read only the first page, as what it says of itself cannot be right."""
    if not every:
        raise ValueError("it contains no pixels")
    kinds = {series.kind for series in every}
    if file.imagej_metadata and kinds <= set(PLAIN_KINDS) - {"shaped"}:
        images = file.imagej_metadata.get("images", 1)
        raise ValueError(f"ImageJ wrote {images} images, and the file ends before the last")
    if ome.images and "ome" in kinds and len(every) < ome.images:
        raise ValueError(f"its OME metadata names {ome.images} images, of which {len(every)} are there")


def _unused_pages(file: tifffile.TiffFile, every: Sequence[tifffile.TiffPageSeries], ome: OmeSet) -> tuple[str, ...]:
    """Return a sentence if the file has pages that belong to no series."""
    levels = [level for series in every for level in series.levels]
    unused = len(file.pages) - sum(min(len(level), math.prod(level.shape) // level.keyframe.size) for level in levels)
    if unused <= 0 or len(ome.files) > 1:
        return ()
    return (f"leaves out {unused} of the {len(file.pages)} pages, which its metadata does not mention",)


def _join_plain(every: Sequence[tifffile.TiffPageSeries]) -> list[list[tifffile.TiffPageSeries]]:
    """Put plain series of pages of one shape, such as appended ones, together."""
    groups: dict[Any, list[tifffile.TiffPageSeries]] = {}
    for number, series in enumerate(every):
        page = series.keyframe
        key: Any = number
        if series.kind in PLAIN_KINDS and len(series.levels) == 1:
            # What tifffile wrote at once has a shape of its own.
            shape = series.shape if series.kind == "shaped" else ()
            key = (series.kind, shape, page.shape, page.axes, page.dtype, page.photometric, page.is_reduced)
        groups.setdefault(key, []).append(series)
    return list(groups.values())


def _name_series(every: Sequence[tifffile.TiffPageSeries]) -> list[str]:
    """Return the names of series, or their numbers if the names are not unique; a single one needs no name."""
    if len(every) == 1:
        return [""]
    names = [series.name for series in every]
    return [name if name and names.count(name) == 1 else str(number) for number, name in enumerate(names)]


def _make_source(
    file: tifffile.TiffFile,
    path: Path,
    ome: OmeSet,
    group: list[tifffile.TiffPageSeries],
    name: str,
    number: int,
) -> TiffSource:
    series, page = group[0], group[0].keyframe
    if page.dtype is None:
        raise NotImplementedError(f"pixels of {page.bitspersample} bits of type {page.sampleformat} are not supported")
    axes, shape = stated_axes(series), series.shape
    counted = next((k for k in range(len(shape) + 1) if math.prod(shape[k:]) == page.size), None)
    if counted is None:
        raise ValueError(f"its pages of shape {page.shape} do not make up an image of shape {shape}")
    outer, inner = shape[:counted], shape[counted:]
    places: list[Place] = [(part, page_number) for part in group for page_number in range(math.prod(outer))]
    if len(group) > 1 and series.kind == "shaped":
        axes, outer = "?" + axes, (len(group), *outer)
    elif len(group) > 1:
        places = [(part, page_number) for part in group for page_number in range(len(part))]
        places.sort(key=_place_in_file)
        axes, outer = "?" + axes[counted:], (len(places),)
    notes: tuple[str, ...] = ()
    if any(part is None for part in series._pages):
        complete, notes = _complete(series, axes, outer)
        outer = (complete, *outer[1:])
        places = places[: math.prod(outer)]
    orientation = page.tags.valueof(ORIENTATION, UPRIGHT)
    if orientation != UPRIGHT:
        notes += (f"is turned or mirrored where it is shown (orientation {orientation}), and is read as it is stored",)
    conversion = find_conversion(page, series.kind, series.transform is not None)
    if conversion.added and any(has_several_colour_maps(part) for part in group):
        raise NotImplementedError("its pages have different colour maps; save it in red, green and blue")
    conversion, inner = _without_opacity(group, conversion, axes[len(outer) :], inner)
    calibration = read_calibration(file, series, number, ome.xml)
    files = _files_of(series, path, ome)
    shape, stated = (*outer, *inner, *conversion.added), axes + "C" * len(conversion.added)
    axes = stated.replace("C", "S", stated.count("C") - 1)
    axes_notes = colour_notes(page, series.kind, axes)
    if axes != stated:
        axes_notes += (f"its {shape[stated.index('C')]} channels have several colours each: reads each as an image",)
    packed = sum(each.stat().st_size for each in files)
    check_size(math.prod(outer) * page.nbytes, packed, most_bytes(group))
    return TiffSource(
        path=files[0],
        files=files,
        series=name,
        kind=series.kind if series.kind in ("imagej", "ome") else "tiff",
        axes=axes,
        stated=stated if stated.endswith("YXC") else axes,
        shape=shape,
        dtype=conversion.dtype,
        calibration=calibration,
        left_out=_left_out(series),
        notes=notes + conversion.notes + loss_notes(group) + calibration_notes(calibration),
        axes_notes=axes_notes,
        places=places,
        outer=outer,
        conversion=conversion,
    )


def _without_opacity(
    group: Sequence[tifffile.TiffPageSeries], conversion: Conversion, axes: str, inner: tuple[int, ...]
) -> tuple[Conversion, tuple[int, ...]]:
    """Leave out a channel that the file calls opacity, if it is the same everywhere. Return the new shape of a page."""
    page = group[0].keyframe
    opaque = page.extrasamples and page.extrasamples[-1] in OPACITY and axes.count("C") == 1 and not conversion.added
    if not opaque:
        return conversion, inner
    place, notes = axes.index("C"), conversion.notes
    values: set[Any] = set()
    # Of a very large file, all channels are kept.
    if sum(series.nbytes for series in group) <= ALWAYS_READ_BYTES:
        for series in group:
            for number in range(len(series)):
                opacity = read_page(series, number).reshape(inner).take(-1, place)
                values |= {opacity.min(), opacity.max()}
    if len(values) != 1:
        return replace(conversion, notes=notes + opacity_notes(uniform=False)), inner
    kept = inner[place] - 1

    def apply(pixels: np.ndarray) -> np.ndarray:
        return conversion.apply(pixels.reshape(inner).take(range(kept), place))

    left = (*inner[:place], kept, *inner[place + 1 :])
    return replace(conversion, apply=apply, notes=notes + opacity_notes(uniform=True)), left


def _files_of(series: tifffile.TiffPageSeries, path: Path, ome: OmeSet) -> tuple[Path, ...]:
    """Return the files of a series in the order of the metadata, under the names that they have for the user."""
    real = {Path(part.parent.filehandle.path) for part in series._pages if part is not None}
    named = dict.fromkeys(file for file in (*ome.files, path) if file.resolve() in real)
    others = real - {file.resolve() for file in named}
    return (*named, *sorted(others))


def _place_in_file(place: Place) -> Any:
    series, number = place
    page = series[number]
    assert page is not None
    return page.index


def _complete(series: tifffile.TiffPageSeries, axes: str, outer: tuple[int, ...]) -> tuple[int, tuple[str, ...]]:
    """Return how many of the frames of a recording that was stopped are complete, and a sentence about it."""
    there = [page is not None for page in series._pages]
    planes = math.prod(outer[1:])
    complete = there.index(False) // planes
    if complete == 0 or axes[0] not in FRAME_AXES or any(there[(complete + 1) * planes :]):
        raise ValueError(f"it announces {len(there)} planes, of which {there.count(False)} are missing")
    left = sum(there[complete * planes :])
    note = f"the recording was stopped: reads the first {complete} of {outer[0]} along {axes[0]}"
    return complete, (note + (f", and leaves out {left} planes of the next" if left else ""),)


def _left_out(series: tifffile.TiffPageSeries) -> str:
    """Return what a series is according to its marks and its name, if it is no image."""
    page = series.keyframe
    if page.subfiletype & tifffile.FILETYPE.MASK or page.photometric == tifffile.PHOTOMETRIC.MASK:
        return MASK
    named = series.kind in SLIDE_KINDS and PREVIEW_NAMES.search(series.name)
    return PREVIEW if page.is_reduced or named else ""


def _mark_previews(found: list[TiffSource]) -> None:
    """Mark a single page without a mark that is much smaller than the largest one, and the levels of a pyramid."""
    if all(source.left_out for source in found):
        for source in found:
            source.left_out = ""
    images = [source for source in found if not source.left_out]
    largest = max(map(_sides, images), key=math.prod)
    small = [
        source
        for source in images
        if source.kind == "tiff"
        and _sides(source) != largest
        and all(side <= math.ceil(PREVIEW_SIDE * most) for side, most in zip(_sides(source), largest, strict=True))
    ]
    # Several small pages may be frames as well as the others.
    if all(len(source.places) == 1 for source in small) and (
        len(small) == 1 or all(_is_level(_sides(source), largest) for source in small)
    ):
        for source in small:
            source.left_out = PREVIEW


def _sides(source: TiffSource) -> tuple[int, int]:
    page = source.places[0][0].keyframe
    return page.imagelength, page.imagewidth


def _is_level(sides: tuple[int, int], largest: tuple[int, int]) -> bool:
    """Return whether an image may be a larger one at a fraction of its resolution, which is a power of 2."""
    factor = 2 ** round(math.log2(max(largest) / max(sides)))
    return all(most // factor <= side <= -(-most // factor) for side, most in zip(sides, largest, strict=True))
