"""Training and validation patches, which all trainings on a dataset use."""

import itertools
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import tifffile

from dvlae.axes import AXES, format_sides
from dvlae.config.settings import PatchSettings
from dvlae.config.sizes.patch_size import fitting_crop, largest_crop, training_crop
from dvlae.data.defects.limits import LimitFinder
from dvlae.data.defects.survey import Survey
from dvlae.data.manifest import Image, read_manifest, select_images, spread_evenly
from dvlae.system.arrays import release
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder, contents_beside, reserve_space
from dvlae.system.hashes import sha256
from dvlae.system.progress import progress
from dvlae.system.wording import list_names

# An image, and the first index of a patch along each of its spatial axes.
Place = tuple[Image, tuple[int, ...]]
# Grey values are considered continuous if there are more distinct ones.
MAX_GREY_LEVELS = 2**16
# Of the longest side of an image, in pixels. Images of one row are learned from, those of 3 pixels are not.
MIN_SIDE = 4

logger = logging.getLogger(__name__)

PATCH_FILES = contents_beside("patches.json", "train.tif", "val.tif", "train_mask.tif", "val_mask.tif")


def extract_patches(images: Path, output: Path, settings: PatchSettings) -> None:
    """Cut the noisy images into training and validation patches.

    Along each axis, a patch is twice as long as a training crop if the images are large enough, so that a different
    crop can be selected at each step. The patches cover every image completely, and images that are smaller than a
    patch are mirrored at their ends, unless that would exceed ``max_patch_pixels``: then they are spread evenly. Images
    that are blank, overexposed or far brighter or darker than the others are left out. Hot, dead and masked pixels are
    filled in, and neither they nor saturated pixels count in the statistics.

    Parameters
    ----------
    images
        Folder with ``manifest.csv``.
    output
        The folder to make: ``train.tif`` and ``val.tif``, (N, C, ...) float32 with the images' spatial axes, which can
        be memory-mapped; if there are pixels to leave out of the loss, ``train_mask.tif`` and ``val_mask.tif`` of the
        same shapes, uint8, 0 at these pixels; and ``patches.json``: mean, standard deviation, quantisation step and
        limits of each channel over the training patches, in grey values; sides in pixels; the place of each patch; what
        was found and left out; the files' hashes.
    settings
        Size of the crop, images, and how to split them.

    Raises
    ------
    UserError
        If an image is smaller than a training crop that is not automatic, or is too small along every axis, or no image
        can be used.
    """
    chosen = select_images(read_manifest(images), settings.images)
    survey = Survey.of(chosen, rescale=settings.rescale)
    usable = survey.learned_from
    if not usable:
        raise UserError(
            f"{images}: found no image to learn from: {list_names([image.name for image in chosen])} "
            "are blank, masked or overexposed"
        )
    _check_sides(usable)
    crop, size = _choose_sides(usable, settings)
    train, val, validation = split(usable, size, settings)
    train, val = _limit(train, val, math.prod(size), settings.max_patch_pixels)
    with atomic_folder(output, PATCH_FILES) as folder:
        statistics, ends = PatchStatistics(chosen[0].shape[0]), LimitFinder(chosen[0].shape[0])
        write_patches(folder / "train.tif", train, size, survey, statistics, ends)
        write_patches(folder / "val.tif", val, size, survey)
        summary = statistics.summary()
        for number, std in enumerate(summary["std"]):
            if not std > 0:
                raise UserError(
                    f"{images}: channel {number} is constant in all images, so nothing can be learned from it; the key "
                    "`channel` of the dataset keeps another one"
                )
        description = {
            **summary,
            "limits": ends.limits(),
            "channels": chosen[0].shape[0],
            "patch_size": size,
            "crop_size": crop,
            "validation": validation,
            "seen": survey.seen.to_json(),
            "found": survey.summary(),
            "sha256": {path.stem: sha256(path) for path in sorted(folder.glob("*.tif"))},
            "sources": {
                name: [[image.name, *corner] for image, corner in places]
                for name, places in (("train", train), ("val", val))
            },
        }
        (folder / "patches.json").write_text(json.dumps(description) + "\n", encoding="utf-8", newline="\n")


def _limit(train: list[Place], val: list[Place], pixels: int, most: int) -> tuple[list[Place], list[Place]]:
    """Keep as many patches of so many pixels as the limit allows, spread evenly over all images."""
    allowed = max(2, most // pixels)
    total = len(train) + len(val)
    if total <= allowed:
        return train, val
    kept = [
        [places[i] for i in spread_evenly(len(places), max(1, allowed * len(places) // total))]
        for places in (train, val)
    ]
    logger.info(
        f"patches: kept {sum(map(len, kept))} of {total}, spread over all images; training.max_patch_pixels is {most}"
    )
    return kept[0], kept[1]


def _choose_sides(images: Sequence[Image], settings: PatchSettings) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the sides of a training crop, and those of a patch; both are said where they are automatic."""
    sides = np.array([image.shape[1:] for image in images])
    # A few small images do not decide for the others.
    typical = np.sort(sides, axis=0)[(len(images) - 1) // 2].tolist()
    crop = training_crop(settings.patch_size, typical, settings.stride)
    if settings.patch_size != "auto":
        _check_crop(crop, images, settings)
    else:
        if crop != largest_crop("auto", len(crop), settings.stride):
            logger.info(
                f"patches: training crops have {format_sides(crop)} pixels, as images have {format_sides(typical)}"
            )
        if small := [image.name for image, own in zip(images, sides, strict=True) if (own < crop).any()]:
            logger.info(
                f"patches: smaller than a training crop of {format_sides(crop)} pixels, and padded, which does not "
                f"count in the loss: {list_names(small)}"
            )
    # Smaller images are padded.
    smallest = np.min(sides, axis=0, where=sides >= crop, initial=np.iinfo(int).max).tolist()
    return crop, tuple(min(2 * side, longest) for side, longest in zip(crop, smallest, strict=True))


def _check_sides(images: Sequence[Image]) -> None:
    """Refuse images of which hardly any pixel has neighbours on both sides along any axis."""
    tiny = [image for image in images if max(image.shape[1:]) < MIN_SIDE]
    if tiny:
        first, others = tiny[0], f" (and {len(tiny) - 1} more so)" if len(tiny) > 1 else ""
        raise UserError(
            f"{first.source or first.name}: found {format_sides(first.shape[1:])} pixels{others}, allowed: at least "
            f"{MIN_SIDE} along one axis, to learn from; `training.images` leaves images out"
        )


def _check_crop(crop: Sequence[int], images: Sequence[Image], settings: PatchSettings) -> None:
    """Refuse crops that are larger than an image."""
    names = "zyx"[-len(crop) :]
    fitting = fitting_crop(np.min([image.shape[1:] for image in images], axis=0).tolist(), settings.stride)
    for name, side, most in zip(names, crop, fitting, strict=True):
        image = min(images, key=lambda image: image.shape[AXES[name]])
        if side > image.shape[AXES[name]]:
            raise UserError(
                f"training.patch_size: found {side} along {name}, but the image {image.name!r} has "
                f"{format_sides(image.shape[1:])} pixels, allowed: at most {most} along {name}, such as "
                f"[{', '.join(map(str, fitting))}] for [{', '.join(names)}], or auto"
            )


def split(
    images: Sequence[Image], size: Sequence[int], settings: PatchSettings
) -> tuple[list[Place], list[Place], str]:
    """Lay a grid of patches over the images and hold some out for validation.

    Parameters
    ----------
    images
        The images in an order in which neighbours are similar, such as the planes of a stack.
    size
        Sides of a patch, in pixels.
    settings
        Number of neighbours that stay together, and the fraction held out for validation.

    Returns
    -------
    train, val, validation
        The places of the patches, and what was held out: ``"blocks"`` of neighbouring images; ``"patches"``, every
        k-th patch of each image, if there is only one block; ``"same"``, if there is only one patch, which is used for
        both.
    """
    blocks = [images[start : start + settings.block] for start in range(0, len(images), settings.block)]
    return split_blocks(blocks, size, settings.validation_fraction)


def split_blocks(
    blocks: Sequence[Sequence[Image]], size: Sequence[int], fraction: float
) -> tuple[list[Place], list[Place], str]:
    """Lay a grid of patches over images and hold some out for validation, of blocks that stay together.

    Parameters
    ----------
    blocks
        The images of each block.
    size
        Sides of a patch, in pixels.
    fraction
        The share to hold out.

    Returns
    -------
    train, val, validation
        As for :func:`split`.
    """
    if len(blocks) > 1:
        held = set(_spread(len(blocks), fraction))
        parts = [[image for i, block in enumerate(blocks) if (i in held) == kept for image in block] for kept in (0, 1)]
        train, val = ([place for image in part for place in grid(image, size)] for part in parts)
        return train, val, "blocks"
    places = [grid(image, size) for image in blocks[0]]
    held_places = [patches[i] for patches in places if len(patches) > 1 for i in _spread(len(patches), fraction)]
    everything = [place for patches in places for place in patches]
    if len(everything) == 1:
        return everything, everything, "same"
    held_places = held_places or everything[-1:]
    held_set = set(held_places)
    return [place for place in everything if place not in held_set], held_places, "patches"


def _spread(count: int, fraction: float) -> list[int]:
    """Choose about this fraction of ``count`` indices, evenly spread, at least one and not all."""
    chosen = min(max(1, round(count * fraction)), count - 1)
    return [i * count // chosen for i in range(chosen)]


def grid(image: Image, size: Sequence[int]) -> list[Place]:
    """Cover an image with patches side by side; the last along each axis is moved back to end with the image.

    Parameters
    ----------
    image
        The image. If it is smaller than a patch along an axis, there is one patch along it.
    size
        Sides of a patch, in pixels.

    Returns
    -------
    list of Place
        The places of the patches, row by row.
    """
    starts = (
        sorted({*range(0, length - side + 1, side), max(0, length - side)})
        for length, side in zip(image.shape[1:], size, strict=True)
    )
    return [(image, corner) for corner in itertools.product(*starts)]


class PatchStatistics:
    """Mean, standard deviation and quantisation step of each channel, accumulated over patches.

    Parameters
    ----------
    channels
        Number of channels.
    """

    def __init__(self, channels: int):
        self.pixels = np.zeros(channels, int)
        self.sum = np.zeros(channels)
        self.squares = np.zeros(channels)
        # Sums of squares of large numbers would lose small differences, so the mean of the first patch is subtracted.
        self.shift = np.zeros(channels)
        self.levels: list[np.ndarray | None] = [np.empty(0)] * channels

    def update(self, patch: np.ndarray, counts: np.ndarray) -> None:
        """Add a patch.

        Parameters
        ----------
        patch
            (C, ...), in grey values.
        counts
            True where a value counts, (C, ...).
        """
        for channel in range(len(patch)):
            pixels = patch[channel][counts[channel]]
            if not pixels.size:
                continue
            if not self.pixels[channel]:
                self.shift[channel] = pixels.mean(dtype=np.float64)
            shifted = pixels - self.shift[channel]
            self.pixels[channel] += pixels.size
            self.sum[channel] += shifted.sum()
            self.squares[channel] += (shifted**2).sum()
            levels = self.levels[channel]
            if levels is not None:
                levels = np.union1d(levels, pixels)
                self.levels[channel] = levels if len(levels) <= MAX_GREY_LEVELS else None

    def summary(self) -> dict[str, list[float]]:
        """Return the statistics of the patches so far.

        Returns
        -------
        dict
            ``mean``, ``std`` and ``step``, each with one number per channel, in grey values. A step of 0.0 means
            continuous grey values.
        """
        mean = self.sum / self.pixels
        std = np.sqrt(self.squares / self.pixels - mean**2)
        steps = [0.0 if levels is None else quantisation_step(levels) for levels in self.levels]
        return {"mean": (mean + self.shift).tolist(), "std": std.tolist(), "step": steps}


def quantisation_step(levels: np.ndarray) -> float:
    """Return the spacing of grey values.

    Parameters
    ----------
    levels
        The distinct grey values, in ascending order.

    Returns
    -------
    float
        The spacing; 0.0 if the grey values are not on a regular grid.
    """
    if len(levels) < 2:
        return 0.0
    extent = levels[-1] - levels[0]
    step = extent / round(extent / np.diff(levels).min())
    places = (levels - levels[0]) / step
    return float(step) if np.abs(places - np.rint(places)).max() < 0.05 else 0.0


def write_patches(
    path: Path,
    places: Sequence[Place],
    size: Sequence[int],
    survey: Survey,
    statistics: PatchStatistics | None = None,
    ends: LimitFinder | None = None,
) -> None:
    """Write patches, one at a time, into a TIFF that can be memory-mapped, (N, C, ...) float32.

    If there are pixels to leave out of the loss, a file of the same shape is written beside it, uint8, with 0 there.

    Parameters
    ----------
    path
        The file to make, ``NAME.tif``. The other one is ``NAME_mask.tif``.
    places
        The places of the patches.
    size
        Sides of a patch, in pixels.
    survey
        What was found in the images.
    statistics, ends
        What the patches are added to; None: nothing.
    """
    shape = (len(places), places[0][0].shape[0], *size)
    padded = any(length < side for image, _ in places for length, side in zip(image.shape[1:], size, strict=True))
    masked = padded or survey.needs_mask(image for image, _ in places)
    with ExitStack() as stack:
        patches = stack.enter_context(_appended(path, shape, np.float32))
        masks = (
            stack.enter_context(_appended(path.with_name(f"{path.stem}_mask.tif"), shape, np.uint8)) if masked else None
        )
        current: Image | None = None
        for image, corner in progress(places, description=f"patches {path.stem}", unit="patch"):
            # The places in one image are consecutive, so each image is read once.
            if image != current:
                current, frame = image, survey.read(image)
            window = (slice(None), *(slice(first, first + side) for first, side in zip(corner, size, strict=True)))
            own = frame.filled[window]
            missing = [(0, 0), *((0, side - length) for side, length in zip(size, own.shape[1:], strict=True))]
            patches(np.pad(own, missing, "symmetric"))
            learned, measured = (
                np.ones(own.shape, bool) if mask is None else mask[window] for mask in (frame.learned, frame.measured)
            )
            if masks is not None:
                masks(np.pad(learned, missing))
            if statistics is not None:
                statistics.update(own, measured)
            if ends is not None:
                ends.update(own, learned)
            release(frame.filled, frame.learned, frame.measured)


@contextmanager
def _appended(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> Iterator[Callable[[np.ndarray], object]]:
    """Create a TIFF of patches. Yield a function that writes the next one."""
    big = np.dtype(dtype).itemsize * math.prod(shape) > 2**32 - 2**20
    mapped = tifffile.memmap(path, shape=shape, dtype=dtype, photometric="minisblack", bigtiff=big)
    reserve_space(path)
    # What is written into mapped memory counts as memory of the process.
    with path.open("r+b") as file:
        file.seek(mapped.offset)
        yield lambda patch: file.write(np.ascontiguousarray(patch, mapped.dtype).data)
