"""Canonical images, the one format that all steps after ``dvlae prepare`` read.

A canonical image is a float32 TIFF that is read as channels and one to three spatial axes: a trace (C, X), an image
(C, Y, X) or a volume (C, Z, Y, X). A folder of them contains ``noisy/``, ``clean/`` if there are clean images, and
``manifest.csv`` with one row per image.
"""

from pathlib import Path

import numpy as np
import tifffile

from dvlae.data.pixels import errors_named, open_tiff, read_pixels
from dvlae.system.files import atomic_file

# The axes of a canonical image, by the number of axes.
CANONICAL_AXES = {2: "CX", 3: "CYX", 4: "CZYX"}


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a canonical image: a float32 TIFF that ImageJ can open. A trace becomes an image of one row.

    Parameters
    ----------
    path
        The file to make.
    image
        (C, X), (C, Y, X) or (C, Z, Y, X), converted to float32.
    """
    image = np.asarray(image, dtype=np.float32)
    axes = CANONICAL_AXES[image.ndim]
    if axes == "CX":
        image = image[:, None]
    elif axes == "CZYX":
        # ImageJ stores the channels of one plane together.
        image = image.swapaxes(0, 1)
    # ImageJ and tifffile drop axes of length 1; `canonical` records the original ones.
    metadata = {"axes": {3: "CYX", 4: "ZCYX"}[image.ndim], "canonical": axes}
    with atomic_file(path) as temporary:
        tifffile.imwrite(temporary, image, imagej=True, metadata=metadata)


def read_canonical(path: Path) -> np.ndarray:
    """Read a canonical image.

    Parameters
    ----------
    path
        A TIFF file. If another program wrote it, it is read as an image (C, Y, X).

    Returns
    -------
    (C, X), (C, Y, X) or (C, Z, Y, X) float32 array
        The image, with an axis for the channels even if there is only one.

    Raises
    ------
    UserError
        If the file is missing or cannot be read.
    """
    with errors_named(Path(path)), open_tiff(path) as file:
        array = read_pixels(file.series[0])
        metadata = file.imagej_metadata or {}
        rows = array.shape[-2:]
        if metadata.get("canonical") == "CZYX":
            array = array.reshape(metadata.get("slices", 1), -1, *rows).swapaxes(0, 1)
        else:
            array = array.reshape(-1, *(rows[1:] if metadata.get("canonical") == "CX" else rows))
        return np.ascontiguousarray(array, dtype=np.float32)
