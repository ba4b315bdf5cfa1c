"""What the axes of an image file are: what the file says, and what the user says."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

from dvlae.axes import format_sides
from dvlae.config.dataset import DatasetSettings, check_axes
from dvlae.data.sources import Source
from dvlae.system.errors import UserError
from dvlae.system.wording import count

SPATIAL = "ZYX"
# What an axis of unknown meaning may be, the likeliest first.
MEANINGS = {"T": "times", "Z": "planes of a volume", "C": "channels", "S": "images"}
# The axes that an image may lack; it then has one of each.
SINGLE_AXES = "STCZ"
# Colours and transparency: at most this many channels are the last axis of an image.
MAX_COLOURS = 4
# Images with fewer pixels along y or x may be lines of one image.
MIN_SIDE = 4


@dataclass(frozen=True)
class Layout:
    """The axes of a source.

    Attributes
    ----------
    axes
        Letters of STCZYX in the order of the source. S may be there more than once.
    shape
        One number for each axis. The source's own shape may lack axes of length 1, and count several in one.
    """

    axes: str
    shape: tuple[int, ...]

    @property
    def spatial(self) -> str:
        """The spatial axes of a frame, in order."""
        return "".join(axis for axis in SPATIAL if axis in self.axes)


# An axis of a layout: its letter and its length.
Axis = tuple[str, int]


def lay_out(source: Source, dataset: DatasetSettings) -> Layout:
    """Find out what the axes of a source are.

    Parameters
    ----------
    source
        The source.
    dataset
        The settings ``axes``, ``axes_override`` and ``pages``.

    Returns
    -------
    Layout
        The axes.

    Raises
    ------
    UserError
        If the settings contradict the file, or neither says what an axis is.
    """
    stated = source.axes or "?" * len(source.shape)
    if dataset.axes == "auto":
        return _from_file(source, stated, dataset)
    if dataset.axes_override:
        stated = "?" * len(source.shape)
    shape = source.shape
    if dataset.page_counts:
        stated, shape = _count_pages(source, stated, dataset)
    found = _match(dataset.axes, stated, shape)
    if not found:
        raise UserError(f"{source.path}: {_contradiction(source, stated, shape, dataset)}")
    if len(found) > 1:
        raise UserError(
            f"{source.path}: axes: found {dataset.axes!r}, but the file has {len(shape)} axes, of shape {shape}; leave "
            f"out the axes that it lacks, or set `pages` if its pages count several"
        )
    axes, lengths = zip(*found[0], strict=True)
    layout = Layout("".join(axes), lengths)
    if "C" not in stated and not dataset.axes_override and _has_odd_channels(layout):
        sizes = dict(zip(layout.axes, layout.shape, strict=True))
        sides = format_sides([sizes[axis] for axis in layout.spatial])
        raise UserError(
            f"{source.path}: axes: found {dataset.axes!r}, which makes {sizes['C']} channels of {sides} "
            "pixels out of the file; are they in another order? If not, set `axes_override: true`"
        )
    return layout


def _has_odd_channels(layout: Layout) -> bool:
    """Return whether there are more channels than rows or columns, as if an axis was taken for another one."""
    sizes = dict(zip(layout.axes, layout.shape, strict=True))
    return sizes.get("C", 1) > min(sizes[axis] for axis in layout.spatial[-2:])


def _from_file(source: Source, stated: str, dataset: DatasetSettings) -> Layout:
    """Use what the file says alone."""
    if not source.axes and len(stated) <= 2:
        stated = "YX"[-len(stated) :]
    # A file that says nothing of an axis of length 1 says enough.
    pairs = zip(stated, source.shape, strict=True)
    axes = "".join("S" if pair == ("?", 1) else pair[0] for pair in pairs)
    if "?" in axes:
        raise UserError(f"{source.path}: axes: {_question(axes, source, dataset)}")
    if "Y" not in axes and "Z" in axes:
        # A section along the optical axis is an image.
        axes = axes.replace("Z", "Y")
    if "X" not in axes:
        raise UserError(f"{source.path}: axes: the file says {axes!r}, which has no X; set `axes`")
    return Layout(axes, source.shape)


def _question(axes: str, source: Source, dataset: DatasetSettings) -> str:
    """Ask for the axes that a file does not say, with the choices."""
    shape = f"shape {source.shape}, {source.dtype}"
    choices = _choices(axes, source, dataset)
    return f"the file does not say what its axes of {shape} are; set `axes`" + (f" to {choices}" if choices else "")


def _choices(stated: str, source: Source, dataset: DatasetSettings) -> str:
    """Return the settings of `axes` that the axes of a file allow, the likeliest first."""
    axes = source.axes or stated[:-2] + "YX"
    unknown = axes.count("?")
    free = [letter for letter in MEANINGS if letter not in axes]
    choices = {}
    if not source.axes and unknown == 1 and source.shape[-1] <= MAX_COLOURS:
        choices["YXC"] = " (colours)"
    for letters in combinations(free, unknown):
        rest = list(letters)
        choice = "".join(rest.pop(0) if axis == "?" else axis for axis in axes)
        choices[choice] = f" ({MEANINGS[letters[0]]})" if unknown == 1 else ""
    works = [choice + meaning for choice, meaning in choices.items() if _works(choice, stated, source.shape, dataset)]
    return _listed(works) if works else ""


def _works(axes: str, stated: str, shape: tuple[int, ...], dataset: DatasetSettings) -> bool:
    """Return whether a file can be read if the settings say these axes."""
    found = _match(axes, stated, shape)
    if len(found) != 1 or len(set(axes)) < len(axes) or not set(dataset.page_counts) <= set(axes):
        return False
    try:
        check_axes(dataset, axes)
    except ValueError:
        return False
    letters, lengths = zip(*found[0], strict=True)
    return dataset.axes_override or "C" in stated or not _has_odd_channels(Layout("".join(letters), lengths))


def _listed(choices: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))


def _contradiction(source: Source, stated: str, shape: tuple[int, ...], dataset: DatasetSettings) -> str:
    """Say that a file has other axes than the settings, and which settings are possible."""
    wanted = dataset.axes
    found = f"axes: found {wanted!r}, but the file"
    choices = "" if dataset.page_counts else _choices(stated, source, dataset)
    if set(stated) == {"?"}:
        ways = [f"set `axes` to {choices}"] if choices else []
        return "; ".join([f"{found} has {len(shape)} axes, of shape {shape}", *ways])
    if "?" in stated:
        ways = [f"set `axes` to {choices}"] if choices else []
    else:
        ways = [f"`axes: auto`{' without `pages`' if dataset.page_counts else ''} follows the file"]
    if len(_match(wanted, "?" * len(shape), shape)) == 1:
        ways.append("`axes_override: true` follows the settings")
    unknown = " (? may be any other)" if "?" in stated else ""
    return "; ".join([f"{found} says {stated!r}{unknown}, of shape {shape}", *ways])


def _count_pages(source: Source, stated: str, dataset: DatasetSettings) -> tuple[str, tuple[int, ...]]:
    """Split the axis that counts the pages of a file, as the setting ``pages`` says."""
    counts = dataset.page_counts
    prefix = dataset.axes[: next(k for k, axis in enumerate(dataset.axes) if axis in "YX")]
    first = len(stated) - (len(dataset.axes) - len(prefix))
    unknown = [axis for axis in prefix if axis not in counts]
    if first < 0 or not set(counts) <= set(prefix) or len(unknown) > 1:
        raise UserError(
            f"{source.path}: pages: found {counts}, allowed: all but one of the axes before Y and X in {dataset.axes!r}"
        )
    pages, known = math.prod(source.shape[:first]), math.prod(counts.values())
    if set(stated[:first]) - {"?"}:
        raise UserError(f"{source.path}: {_contradiction(source, stated, source.shape, dataset)}")
    if pages % known or (not unknown and pages != known):
        allowed = f"a number of pages that {known} divides" if unknown else f"{known} pages"
        raise UserError(f"{source.path}: pages: found {pages} pages, allowed: {allowed}, as `pages` is {counts}")
    lengths = tuple(counts.get(axis, pages // known) for axis in prefix)
    return prefix + stated[first:], lengths + source.shape[first:]


def note_thin(axes: str, shape: Sequence[int]) -> tuple[str, ...]:
    """Say that images have hardly any pixels along an axis, and how they may be read instead.

    Parameters
    ----------
    axes
        The axes of a source, letters of STCZYX.
    shape
        One number for each axis.

    Returns
    -------
    tuple of str
        Nothing, or one sentence.

    Examples
    --------
    >>> note_thin("TYX", (500, 1, 64))[0]  # doctest: +ELLIPSIS
    'has 1 pixel along y, across which nothing is learned; `axes: YSX` with `axes_override: true` reads its 500 ...'
    """
    sizes = dict(zip(axes, shape, strict=True))
    thin = [axis for axis in "YX" if sizes.get(axis, MIN_SIDE) < MIN_SIDE]
    if not thin or "Y" not in axes:
        return ()
    axis, side = thin[0], sizes[thin[0]]
    learned = "nothing" if side == 1 else "little"
    text = f"has {count(side, 'pixel')} along {axis.lower()}, across which {learned} is learned"
    frames = [letter for letter in axes if letter in "ST" and sizes[letter] >= MIN_SIDE]
    if side == 1 and len(frames) == 1 and axes.count("S") + axes.count("T") == 1:
        swapped = axes.replace(axis, "?").replace(frames[0], axis).replace("?", "S")
        text += (
            f"; `axes: {swapped}` with `axes_override: true` reads its {sizes[frames[0]]} lines as one image, if they "
            "belong together"
        )
    return (text,)


def _match(wanted: str, stated: str, shape: tuple[int, ...]) -> list[tuple[Axis, ...]]:
    """Find what the axes of a file are if they have to be certain ones.

    A file may have axes of length 1 that nobody names, and lack others. Of all ways to read it so, those with the
    fewest such axes count, and two that differ only in them are the same.
    """

    @cache
    def ways(i: int, j: int) -> tuple[int, dict[tuple[Axis, ...], tuple[Axis, ...]]]:
        """Return the fewest such axes from the i-th of the file and the j-th letter on, and the ways, by long axes."""
        if i == len(shape) and j == len(wanted):
            return 0, {(): ()}
        steps: list[tuple[int, Axis, int, int]] = []
        if i < len(shape) and j < len(wanted) and _fits(stated[i], wanted[j], wanted):
            steps.append((0, (wanted[j], shape[i]), i + 1, j + 1))
        if i < len(shape) and shape[i] == 1:
            steps.append((1, ("S", 1), i + 1, j))
        if j < len(wanted) and wanted[j] in SINGLE_AXES:
            steps.append((1, (wanted[j], 1), i, j + 1))
        options = [(cost + ways(*rest)[0], axis, ways(*rest)[1]) for cost, axis, *rest in steps]
        least = min((cost for cost, _, _ in options), default=UNREACHABLE)
        found = {
            ((axis, *key) if axis[1] > 1 else key): (axis, *tail)
            for cost, axis, tails in options
            if cost == least
            for key, tail in tails.items()
        }
        return least, found

    return list(ways(0, 0)[1].values())


# More axes than any file has.
UNREACHABLE = 1000


def _fits(stated: str, letter: str, wanted: str) -> bool:
    """Return whether an axis of which the file says one thing may be another: frames are images or times."""
    if stated == "Y" and "Y" not in wanted:
        # Each row may be a trace.
        return letter in "STC"
    return stated in ("?", letter) or {stated, letter} == {"S", "T"}
