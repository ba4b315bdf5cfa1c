"""What a method is given, and what it gives back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dvlae.data.manifest import Image, select_images
from dvlae.evaluation.register import Targets


class NotApplicableError(Exception):
    """A method cannot denoise these images. The message is one line, which stands in the tables."""


@dataclass(frozen=True)
class Task:
    """The images of a dataset, and what a method may use to denoise them.

    Attributes
    ----------
    images
        All images of the dataset.
    targets
        What estimates are compared with. A method that sees no clean image does not touch it.
    noise_direction
        Axis along which the noise is correlated, or ``none``.
    block
        Number of neighbouring images that belong together, as the dataset's file says: ``training.block``.
    noise
        The diagnosis of the noise, as :func:`dvlae.reporting.diagnosis.diagnose` writes it.
    settings
        The settings of the method, from its file.
    seed
        Seed of a method that draws random numbers.
    minutes
        Time for the training of a method that trains.
    workers
        Number of threads.
    device
        Where to compute: ``cpu``, ``cuda`` or ``mps``.
    folder
        A folder for temporary files.
    searching
        Whether this is a candidate of a search, of which only the ``validation_loss`` counts.
    """

    images: list[Image]
    targets: Targets
    noise_direction: str
    block: int
    noise: Mapping[str, Any]
    settings: Mapping[str, Any]
    seed: int
    minutes: float
    workers: int
    device: str
    folder: Path
    searching: bool = False


@dataclass(frozen=True)
class Fitted:
    """A method that is ready to denoise.

    Attributes
    ----------
    denoise
        Function that returns the estimate, (C, ...), of one image in its units. Threads may share it.
    description
        What was chosen, and how, for the record: JSON. ``validation_loss``, if it is there, is what the candidates of
        a search are compared by; ``images``, if it is there, names the images that determined the parameters.
    """

    denoise: Callable[[Image], np.ndarray]
    description: dict[str, Any]


def images_with_clean(task: Task) -> list[Image]:
    """Return the images that an oracle chooses its parameters by.

    Parameters
    ----------
    task
        What a method is given.

    Returns
    -------
    list of Image
        Those that are evaluated and have a clean image.
    """
    return [image for image in select_images(task.images, task.targets.settings.images) if image.clean is not None]
