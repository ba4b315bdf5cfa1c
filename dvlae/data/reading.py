"""Reading the frames of image files, as a dataset's settings say."""

import itertools
import logging
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from dvlae.axes import format_sides
from dvlae.config.dataset import CropSettings, DatasetSettings, check_axes
from dvlae.data.files import unique_names
from dvlae.data.layout import SPATIAL, Layout, lay_out, note_thin
from dvlae.data.sources import Source, open_sources
from dvlae.system.errors import UserError

logger = logging.getLogger(__name__)

# The longest list of series in a message.
MOST_LISTED = 10
# Weights of red, green and blue (ITU-R BT.709).
LUMINANCE_WEIGHTS = np.array([0.2125, 0.7154, 0.0721])


class Stack:
    """The frames of one source, as a dataset's settings read them.

    Parameters
    ----------
    name
        A name that no other source has.
    source
        The open source.
    layout
        What its axes are.
    channel, crop
        The settings of the dataset.

    Attributes
    ----------
    name, source, channel
        The arguments.
    channels
        The number of channels in the source.
    axes
        The axes in the order of the source, letters of STCZYX: those of a frame, C, Z, Y and X, and others, along which
        the frames are numbered. S may be there more than once.
    shape
        One number for each axis, after the choice of a channel and the crop.
    dtype
        The type of the frames: that of the source, or float32 for a luminance.

    Raises
    ------
    UserError
        If the source lacks the channel, is smaller than the crop, or contains complex numbers.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        layout: Layout,
        channel: int | Literal["grey"] | None = None,
        crop: CropSettings | None = None,
    ):
        self.name, self.source, self._layout, self.channel = name, source, layout, channel
        sizes = dict(zip(layout.axes, layout.shape, strict=True))
        self.channels = sizes.get("C", 1)
        _check_channel(source, layout.axes, self.channels, channel)
        self._luminance = channel == "grey" and self.channels > 1
        self.dtype = np.dtype(np.float32) if self._luminance else source.dtype
        spatial = {axis: sizes[axis] for axis in layout.spatial}
        self._window = find_window(crop, spatial, f"{source.path}: crop")
        sizes |= {axis: part.stop - part.start for axis, part in zip(layout.spatial, self._window, strict=True)}
        sizes["C"] = self.channels if channel is None else 1
        self.axes = layout.axes
        self.shape = tuple(
            sizes[axis] if axis in "C" + SPATIAL else length
            for axis, length in zip(layout.axes, layout.shape, strict=True)
        )
        self._whole: np.ndarray | None = None

    @property
    def spatial(self) -> str:
        """The spatial axes of a frame, in order."""
        return self._layout.spatial

    @property
    def window(self) -> tuple[slice, ...]:
        """The part of the complete frames that is read, one slice for each spatial axis."""
        return self._window

    @property
    def complete_sides(self) -> tuple[int, ...]:
        """The spatial axes of the complete frames."""
        sizes = dict(zip(self._layout.axes, self._layout.shape, strict=True))
        return tuple(sizes[axis] for axis in self._layout.spatial)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """The shape of a frame, (C, ...)."""
        sizes = dict(zip(self.axes, self.shape, strict=True))
        return (sizes.get("C", 1), *(sizes[axis] for axis in self._layout.spatial))

    @property
    def frame_sizes(self) -> tuple[int, ...]:
        """The lengths of the axes along which the frames are numbered, in the order of the source."""
        return tuple(length for axis, length in zip(self.axes, self.shape, strict=True) if axis in "ST")

    def __len__(self) -> int:
        return math.prod(self.frame_sizes)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.frame(number) for number in range(len(self)))

    def frame(self, number: int) -> np.ndarray:
        """Read one frame.

        Parameters
        ----------
        number
            Its number, in the order of the file.

        Returns
        -------
        (C, ...) array
            The grey values of the file, with the spatial axes in the order Z, Y, X.

        Raises
        ------
        UserError
            If the file is damaged there.
        """
        axes, array = self._read(number)
        order = [axis for axis in "C" + self._layout.spatial if axis in axes]
        array = array.transpose([axes.index(axis) for axis in order])
        if "C" not in order:
            array = array[None]
        array = array[(slice(None), *self._window)]
        if self._luminance:
            array = np.tensordot(LUMINANCE_WEIGHTS, array[:3].astype(np.float64), axes=1)[None]
        elif isinstance(self.channel, int):
            array = array[self.channel : self.channel + 1]
        return np.ascontiguousarray(array, self.dtype)

    def _read(self, number: int) -> tuple[str, np.ndarray]:
        """Read a frame with as little around it as the source allows, and return the letters of its axes."""
        axes, shape = self._layout.axes, self._layout.shape
        counted = [place for place, axis in enumerate(axes) if axis in "ST"]
        at = dict(zip(counted, map(int, np.unravel_index(number, self.frame_sizes)), strict=True))
        outer = max(counted, default=-1) + 1
        if set(axes[:outer]) & set("YX"):
            # Frames lie within the rows; the source is read once.
            outer = 0
        while not self._divides(outer):
            outer += 1
        free = [place for place in range(outer) if place not in at]
        parts = []
        for places in itertools.product(*(range(shape[place]) for place in free)):
            index = at | dict(zip(free, places, strict=True))
            parts.append(self._part(tuple(index[place] for place in range(outer))))
        # There may be no room for a copy of a single part.
        array = np.stack(parts) if len(parts) > 1 else parts[0]
        array = array.reshape(*(shape[place] for place in free), *shape[outer:])
        letters = "".join(axes[place] for place in free) + axes[outer:]
        inside = tuple(at[place] if place in at else slice(None) for place in range(outer, len(axes)))
        array = array[(*(slice(None) for _ in free), *inside)]
        return "".join(axis for axis in letters if axis not in "ST"), array

    def _divides(self, outer: int) -> bool:
        """Return whether the first axes of the layout are the first axes of the source, counted in another way."""
        return math.prod(self._layout.shape[:outer]) in itertools.accumulate(self.source.shape, int.__mul__, initial=1)

    def _part(self, index: tuple[int, ...]) -> np.ndarray:
        """Read what is at indices of the first axes of the layout."""
        shape = self._layout.shape
        if not index:
            if self._whole is None:
                self._whole = self.source.read().reshape(shape)
            return self._whole
        products = list(itertools.accumulate(self.source.shape, int.__mul__, initial=1))
        outer = self.source.shape[: products.index(math.prod(shape[: len(index)]))]
        flat = np.ravel_multi_index(index, shape[: len(index)])
        return self.source.read(tuple(map(int, np.unravel_index(flat, outer))) if outer else ()).reshape(
            shape[len(index) :]
        )


def _check_channel(source: Source, axes: str, channels: int, channel: int | Literal["grey"] | None) -> None:
    if source.dtype.kind not in "iuf":
        raise UserError(f"{source.path}: found numbers of type {source.dtype}, allowed: integers or real numbers")
    if channel == "grey" and channels not in (1, 3, 4):
        raise UserError(
            f"{source.path}: channel: found 'grey', but the file has {channels} channels, neither 1 nor 3 nor 4"
        )
    if isinstance(channel, int) and "C" not in axes:
        raise UserError(f"{source.path}: channel: found {channel}, allowed: null, as the axes {axes!r} have no C")
    if isinstance(channel, int) and channel >= channels:
        which = "0" if channels == 1 else f"0 to {channels - 1}"
        raise UserError(f"{source.path}: channel: found {channel}, allowed: {which}, as the file has {channels}")


def find_window(crop: CropSettings | None, sides: Mapping[str, int], what: str) -> tuple[slice, ...]:
    """Return the part of an image that a crop keeps.

    Parameters
    ----------
    crop
        The setting; None: the complete image.
    sides
        The number of pixels along each spatial axis, by its letter.
    what
        The setting, after the image if it is known, for the error message.

    Returns
    -------
    tuple of slice
        One for each spatial axis.

    Raises
    ------
    UserError
        If the crop is not within the image, or names an axis that the image does not have.
    """
    for name in "zyx":
        if name.upper() not in sides and getattr(crop, name, None) is not None:
            found, axes = getattr(crop, name), "".join(sides)
            raise UserError(f"{what}.{name}: found {found}, allowed: null, as the axes {axes!r} have no {name.upper()}")
    window = []
    for axis, length in sides.items():
        name = axis.lower()
        bounds = getattr(crop, name) if crop is not None else None
        first, last = (bound + length if bound < 0 else bound for bound in bounds or (0, length))
        if not 0 <= first < last <= length:
            raise UserError(f"{what}.{name}: found {bounds}, but the image has {length} pixels along {name}")
        window.append(slice(first, last))
    return tuple(window)


def open_stacks(files: Sequence[Path], dataset: DatasetSettings, loop: Iterable[Path] | None = None) -> Iterator[Stack]:
    """Open image files one after the other; each is open until the next stack is asked for.

    Parameters
    ----------
    files
        The files. Those that belong to one set are read once.
    dataset
        Which series are read, and how.
    loop
        Yields the files, and may show progress.

    Yields
    ------
    Stack
        The frames of a source.

    Raises
    ------
    UserError
        If a file cannot be read, its axes are not known or do not fit the settings or the other files, or it contains
        several series and the settings do not say which one.
    """
    read: set[tuple[tuple[Path, ...], str]] = set()
    told: defaultdict[str, set[Path]] = defaultdict(set)
    first: Stack | None = None
    for path, name in zip(files if loop is None else loop, unique_names(files), strict=True):
        with open_sources(path) as sources:
            # Each file of a set may open all series of the set.
            mine = [source for source in sources if path in source.files] or sources
            new = [source for source in mine if _identity(source) not in read]
            chosen = select_series(new, dataset.series, path) if new else []
            left_out: tuple[str, ...] = ()
            if dataset.series in ("auto", "all") and len(chosen) < len(new):
                left_out = (f"leaves out series {_list_series(new, left_out=True)}",)
            for source, label in zip(chosen, _labels(chosen), strict=True):
                read.add(_identity(source))
                stack = Stack(name + label, source, lay_out(source, dataset), dataset.channel, dataset.crop)
                notes = left_out + source.notes + note_thin(stack.axes, stack.shape)
                for note in notes + (source.axes_notes if dataset.axes == "auto" else ()):
                    if note not in told:
                        logger.warning(f"{path}: {note}")
                    told[note].add(path)
                _check_fit(stack, first, dataset)
                first = first or stack
                yield stack
    for note, paths in told.items():
        if len(paths) > 1:
            logger.warning(f"{len(paths) - 1} other file{'s' * (len(paths) > 2)}: {note}")


def check_file(path: Path) -> None:
    """Refuse an image file of which some pixels cannot be read.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    UserError
        If the file is damaged.
    """
    with open_sources(path) as sources:
        for source in sources:
            for number in range(source.shape[0]) if len(source.shape) > 2 else (None,):
                source.read(() if number is None else (number,))


def _identity(source: Source) -> tuple[tuple[Path, ...], str]:
    return tuple(file.resolve() for file in source.files), source.series


def _labels(sources: Sequence[Source]) -> list[str]:
    """Return what is added to the name of a file for each of several series."""
    if len(sources) == 1:
        return [""]
    labels = [re.sub(r"[^\w.+-]+", "_", source.series) for source in sources]
    if len({label.casefold() for label in labels}) < len(labels):
        labels = [str(number) for number in range(len(labels))]
    return [f"_{label}" for label in labels]


def _check_fit(stack: Stack, first: Stack | None, dataset: DatasetSettings) -> None:
    """Refuse a stack whose axes fit neither the settings nor the other stacks."""
    axes, path = stack.axes, stack.source.path
    try:
        check_axes(dataset, axes)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    if first is not None and len(first.frame_shape) != len(stack.frame_shape):
        raise UserError(
            f"{path}: found the axes {axes!r}, but {first.source.path} has {first.axes!r}, and all images need as many "
            "of Z, Y and X; set `axes` so that it fits both (a volume may have one plane), or leave one out of `noisy`"
        )


def select_series(sources: Sequence[Source], wanted: int | str, path: Path) -> list[Source]:
    """Choose among the series of a file.

    Parameters
    ----------
    sources
        The series.
    wanted
        The setting ``series``.
    path
        The file, for messages.

    Returns
    -------
    list of Source
        One series, or all but previews.

    Raises
    ------
    UserError
        If there is no such series, or it is not clear which one is meant.
    """
    images = [source for source in sources if not source.left_out]
    if wanted == "all":
        return images
    if wanted == "auto":
        if len(images) > 1:
            raise UserError(
                f"{path}: series: found {len(images)} series of images: {_list_series(sources)}; set `series` to the "
                "number or the name of one of them, or to all"
            )
        return images
    found = [source for number, source in enumerate(sources) if wanted in (number, str(number), source.series)]
    if len(found) > 1 and not isinstance(wanted, int) and not wanted.isdecimal():
        raise UserError(
            f"{path}: series: found {wanted!r}, as {len(found)} series are called; set `series` to the number of one "
            f"of them: {_list_series(sources)}"
        )
    if not found:
        raise UserError(f"{path}: series: found {wanted!r}, allowed: auto, all, or one of {_list_series(sources)}")
    return found[:1]


def _list_series(sources: Sequence[Source], *, left_out: bool = False) -> str:
    """List series with their numbers: all, or those that are left out."""
    names = [source.series for source in sources]
    listed = []
    for number, (name, source) in enumerate(zip(names, sources, strict=True)):
        # A number or a name of several says nothing beside the number.
        own = [name] if name not in ("", str(number)) and names.count(name) == 1 else []
        size = f"{source.axes or '?'} {format_sides(source.shape)} {source.dtype}"
        if source.left_out or not left_out:
            listed.append(f"{number} ({', '.join([*own, size, *filter(None, [source.left_out])])})")
    if len(listed) > MOST_LISTED:
        listed[MOST_LISTED - 1 : -1] = ["..."]
    return ", ".join(listed)
