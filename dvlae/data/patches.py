"""Training and validation patches, which all trainings on a dataset use."""

import itertools
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from dvlae.axes import AXES, format_sides
from dvlae.config.patch_size import fitting_crop, largest_crop, training_crop
from dvlae.config.settings import PatchSettings
from dvlae.data.canonical import read_canonical
from dvlae.data.manifest import Image, read_manifest, select_images
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder, reserve_space, sha256
from dvlae.system.progress import progress

logger = logging.getLogger(__name__)

# An image, and the first index of a patch along each of its spatial axes.
Place = tuple[Image, tuple[int, ...]]
# Grey values are considered continuous if there are more distinct ones.
MAX_GREY_LEVELS = 2**16


def extract_patches(images: Path, output: Path, settings: PatchSettings) -> None:
    """Cut the noisy images into training and validation patches.

    Along each axis, a patch is twice as long as a training crop if the images are large enough, so that a different
    crop can be selected at each step. The patches cover every image completely.

    Parameters
    ----------
    images
        Folder with ``manifest.csv``.
    output
        The folder to make: ``train.tif`` and ``val.tif``, (N, C, ...) float32 with the images' spatial axes, which can
        be memory-mapped, and ``patches.json``: mean, standard deviation and quantisation step of each channel over the
        training patches, in grey values; sides in pixels; the place of each patch; the files' hashes.
    settings
        Size of the crop, images, and how to split them.

    Raises
    ------
    UserError
        If an image is smaller than a training crop.
    """
    chosen = select_images(read_manifest(images), settings.images)
    crop, size = _choose_sides(chosen, settings)
    train, val, validation = split(chosen, size, settings)
    with atomic_folder(output) as folder:
        statistics = PatchStatistics(chosen[0].shape[0])
        write_patches(folder / "train.tif", train, size, statistics)
        write_patches(folder / "val.tif", val, size)
        description = {
            **statistics.summary(),
            "channels": chosen[0].shape[0],
            "patch_size": size,
            "crop_size": crop,
            "validation": validation,
            "sha256": {name: sha256(folder / f"{name}.tif") for name in ("train", "val")},
            "sources": {
                name: [[image.name, *corner] for image, corner in places]
                for name, places in (("train", train), ("val", val))
            },
        }
        (folder / "patches.json").write_text(json.dumps(description) + "\n", encoding="utf-8")


def _choose_sides(images: Sequence[Image], settings: PatchSettings) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the sides of a training crop, and those of a patch."""
    names = "zyx"[-(len(images[0].shape) - 1) :]
    smallest = {name: min(images, key=lambda image: image.shape[AXES[name]]) for name in names}
    most = tuple(image.shape[AXES[name]] for name, image in smallest.items())
    crop, fitting = training_crop(settings.patch_size, most, settings.stride), fitting_crop(most, settings.stride)
    for name, image in smallest.items():
        axis = AXES[name]
        if crop[axis] > most[axis]:
            raise UserError(
                f"training.patch_size: found {crop[axis]} along {name}, but the image {image.name!r} has "
                f"{format_sides(image.shape[1:])} pixels, allowed: at most {fitting[axis]} along {name}, such as "
                f"[{', '.join(map(str, fitting))}] for [{', '.join(names)}], or auto"
            )
        if settings.patch_size == "auto" and crop[axis] < largest_crop("auto", len(crop), settings.stride)[axis]:
            logger.info(
                f"extract-patches: training crops have {crop[axis]} pixels along {name}, as the image {image.name!r} "
                f"has {format_sides(image.shape[1:])} pixels"
            )
    return crop, tuple(min(2 * side, longest) for side, longest in zip(crop, most, strict=True))


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
    fraction = settings.validation_fraction
    blocks = [images[start : start + settings.block] for start in range(0, len(images), settings.block)]
    if len(blocks) > 1:
        held = set(_spread(len(blocks), fraction))
        parts = [[image for i, block in enumerate(blocks) if (i in held) == kept for image in block] for kept in (0, 1)]
        train, val = ([place for image in part for place in grid(image, size)] for part in parts)
        return train, val, "blocks"
    places = [grid(image, size) for image in images]
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
        The image, at least as large as a patch.
    size
        Sides of a patch, in pixels.

    Returns
    -------
    list of Place
        The places of the patches, row by row.
    """
    starts = (
        sorted({*range(0, length - side + 1, side), length - side})
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
        self.pixels = 0
        self.sum = np.zeros(channels)
        self.squares = np.zeros(channels)
        # Sums of squares of large numbers would lose small differences, so the mean of the first patch is subtracted.
        self.shift = np.zeros(channels)
        self.levels: list[np.ndarray | None] = [np.empty(0)] * channels

    def update(self, patch: np.ndarray) -> None:
        """Add a patch.

        Parameters
        ----------
        patch
            (C, ...), in grey values.
        """
        pixels = patch.reshape(len(patch), -1)
        if not self.pixels:
            self.shift = pixels.mean(axis=1, dtype=np.float64)
        shifted = pixels - self.shift[:, None]
        self.pixels += pixels.shape[1]
        self.sum += shifted.sum(axis=1)
        self.squares += (shifted**2).sum(axis=1)
        for channel, levels in enumerate(self.levels):
            if levels is not None:
                levels = np.union1d(levels, patch[channel])
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
    path: Path, places: Sequence[Place], size: Sequence[int], statistics: PatchStatistics | None = None
) -> None:
    """Write patches, one at a time, into a TIFF that can be memory-mapped, (N, C, ...) float32.

    Parameters
    ----------
    path
        The file to make.
    places
        The places of the patches.
    size
        Sides of a patch, in pixels.
    statistics
        Statistics to which the patches are added; None: none.
    """
    shape = (len(places), places[0][0].shape[0], *size)
    big = 4 * np.prod(shape, dtype=np.int64) > 2**32 - 2**20
    file = tifffile.memmap(path, shape=shape, dtype=np.float32, photometric="minisblack", bigtiff=bool(big))
    reserve_space(path)
    patches = file.reshape(shape)
    current: Image | None = None
    for number, (image, corner) in enumerate(progress(places, description=f"patches {path.stem}", unit="patch")):
        # The places in one image are consecutive, so each image is read once.
        if image != current:
            current, pixels = image, read_canonical(image.noisy)
        window = (slice(first, first + side) for first, side in zip(corner, size, strict=True))
        patches[number] = pixels[:, *window]
        if statistics is not None:
            statistics.update(patches[number])
    file.flush()
