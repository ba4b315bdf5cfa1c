"""No denoising at all: the noisy image stands for the estimate."""

from collections.abc import Callable

import numpy as np

from dvlae.data.manifest import Image
from dvlae.evaluation.register import Targets


def fit(images: list[Image], targets: Targets) -> tuple[Callable[[np.ndarray], np.ndarray], dict]:
    """Return a function that gives each image (C, ...) back as it is, and what was chosen: nothing.

    Parameters
    ----------
    images
        Not looked at.
    targets
        Not looked at.

    Returns
    -------
    tuple
        The function, and an empty dictionary.
    """
    return lambda noisy: noisy, {"oracle": False}
