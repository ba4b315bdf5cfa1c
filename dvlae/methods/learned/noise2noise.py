"""Noise2Noise: a network that is trained to predict one noisy image of a scene from another.

The noise of the other image cannot be predicted, so the mean of what it may be is the signal:

    argmin E |D(x_1) - x_2|^2 = E[x_2 | x_1] = E[s | x_1]

Source: Lehtinen et al., "Noise2Noise: learning image restoration without clean data", ICML 2018, arXiv 1803.04189.
"""

from collections import defaultdict
from collections.abc import Hashable
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from dvlae.config.messages import validate
from dvlae.data.canonical import read_mask, read_noisy
from dvlae.data.defects.frames import ExaminedFrame, read_filled
from dvlae.data.manifest import Image
from dvlae.methods.learned.blocks import divide, scene_of
from dvlae.methods.learned.patches import cut_patches, weights_of
from dvlae.methods.learned.training import NetworkSettings, train
from dvlae.methods.task import Fitted, NotApplicableError, Task
from dvlae.system.errors import UserError


class Noise2NoiseSettings(NetworkSettings):
    """Settings of Noise2Noise.

    Attributes
    ----------
    repeats
        Which images are recordings of one scene, without any movement between them: a number of neighbouring images;
        ``source``: all frames of a file; ``auto``: those that have the same clean image.
    """

    repeats: Literal["auto", "source"] | Annotated[int, Field(ge=2)] = "auto"


def fit(task: Task) -> Fitted:
    """Train a network on pairs of noisy images of one scene. It does not look at clean images.

    Parameters
    ----------
    task
        Its settings are those of :class:`Noise2NoiseSettings`.

    Returns
    -------
    Fitted
        Each image is denoised by itself.

    Raises
    ------
    NotApplicableError
        If no scene was recorded twice.
    UserError
        If a setting is wrong, or the training fails.
    """
    settings = validate(Noise2NoiseSettings, dict(task.settings), "settings")
    scenes = find_scenes(task.images, settings.repeats)
    repeated = {scene: images for scene, images in scenes.items() if len(images) > 1}
    if not repeated:
        raise NotApplicableError("no scene is recorded twice, unless settings.repeats in the method's file says how")
    scene_by_name = {image.name: scene for scene, images in repeated.items() for image in images}
    maps = {}
    for images in repeated.values():
        frames = [ExaminedFrame.examine(read_noisy(image), read_mask(image)) for image in images]
        # Each frame predicts the next one, so each is input once and target once.
        for image, frame, following in zip(images, frames, [*frames[1:], frames[0]], strict=True):
            maps[image.name] = np.concatenate([frame.filled, following.filled, weights_of(following)])
    blocks = divide(
        [image for image in task.images if image.name in maps], task.block, lambda image: scene_by_name[image.name]
    )
    patches = cut_patches(blocks, maps, settings.crop)
    trained, record = train(patches, settings, task, seed=task.seed, description="noise2noise")
    return Fitted(
        lambda image: trained.denoise(read_filled(image)),
        settings.model_dump(exclude_none=True) | record | {"held_out": patches.held_out, "images": patches.images},
    )


def find_scenes(images: list[Image], repeats: str | int) -> dict[Hashable, list[Image]]:
    """Group images by what they show.

    Parameters
    ----------
    images
        The images, in the dataset's order.
    repeats
        As in :class:`Noise2NoiseSettings`.

    Returns
    -------
    dict
        The images of each scene, in order.

    Raises
    ------
    UserError
        If images of one scene differ in shape.
    """
    scenes: dict[Hashable, list[Image]] = defaultdict(list)
    for number, image in enumerate(images):
        if repeats == "auto":
            scene = scene_of(image)
        elif repeats == "source":
            scene = image.noisy
        else:
            scene = number // int(repeats)
        scenes[scene].append(image)
    for first, *others in scenes.values():
        for other in others:
            if other.shape != first.shape:
                raise UserError(
                    f"settings.repeats: found {repeats}, but {first.name!r} has the shape {first.shape} and "
                    f"{other.name!r} {other.shape}, allowed: images of one scene, which have one shape"
                )
    return dict(scenes)
