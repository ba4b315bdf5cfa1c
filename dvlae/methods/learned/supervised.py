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
from dvlae.data.manifest import Image, select_images
from dvlae.evaluation.register import Targets
from dvlae.methods.learned.blocks import divide
from dvlae.methods.learned.patches import cut_patches, weights_of
from dvlae.methods.learned.training import NetworkSettings, Trained, train
from dvlae.methods.task import Fitted, NotApplicableError, Task


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

    The clean images are registered as for the evaluation, and in the units of the noisy ones. In a search, only the
    first network is trained.

    Parameters
    ----------
    task
        Its settings are those of :class:`SupervisedSettings`.

    Returns
    -------
    Fitted
        ``folds`` in the description says how each network was trained, and on which images.

    Raises
    ------
    NotApplicableError
        If there are no clean images, or all of them belong together.
    UserError
        If a setting is wrong, or the training fails.
    """
    settings = validate(SupervisedSettings, dict(task.settings), "settings")
    evaluated = select_images(task.images, task.targets.settings.images)
    pairs = {image.name: image for image in evaluated if image.clean is not None}
    if not pairs:
        raise NotApplicableError("there is no clean image to learn from")
    blocks = [block for block in divide(task.images, task.block) if any(image.name in pairs for image in block)]
    if len(blocks) < 2:
        raise NotApplicableError("all images belong together, so no network could denoise what it has not seen")
    maps = {name: _pair(image, task.targets) for name, image in pairs.items()}
    networks: dict[str, Trained] = {}
    records = []
    folds = make_folds(blocks, settings.folds)
    for number, fold in enumerate(folds[:1] if task.searching else folds):
        others = [
            [image for image in block if image.name in pairs] for other in folds if other is not fold for block in other
        ]
        patches = cut_patches(others, maps, settings.crop)
        trained, record = train(
            patches, settings, task, seed=task.seed, description=f"fold {number + 1} of {len(folds)}"
        )
        denoised = [image.name for block in fold for image in block]
        networks |= dict.fromkeys(denoised, trained)
        records.append(record | {"held_out": patches.held_out, "images": patches.images, "denoised": denoised})
    # Images without a clean one are in no fold, and none of the networks has seen them.
    first = next(iter(networks.values()))
    return Fitted(
        lambda image: networks.get(image.name, first).denoise(read_filled(image)),
        {
            **settings.model_dump(exclude_none=True),
            "images": list(pairs),
            "steps": sum(record["steps"] for record in records),
            "parameters": records[0]["parameters"],
            "training_seconds": round(sum(record["training_seconds"] for record in records), 1),
            "validation_loss": float(np.mean([record["validation_loss"] for record in records])),
            "folds": records,
        },
    )


def make_folds(blocks: Sequence[list[Image]], most: int) -> list[list[list[Image]]]:
    """Divide blocks into folds of neighbours.

    Parameters
    ----------
    blocks
        The images of each block.
    most
        Number of folds, if there are as many blocks.

    Returns
    -------
    list of list of list of Image
        The blocks of each fold. Neighbouring blocks may overlap at their ends, so as many as possible are together.
    """
    parts = np.array_split(np.arange(len(blocks)), min(most, len(blocks)))
    return [[blocks[number] for number in part] for part in parts]


def _pair(image: Image, targets: Targets) -> np.ndarray:
    """Return the noisy image, the clean one in its units, and the weight of each value, (3 C, ...)."""
    noisy = read_noisy(image)
    frame = ExaminedFrame.examine(noisy, read_mask(image))
    target = targets.target(image, noisy)
    region = (slice(None), *target.region)
    clean = target.clean_like_noisy().astype(np.float32)
    return np.concatenate([frame.filled[region], clean, weights_of(frame)[region]])
