"""What a page shows of the images of a dataset: some frames, planes and channels of them, and a part of large ones."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from dvlae.axes import format_sides
from dvlae.data.canonical import read_info, read_mask, read_noisy
from dvlae.data.defects.frames import ExaminedFrame
from dvlae.data.manifest import Image, spread_evenly
from dvlae.data.outputs.conversion import Converter
from dvlae.data.outputs.reading import read_output
from dvlae.data.sources import SourceInfo
from dvlae.evaluation.evaluate import read_estimate
from dvlae.reporting.panels import find_detail

MAX_FRAMES = 5
MAX_PLANES = 3
MAX_CHANNELS = 4
MAX_VIEWS = 12
# Of all views together. A pixel of a grey image takes about 5 bytes of the page, one in colour about 9.
MAX_PIXELS = 1_600_000
# The part to show is searched in a copy of about this side, in pixels.
SEARCHED_SIDE = 512


@dataclass(frozen=True)
class Frame:
    """One image before and after.

    Attributes
    ----------
    image
        Its row in the manifest.
    noisy, denoised
        (C, ...), as they are computed with. What is not a number in the denoised image is as in the noisy one.
    deviation
        The posterior standard deviation, (C, ...); None if there is none.
    mask
        True where a pixel counts, with the spatial axes of the image; None: everywhere.
    info
        What is known of the source, such as its units.
    channels
        Names of the channels; empty if they are unknown.
    pixel_size
        Side of a pixel along y and x with its unit, as text; empty if it is unknown.
    """

    image: Image
    noisy: np.ndarray
    denoised: np.ndarray
    deviation: np.ndarray | None
    mask: np.ndarray | None
    info: SourceInfo
    channels: tuple[str, ...]
    pixel_size: str

    @classmethod
    def read(cls, image: Image, denoised: Path, uncertainty: Path) -> "Frame":
        """Read an image and the results for it.

        Parameters
        ----------
        image
            Its row in the manifest.
        denoised, uncertainty
            Folders made by ``dvlae predict``.

        Returns
        -------
        Frame
            The image before and after.

        Raises
        ------
        UserError
            If a file is missing or cannot be read.
        """
        # An image of which no pixel counts may contain no numbers.
        noisy = np.nan_to_num(read_noisy(image), copy=False, posinf=0.0, neginf=0.0)
        estimate, deviation = read_estimate(denoised, image), read_output(uncertainty, image, deviation=True)
        np.copyto(estimate, noisy, where=~np.isfinite(estimate))
        info = read_info(image.noisy)
        sizes = info.calibration.sizes
        sides = [f"{sizes[axis]:.4g}" for axis in "yx" if axis in sizes]
        return cls(
            image,
            noisy,
            estimate,
            None if deviation is None else np.nan_to_num(deviation, copy=False),
            read_mask(image),
            info,
            _channel_names(image),
            f"{' x '.join(sides)} {info.calibration.unit}" if sides and info.calibration.unit else "",
        )


@dataclass(frozen=True)
class View:
    """What is shown at once: a plane of a frame, one channel or the colours, or the channels of a trace.

    Attributes
    ----------
    label
        Which of the frames, planes and channels it is.
    part
        Which part of the plane is shown, and how large it is, in words.
    noisy, denoised
        (C, Y, X), or (C, X) for a trace, as they are computed with.
    deviation
        The posterior standard deviation; None if there is none.
    counts
        Which values are neither masked, hot, dead nor saturated, of the same shape.
    info
        What is known of the source, such as its units.
    middle
        Whether it is the middle one of the planes.
    """

    label: str
    part: str
    noisy: np.ndarray
    denoised: np.ndarray
    deviation: np.ndarray | None
    counts: np.ndarray
    info: SourceInfo
    middle: bool = True

    @property
    def residual(self) -> np.ndarray:
        """What was removed, noisy − denoised."""
        return self.noisy - self.denoised

    def grey_values(self, values: ArrayLike, *, differences: bool = False) -> np.ndarray:
        """Convert values of the view to grey values of the file.

        Parameters
        ----------
        values
            Some values, as they are computed with.
        differences
            Whether they are differences or standard deviations.

        Returns
        -------
        float64 array
            The same values in the units of the file.
        """
        offset = 0 if differences else self.info.offset
        return Converter(np.dtype(np.float64), offset, scale=self.info.scale)(np.asarray(values))


def choose_frames(images: Sequence[Image], unchanged: Mapping[str, str]) -> list[Image]:
    """Choose the images to show.

    Parameters
    ----------
    images
        All images.
    unchanged
        Those that were left as they are, by name; they are shown only if there are no others.

    Returns
    -------
    list of Image
        At most five, evenly spread, and fewer if each has several planes or channels.
    """
    usable = [image for image in images if image.name not in unchanged] or list(images)
    views = max(len(_planes(image.shape)) * len(_channels(image.shape, _channel_names(image))) for image in usable)
    return [usable[i] for i in spread_evenly(len(usable), max(1, min(MAX_FRAMES, MAX_VIEWS // views)))]


def counted(noisy: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Find the values that are neither masked, hot, dead nor saturated.

    Parameters
    ----------
    noisy, mask
        A frame (C, ...), or a part of it, and where it counts.

    Returns
    -------
    bool array
        Of the shape of ``noisy``; true in all of a channel of which nothing would be left.
    """
    measured = ExaminedFrame.examine(noisy, mask).measured
    if measured is None:
        return np.ones(noisy.shape, bool)
    return measured | ~measured.any(axis=tuple(range(1, noisy.ndim)), keepdims=True)


def iterate_views(frame: Frame, frames: int, parts: dict[tuple[int, ...], tuple[slice, ...]]) -> Iterator[View]:
    """Divide a frame into views.

    Parameters
    ----------
    frame
        The frame.
    frames
        Number of frames on the page, which share the pixels that it may have.
    parts
        The part to show of frames of each shape, which is added if it is missing, so that equal frames show the same
        part.

    Yields
    ------
    View
        Each plane, and of each the colours or each channel.
    """
    shape, name = frame.image.shape, frame.image.name
    if len(shape) == 2:
        counts = counted(frame.noisy, frame.mask)
        yield View(name, f"{shape[1]} pixels.", frame.noisy, frame.denoised, frame.deviation, counts, frame.info)
        return
    planes, channels = _planes(shape), _channels(shape, frame.channels)
    if shape not in parts:
        middle = frame.denoised.reshape(shape[0], -1, *shape[-2:])[:, math.prod(shape[1:-2]) // 2]
        colour = 1 if channels[0][0] else min(shape[0], 2)
        parts[shape] = _find_part(middle, MAX_PIXELS // (frames * len(planes) * len(channels) * colour))
    part = parts[shape]
    text = _describe_part(part, shape[-2:], frame.pixel_size)
    for plane in planes:
        place: tuple[slice | int, ...] = part if plane is None else (plane, *part)
        label = name if plane is None else f"{name}, plane {plane} of 0 to {shape[1] - 1}"
        pair = [values[:, *place] for values in (frame.noisy, frame.denoised)]
        deviation = None if frame.deviation is None else frame.deviation[:, *place]
        counts = counted(pair[0], None if frame.mask is None else frame.mask[place])
        for channel, which in channels:
            yield View(
                ", ".join(filter(None, (label, channel))),
                text,
                pair[0][which],
                pair[1][which],
                None if deviation is None else deviation[which],
                counts[which],
                frame.info,
                plane == planes[len(planes) // 2],
            )


def _channel_names(image: Image) -> tuple[str, ...]:
    names = read_info(image.noisy).calibration.channels
    return names if len(names) == image.shape[0] else ()


def _planes(shape: tuple[int, ...]) -> Sequence[int | None]:
    """Return the planes to show of a frame (C, ...): those in the middle of each third."""
    if len(shape) < 4:
        return [None]
    return sorted({shape[1] * (2 * number + 1) // (2 * MAX_PLANES) for number in range(MAX_PLANES)})


def _channels(shape: tuple[int, ...], names: Sequence[str]) -> list[tuple[str, slice]]:
    """Return the label of each choice of channels, and the channels. Three without names are the colours of one."""
    if len(shape) == 2 or shape[0] == 1 or (shape[0] == 3 and not names):
        return [("", slice(None))]
    texts = [f"channel {number}" for number in range(min(shape[0], MAX_CHANNELS))]
    for number, name in enumerate(names[:MAX_CHANNELS]):
        texts[number] += f" ({name})"
    return [(text, slice(number, number + 1)) for number, text in enumerate(texts)]


def _find_part(image: np.ndarray, pixels: int) -> tuple[slice, ...]:
    """Return the part of an image (C, Y, X) that is shown: all, or the most structured part with so many pixels."""
    height, width = image.shape[1:]
    tall = min(height, math.isqrt(pixels))
    wide = min(width, pixels // tall)
    tall = min(height, pixels // wide)
    if (tall, wide) == (height, width):
        return slice(0, height), slice(0, width)
    step = math.ceil(max(height, width) / SEARCHED_SIDE)
    found = find_detail(image[:, ::step, ::step], [max(1, side // step) for side in (tall, wide)])
    starts = [
        min(one.start * step, whole - side)
        for one, whole, side in zip(found, (height, width), (tall, wide), strict=True)
    ]
    return slice(starts[0], starts[0] + tall), slice(starts[1], starts[1] + wide)


def _describe_part(part: Sequence[slice], shape: Sequence[int], pixel_size: str) -> str:
    sides = format_sides(shape)
    size = f" (pixel size according to the file: {pixel_size})" if pixel_size else ""
    if all((one.start, one.stop) == (0, side) for one, side in zip(part, shape, strict=True)):
        return f"The whole image: {sides} pixels{size}."
    ends = " and ".join(f"{axis} {one.start} to {one.stop - 1}" for axis, one in zip("yx", part, strict=True))
    return f"A part of the image, in full resolution: {ends} of {sides} pixels{size}."
