"""No denoising: the noisy image is the estimate."""

from collections.abc import Callable

import numpy as np

from dvlae.data.manifest import Image
from dvlae.evaluation.register import Targets


def fit(images: list[Image], targets: Targets, workers: int = 1) -> tuple[Callable[[np.ndarray], np.ndarray], dict]:
    """Return a function that returns each image unchanged.

    Parameters
    ----------
    images
        Not used.
    targets
        Not used.
    workers
        Not used.

    Returns
    -------
    tuple
        The function, and a description: ``oracle`` is false.
    """
    return lambda noisy: noisy, {"oracle": False}
