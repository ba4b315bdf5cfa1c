"""The part of a frame that shows something: without pixels that are not numbers, and without a constant border."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvlae.axes import format_sides
from dvlae.config.fields import expand_home
from dvlae.data.sources import open_sources
from dvlae.system.arrays import bands, count_true, find_numbers, within, zeros
from dvlae.system.errors import UserError

# Values along the border of a frame that may be those of a constant border: the most frequent ones.
MAX_VALUES = 3
# A constant border has a square of this side in it, or complete rows or columns; of a trace, this many pixels.
MIN_THICKNESS = {1: 8, 2: 5, 3: 5}
# Pixels with the border's value elsewhere, of those in the border. A background that is clipped has many.
MAX_ELSEWHERE = 0.01


def find_mask(frame: np.ndarray) -> np.ndarray | None:
    """Find the pixels of a frame that count.

    Registration, rotation and round fields of view leave borders without an image: pixels that are not numbers, or
    that have one value which hardly any other pixel has. A background that is clipped at 0 is no such border.

    Parameters
    ----------
    frame
        (C, ...).

    Returns
    -------
    bool array or None
        True where all channels are numbers and one of them is not in a constant border, with the spatial axes of the
        frame. None: all pixels count. If the frame is constant, all its numbers count.
    """
    numbers = find_numbers(frame)
    borders = [border for channel in frame if (border := _constant_border(channel)) is not None]
    if len(borders) < len(frame):
        return numbers
    mask = zeros(frame.shape[1:], bool)
    for band, _ in bands(mask.shape, mask, numbers, *borders):
        mask[band] = ~np.logical_and.reduce([border[band] for border in borders])
        if numbers is not None:
            mask[band] &= numbers[band]
    return mask if count_true(mask) else numbers


def _constant_border(channel: np.ndarray) -> np.ndarray | None:
    """Return the pixels of the constant border of a channel; None if it has none."""
    border: np.ndarray | None = None
    edge = _edge_values(channel)
    values, counts = np.unique(edge[np.isfinite(edge)], return_counts=True)
    largest = np.nanmax(channel) if values.size else np.nan

    def is_border(region: np.ndarray, value: float) -> bool:
        # Bright objects that are clipped reach the border, too, but do not fill complete rows.
        return _fills_lines(region) or bool(value < largest and _is_thick(region))

    for value in values[np.argsort(-counts, kind="stable")[:MAX_VALUES]]:
        same = zeros(channel.shape, bool)
        for band, _ in bands(channel.shape, channel, same):
            same[band] = channel[band] == value
        # Most images have no border, and it takes long to find the region.
        if not is_border(same, value):
            continue
        region = _connected_to_edge(same)
        inside = count_true(region)
        if count_true(same) - inside > MAX_ELSEWHERE * inside or _has_single_pixels(region):
            continue
        if is_border(region, value):
            for band, _ in bands(region.shape, region, border):
                region[band] |= False if border is None else border[band]
            border = region
    return border


def _connected_to_edge(same: np.ndarray) -> np.ndarray:
    """Return the regions that reach an edge of a frame."""
    from scipy import ndimage, sparse

    labels, count, pairs = zeros(same.shape, np.int32), 0, [np.empty((2, 0), np.int32)]
    for band, _ in bands(same.shape, same, labels):
        above = labels[band.start - 1].copy()
        found, number = ndimage.label(same[band])
        labels[band] = np.where(found > 0, found + count, 0)
        count += number
        if band.start > 0:
            # A region that goes on in the next band has another label there.
            both = same[band.start - 1] & same[band.start]
            pairs.append(np.stack([above[both], labels[band.start][both]]))
    first, second = np.concatenate(pairs, axis=1)
    graph = sparse.coo_array((np.ones(len(first), bool), (first, second)), (count + 1, count + 1))
    regions, region_of_label = sparse.csgraph.connected_components(graph, directed=False)
    reached = np.zeros(regions, bool)
    reached[region_of_label[_edge_values(labels)]] = True
    reached[region_of_label[0]] = False
    region = zeros(same.shape, bool)
    for band, _ in bands(region.shape, labels, region):
        region[band] = reached[region_of_label[labels[band]]]
    return region


def _edge_values(channel: np.ndarray) -> np.ndarray:
    """Return the values on all faces of a channel, each once."""
    faces, rest = [], channel
    for axis in range(channel.ndim):
        lines = np.moveaxis(rest, axis, 0)
        faces += [lines[0].ravel(), lines[1:][-1:].ravel()]
        rest = np.moveaxis(lines[1:-1], 0, axis)
    return np.concatenate(faces)


def _has_single_pixels(region: np.ndarray) -> bool:
    """Return whether there are single pixels in a region, such as photons in a dark background."""
    from scipy import ndimage

    around = np.ones((3,) * region.ndim, bool)
    around[(1,) * region.ndim] = False
    for band, outer in bands(region.shape, region, margin=1):
        surrounded = ndimage.binary_erosion(region[outer], around, border_value=1)[within(band, outer)]
        if (surrounded & ~region[band]).any():
            return True
    return False


def _fills_lines(region: np.ndarray) -> bool:
    """Return whether a region fills a face of a frame completely; an end of a trace, or of a few lines, is no face."""
    return (
        region.ndim > 1
        and count_true(region) >= MIN_THICKNESS[1]
        and any(face.all() for axis in range(region.ndim) for face in np.moveaxis(region, axis, 0)[[0, -1]])
    )


def _is_thick(region: np.ndarray) -> bool:
    """Return whether there is a complete square in a region."""
    side = MIN_THICKNESS[region.ndim]
    for _, outer in bands(region.shape, margin=side):
        part = region[outer]
        for axis in range(-min(region.ndim, 2), 0):
            lines = np.moveaxis(part, axis, 0)
            starts = max(0, len(lines) - side + 1)
            complete = lines[:starts].copy()
            for first in range(1, side):
                complete &= lines[first : first + starts]
            part = np.moveaxis(complete, 0, axis)
        if part.any():
            return True
    return False


@dataclass(frozen=True)
class PackedMask:
    """A mask in an eighth of its memory.

    Attributes
    ----------
    sides
        Its spatial axes.
    bits
        Eight pixels in each byte.
    """

    sides: tuple[int, ...]
    bits: bytes

    @classmethod
    def pack(cls, mask: np.ndarray) -> "PackedMask":
        """Pack a mask.

        Parameters
        ----------
        mask
            True where a pixel counts.

        Returns
        -------
        PackedMask
            The same.
        """
        return cls(mask.shape, np.packbits(mask).tobytes())

    def unpack(self) -> np.ndarray:
        """Return the mask.

        Returns
        -------
        bool array
            True where a pixel counts.
        """
        bits = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=int(np.prod(self.sides)))
        return bits.reshape(self.sides).view(bool)

    def __and__(self, other: "PackedMask") -> "PackedMask":
        pairs = np.frombuffer(self.bits, np.uint8) & np.frombuffer(other.bits, np.uint8)
        return PackedMask(self.sides, pairs.tobytes())


class MaskSource:
    """Where the masks of a dataset come from, as the key ``mask`` says.

    Parameters
    ----------
    setting
        ``auto``, ``none``, or the path of an image file.
    folder
        The folder for a relative path.

    Raises
    ------
    UserError
        If the file is missing or cannot be read.
    """

    def __init__(self, setting: str, folder: Path):
        self.setting, self._mask = setting, None
        if setting not in ("auto", "none"):
            self._path = folder / expand_home(setting)
            if not self._path.exists():
                raise UserError(f"mask: found {setting!r}, which is no file in {folder}, allowed: auto, none, a file")
            with open_sources(self._path) as sources:
                self._mask = np.asarray(sources[0].read()).squeeze() != 0

    def find(self, frame: np.ndarray, window: tuple[slice, ...], sides: tuple[int, ...]) -> np.ndarray | None:
        """Find the pixels of a frame that count.

        Parameters
        ----------
        frame
            (C, ...), after the crop.
        window
            The crop, one slice for each spatial axis.
        sides
            Spatial axes of the complete frame.

        Returns
        -------
        bool array or None
            True where a pixel counts, with the spatial axes of ``frame``; None: everywhere.

        Raises
        ------
        UserError
            If the file has other sides than the frame.
        """
        if self.setting == "none":
            return None
        if self._mask is None:
            return find_mask(frame)
        # All planes of a volume may share a mask.
        if self._mask.shape not in (sides, sides[-2:]):
            raise UserError(
                f"mask: {self._path}: found {format_sides(self._mask.shape)} pixels, allowed: {format_sides(sides)}, "
                "as the images have"
            )
        mask = np.broadcast_to(self._mask, sides)[window]
        return None if mask.all() else mask
