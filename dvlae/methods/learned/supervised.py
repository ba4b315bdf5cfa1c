"""A network that is trained on clean images, but never on those that it denoises: the ceiling of what can be reached.

The images are divided into folds of neighbouring blocks. For each fold a network is trained on all other images, and
denoises those of the fold. So no image is denoised by a network that has seen its scene.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from dvlae.config.messages import validate
from dvlae.data.canonical import read_mask, read_noisy
from dvlae.data.defects.frames import ExaminedFrame, read_filled
from dvlae.data.manifest import Image
from dvlae.evaluation.register import Targets
from dvlae.methods.learned.blocks import divide
from dvlae.methods.learned.patches import cut_patches, weights_of
from dvlae.methods.learned.training import NetworkSettings, Trained, train
from dvlae.methods.task import Fitted, NotApplicableError, Task, images_with_clean


class SupervisedSettings(NetworkSettings):
    """Settings of supervised training.

    Attributes
    ----------
    folds
        Number of folds; fewer if there are fewer blocks.
    """

    folds: int = Field(5, ge=2)


def fit(task: Task) -> Fitted:
    """Train a network for each fold, on the clean images of the other folds. It takes ``task.minutes`` for each.

    The clean images are registered as for the evaluation, and in the units of the noisy ones. Of a dataset that is
    evaluated on some of its images, all networks learn from the others. In a search, only the first network is trained.

    Parameters
    ----------
    task
        Its settings are those of :class:`SupervisedSettings`.

    Returns
    -------
    Fitted
        ``trainings`` in the description says how each network was trained, and on which images.

    Raises
    ------
    NotApplicableError
        If there are no clean images, or all of them belong together.
    UserError
        If a setting is wrong, or the training fails.
    """
    settings = validate(SupervisedSettings, dict(task.settings), "settings")
    evaluated = {image.name for image in images_with_clean(task)}
    if not evaluated:
        raise NotApplicableError("there is no clean image to learn from")
    blocks = divide(task.images, task.block)
    folds = make_folds([any(image.name in evaluated for image in block) for block in blocks], settings.folds)
    learned_from = [
        [[image for image in block if image.clean] for number, block in enumerate(blocks) if number not in fold]
        for fold in folds
    ]
    if not any(learned_from[0]):
        raise NotApplicableError("all images belong together, so no network could denoise what it has not seen")
    # The table has no row for an image that is not evaluated.
    unregistered = Targets(task.targets.settings)
    maps = {
        image.name: _pair(image, task.targets if image.name in evaluated else unregistered)
        for image in task.images
        if image.clean
    }
    networks: dict[str, Trained] = {}
    records = []
    for number, fold in enumerate(folds[:1] if task.searching else folds):
        patches = cut_patches(learned_from[number], maps, settings.crop)
        description = f"fold {number + 1} of {len(folds)}"
        trained, record = train(patches, settings, task, seed=task.seed, description=description)
        denoised = [image.name for block in fold for image in blocks[block]]
        networks |= dict.fromkeys(denoised, trained)
        records.append(record | {"held_out": patches.held_out, "images": patches.images, "denoised": denoised})
    # Images that are not evaluated may be in no fold.
    first = next(iter(networks.values()))
    return Fitted(
        lambda image: networks.get(image.name, first).denoise(read_filled(image)),
        {
            **settings.model_dump(exclude_none=True),
            "images": list(maps),
            "steps": sum(record["steps"] for record in records),
            "parameters": records[0]["parameters"],
            "training_seconds": round(sum(record["training_seconds"] for record in records), 1),
            "validation_loss": float(np.mean([record["validation_loss"] for record in records])),
            "trainings": records,
        },
    )


def make_folds(evaluated: Sequence[bool], most: int) -> list[list[int]]:
    """Divide blocks into folds of neighbours.

    Parameters
    ----------
    evaluated
        Whether an image of each block is evaluated. Other blocks are in no fold: all networks learn from them.
    most
        Number of folds, if there are as many blocks.

    Returns
    -------
    list of list of int
        Numbers of the blocks of each fold. Neighbouring blocks may overlap at their ends, so they are together as often
        as possible.
    """
    numbers = np.flatnonzero(evaluated)
    return [part.tolist() for part in np.array_split(numbers, min(most, len(numbers)))]


def _pair(image: Image, targets: Targets) -> np.ndarray:
    """Return the noisy image, the clean one in its units, and the weight of each value, (3 C, ...)."""
    noisy = read_noisy(image)
    frame = ExaminedFrame.examine(noisy, read_mask(image))
    target = targets.target(image, noisy)
    region = (slice(None), *target.region)
    clean = target.clean_like_noisy().astype(np.float32)
    return np.concatenate([frame.filled[region], clean, weights_of(frame)[region]])
