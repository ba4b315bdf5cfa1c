"""What others have measured on the datasets of ``config/datasets/``."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A figure that others have measured, for comparison.

    Attributes
    ----------
    psnr
        In decibel.
    method, source, conditions
        What was run, who measured it, and how.
    """

    psnr: float
    method: str
    source: str
    conditions: str


NOTEBOOK_SOURCE = "notebook of Salmon and Krull (COSDD)"
PUBLISHED = {
    "convallaria": [
        Published(32.97, "COSDD", NOTEBOOK_SOURCE, "MMSE of 100 samples, mean of 100 frames, crop of 512 x 512 px"),
    ],
    "mito_confocal": [
        Published(30.25, "COSDD, 5.4 M parameters", NOTEBOOK_SOURCE, "last 8 images, 40 min on an RTX 3090"),
        Published(28.84, "COSDD, 1.5 M parameters", NOTEBOOK_SOURCE, "last 8 images, 20 min on an RTX 3090"),
    ],
}
