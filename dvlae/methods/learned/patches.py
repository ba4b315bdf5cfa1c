"""Patches that networks are trained and validated on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dvlae.config.fields import Count, Positive, StrictModel
from dvlae.data.defects.frames import ExaminedFrame
from dvlae.data.manifest import Image, spread_evenly
from dvlae.data.patches import split_blocks
from dvlae.methods.task import NotApplicableError

# Of the images, or of the patches of a single image.
VALIDATION_FRACTION = 0.1
# Of all patches together, channels included: 1 GiB.
MAX_VALUES = 2**28


class LearningSettings(StrictModel):
    """Settings of all methods that train.

    Attributes
    ----------
    crop, batch
        Longest side of a training crop, in pixels, and crops in a batch.
    rate
        Learning rate: where it falls, the highest.
    width, depth
        Channels at full resolution, and how many times the resolution is halved.
    max_steps
        Number of steps that ends the training, if the time does not; the course of the training then depends on the
        steps alone.
    """

    crop: Count
    batch: Count
    rate: Positive
    width: Count
    depth: Count
    max_steps: Count | None = None


@dataclass(frozen=True)
class Patches:
    """Patches of one size, and how they were cut.

    Attributes
    ----------
    train, validation
        (N, C, ...) float32.
    crop
        Sides of a training crop, in pixels.
    images
        Names of the images that patches were cut from.
    held_out
        What ``validation`` is: other ``blocks``, other ``patches`` of the same images, or the ``same``.
    """

    train: np.ndarray
    validation: np.ndarray
    crop: tuple[int, ...]
    images: list[str]
    held_out: str


def cut_patches(blocks: Sequence[Sequence[Image]], maps: Mapping[str, np.ndarray], crop: int) -> Patches:
    """Cut maps of images into patches, and hold complete blocks out for validation.

    Parameters
    ----------
    blocks
        The images that belong together, which are held out together.
    maps
        What is cut, by the name of the image: (C, ...) float32, with as many channels for each image.
    crop
        Longest side of a training crop, in pixels. It is shorter along an axis where most images are; images that are
        shorter still are left out.

    Returns
    -------
    Patches
        Patches twice as long as a crop where the images are large enough; at most ``MAX_VALUES``, spread evenly.
    """
    sides = {name: array.shape[1:] for name, array in maps.items()}
    shortest_first = np.sort(list(sides.values()), axis=0)
    lengths = np.minimum(shortest_first[(len(sides) - 1) // 2], crop)
    large = {name: own for name, own in sides.items() if np.all(own >= lengths)}
    if not large:
        # Of some images one side is short, of others another one.
        large, lengths = sides, shortest_first[0]
    size = np.minimum(2 * lengths, np.min(list(large.values()), axis=0)).tolist()
    cut = [[replace(image, shape=maps[image.name].shape) for image in block if image.name in large] for block in blocks]
    train, validation, held_out = split_blocks([block for block in cut if block], size, VALIDATION_FRACTION)
    values = len(next(iter(maps.values()))) * int(np.prod(size))

    def stack(places: Sequence[tuple[Image, tuple[int, ...]]]) -> np.ndarray:
        chosen = [places[i] for i in spread_evenly(len(places), max(1, MAX_VALUES // values))]
        windows = [
            (image.name, tuple(slice(at, at + side) for at, side in zip(corner, size, strict=True)))
            for image, corner in chosen
        ]
        return np.stack([maps[name][:, *window] for name, window in windows])

    names = list(dict.fromkeys(image.name for image, _ in train))
    return Patches(stack(train), stack(validation), tuple(lengths.tolist()), names, held_out)


def scale_of(patches: np.ndarray) -> tuple[list[float], list[float]]:
    """Return what normalises the grey values of patches.

    Parameters
    ----------
    patches
        (N, C, ...).

    Returns
    -------
    tuple of list of float
        Mean and standard deviation of each channel.

    Raises
    ------
    NotApplicableError
        If a channel is constant.
    """
    axes = (0, *range(2, patches.ndim))
    mean, std = patches.mean(axis=axes, dtype=np.float64), patches.std(axis=axes, dtype=np.float64)
    if not std.all():
        raise NotApplicableError(f"channel {np.argmin(std)} is constant, so there is nothing to learn")
    return mean.tolist(), std.tolist()


def weights_of(frame: ExaminedFrame) -> np.ndarray:
    """Return which values of a frame count in the loss.

    Parameters
    ----------
    frame
        The frame.

    Returns
    -------
    (C, ...) float32 array
        0 where a value is filled in, as at hot, dead and masked pixels, else 1.
    """
    return np.ones(frame.noisy.shape, np.float32) if frame.learned is None else frame.learned.astype(np.float32)
