"""Work on each image of a dataset, divided among threads."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from dvlae.data.manifest import Image
from dvlae.system.hardware.machine import choose_workers
from dvlae.system.progress import progress
from dvlae.system.workers import ThreadWorkers

# What registration needs at most, measured; other steps need less, except BM3D, which also needs memory for the plane
# that it filters. The second number is for volumes, whose cross-correlation is computed at 150 x 150 x 150 positions.
BYTES_PER_VALUE = 140
BYTES_FOR_POSITIONS = 2**27

Item = TypeVar("Item")
Result = TypeVar("Result")


def choose_image_workers(
    step: str, images: Sequence[Image], cores: int | None, *, bytes_per_plane_value: int = 0
) -> int:
    """Choose how many threads work on images, one image each, and log the number.

    Parameters
    ----------
    step
        Name of the step, for the message.
    images
        The images.
    cores
        Cores that the step may use; None: all that this process may use.
    bytes_per_plane_value
        Memory that a thread needs for each value of one plane, in addition to what registration of the image needs.

    Returns
    -------
    int
        At least 1, and so few that the largest image fits into memory once for each.
    """
    largest = max(
        (
            BYTES_PER_VALUE * math.prod(image.shape) + bytes_per_plane_value * math.prod(image.shape[1:][-2:])
            for image in images
        ),
        default=0,
    )
    return choose_workers(step, len(images), cores=cores, memory=largest + BYTES_FOR_POSITIONS)


def map_images(
    function: Callable[[Item], Result], images: Sequence[Item], workers: int, *, description: str
) -> list[Result]:
    """Call a function for each image, and show the progress.

    Parameters
    ----------
    function
        Called for several images at once, if there are several workers. If it reads the image, no more images than
        workers are in memory.
    images
        The images, or what stands for each of them.
    workers
        Number of threads.
    description
        The name of the step, for the progress.

    Returns
    -------
    list
        The results, in the order of the images. They do not depend on the number of workers.
    """
    return list(iterate_images(function, images, workers, description=description))


def iterate_images(
    function: Callable[[Item], Result], images: Sequence[Item], workers: int, *, description: str
) -> Iterator[Result]:
    """Call a function for each image, as :func:`map_images` does, and yield each result as soon as it is needed.

    Parameters
    ----------
    function, images, workers, description
        As for :func:`map_images`.

    Yields
    ------
    object
        The results, in the order of the images. Few more of them than workers are in memory.
    """
    with ThreadWorkers(workers) as threads:
        results = threads.in_order(threads.submit(function, image) for image in images)
        yield from progress(results, total=len(images), description=description, unit="image")
